//! Keys that Apache RocketMQ knows and Apogee does not, old and misspelt ones, and the key nearest
//! to one that nobody knows. Reasons and history: spec `config.md` 2 and 7.

use super::{BrokerSettings, NamesrvSettings, NetSettings, StoreSettings};

/// What is known about a key that no table declares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Known {
    /// Changes nothing here, for this reason.
    Ignored(&'static str),
    /// A feature that is not there yet; fine while the value is this, upstream's default.
    Missing { default: &'static str },
    /// A feature without which messages or access control would be lost: the server must not start
    /// with another value than this.
    Refused { default: &'static str, instead: &'static str },
    /// An older or wrong name for `key`.
    Renamed { key: &'static str, note: &'static str },
}

/// What is known about `key`.
#[must_use]
pub fn known(key: &str) -> Option<Known> {
    let renamed = RENAMED.iter().find(|(old, ..)| *old == key);
    let refused = REFUSED.iter().find(|(name, ..)| *name == key);
    let missing = MISSING.iter().find(|(name, _)| *name == key);
    let ignored = IGNORED.iter().find(|(_, keys)| keys.split_whitespace().any(|name| name == key));
    None.or_else(|| renamed.map(|(_, key, note)| Known::Renamed { key, note }))
        .or_else(|| refused.map(|(_, default, instead)| Known::Refused { default, instead }))
        .or_else(|| missing.map(|(_, default)| Known::Missing { default }))
        .or_else(|| ignored.map(|(reason, _)| Known::Ignored(reason)))
}

const STORE_KEEPS: &str =
    "an existing store keeps the size that it has, a new one takes the default";
const OTHER_SPELLING: &str = "it is not read under this name";

/// Old and misspelt keys: key, the one that counts, what is done.
const RENAMED: &[(&str, &str, &str)] = &[
    ("mapedFileSizeCommitLog", "mappedFileSizeCommitLog", STORE_KEEPS),
    ("mapedFileSizeConsumeQueue", "mappedFileSizeConsumeQueue", STORE_KEEPS),
    ("destoryMaoedFileIntervalForcibly", "destroyMapedFileIntervalForcibly", OTHER_SPELLING),
    ("destroyMappedFileIntervalForcibly", "destroyMapedFileIntervalForcibly", OTHER_SPELLING),
    ("warmMappedFileEnable", "warmMapedFileEnable", OTHER_SPELLING),
    ("haSlaveFallbehindMax", "haMaxGapNotInSync", OTHER_SPELLING),
    ("serverLoadBalancerEnabled", "serverLoadBalancerEnable", OTHER_SPELLING),
    ("enableTransparentRetry", "enableReconnectForGoAway", OTHER_SPELLING),
    ("brokerIP", "brokerIP1", OTHER_SPELLING),
    ("autoCreateTopic", "autoCreateTopicEnable", OTHER_SPELLING),
    ("autoCreateSubscriptionGroupEnable", "autoCreateSubscriptionGroup", OTHER_SPELLING),
    ("nameserverAddr", "namesrvAddr", OTHER_SPELLING),
    ("nameServerAddr", "namesrvAddr", OTHER_SPELLING),
    ("enableSqlFilter", "enablePropertyFilter", OTHER_SPELLING),
];

/// Key, the only value that is accepted, what to do instead.
const REFUSED: &[(&str, &str, &str)] = &[
    ("storeType", "default", "queues in RocksDB are not supported; export them to files first"),
    ("configManagerVersion", "v1", "metadata in RocksDB is not supported; export it to JSON first"),
    ("enableDLegerCommitLog", "false", "DLedger is not supported; run a master and its slaves"),
    ("enableControllerMode", "false", "there is no controller yet; give brokerRole and brokerId"),
    ("aclEnable", "false", "access control is not there yet; close the port to strangers instead"),
    ("authenticationEnabled", "false", "authentication is not there yet; close the port instead"),
    ("authorizationEnabled", "false", "authorization is not there yet; close the port instead"),
];

/// Key and upstream's default.
const MISSING: &[(&str, &str)] = &[
    ("allowRecallWhenBrokerNotWriteable", "true"),
    ("compressedRegister", "false"),
    ("deleteTopicWithBrokerRegistration", "false"),
    ("enableCalcFilterBitMap", "false"),
    ("enableCompaction", "true"),
    ("enableConsumeQueueExt", "false"),
    ("enableControllerInNamesrv", "false"),
    ("enableLmq", "false"),
    ("enableMultiDispatch", "false"),
    ("enablePopMessageThreshold", "false"),
    ("enableRemoteEscape", "false"),
    ("enableRetryTopicV2", "false"),
    ("enableSkipLongAwaitingAck", "false"),
    ("enableSlaveActingMaster", "false"),
    ("enabledAppendPropCRC", "false"),
    ("disableConsumeIfConsumerReadSlowly", "false"),
    ("duplicationEnable", "false"),
    ("fetchNameSrvAddrByDnsLookup", "false"),
    ("fetchNamesrvAddrByAddressServer", "false"),
    ("forceVerifyPropCRC", "false"),
    ("defaultMessageRequestMode", "PULL"),
    ("inSyncReplicas", "1"),
    ("lockInStrictMode", "false"),
    ("messageStorePlugIn", ""),
    ("metricsExporterType", "DISABLE"),
    ("minInSyncReplicas", "1"),
    ("readOnlyCommitLogStorePaths", ""),
    ("timerInterceptDelayLevel", "false"),
    ("timerWheelEnable", "true"),
    ("totalReplicas", "1"),
    ("transRocksDBEnable", "false"),
    ("timerRocksDBEnable", "false"),
    ("enableCreateSysGroup", "true"),
    ("enableMixedMessageType", "false"),
    ("enablePropertyFilter", "false"),
    ("enableShutdownGracefully", "false"),
    ("filterSupportRetry", "false"),
    ("haMasterAddress", ""),
    ("notifyMinBrokerIdChanged", "false"),
    ("recallMessageEnable", "false"),
    ("useServerSideResetOffset", "true"),
    ("validateSystemTopicWhenUpdateTopic", "true"),
    ("useTLS", "false"),
];

/// Reason, and the keys that it holds for.
const IGNORED: &[(&str, &str)] = &[
    (
        "derived from storePathRootDir, by Apache RocketMQ too",
        "storePathConsumeQueue storePathIndex storeCheckpoint abortFile",
    ),
    (
        "Apache RocketMQ does not read it either",
        "checkTransactionMessageEnable maxDelayTime filterServerNums commercialEnable
        commercialTimerCount commercialTransCount commercialBigCount commercialBaseCount
        commercialSizePerMsg flushConsumerOffsetHistoryInterval highSpeedMode
        cleanOfflineBrokerInterval maxRecoveryCommitlogFiles putMsgIndexHightWater
        putMessageTimeout maxLmqConsumeQueueNum maxBatchDeleteFilesNum dispatchCqThreads
        dispatchCqCacheNum enableAsyncReput maxTopicLength mappedFileSwapEnable
        commitLogForceSwapMapInterval commitLogSwapMapInterval commitLogSwapMapReserveFileNum
        logicQueueForceSwapMapInterval logicQueueSwapMapInterval cleanSwapedMapInterval
        logicQueueSwapMapReserveFileNum dispatchFromSenderThread enableCleanExpiredOffset
        pullBatchMaxMessageCount maxSlaveResendLength serverSocketBacklog
        maxReconnectIntervalTimeSeconds channelNotActiveInterval rocketmqHome brokerConfigPath",
    ),
    (
        "each flush takes all that is there",
        "flushCommitLogLeastPages flushCommitLogThoroughInterval flushConsumeQueueLeastPages
        flushConsumeQueueThoroughInterval",
    ),
    (
        "a pull from the disk has the bounds of one from memory (maxTransfer...OnMessageInMemory)",
        "maxTransferBytesOnMessageInDisk maxTransferCountOnMessageInDisk
        accessMessageInMemoryMaxRatio",
    ),
    (
        "it is saved with the progress of groups (flushConsumerOffsetInterval)",
        "flushDelayOffsetInterval consumerOffsetUpdateVersionStep",
    ),
    ("consumers are told at once, always", "realTimeNotifyConsumerChange"),
    ("checksums are verified after an unclean stop, always", "checkCRCOnRecover"),
    ("there are no transactional messages yet; all are refused", "rejectTransactionMessage"),
    ("a subscription goes with the last client of its group", "subscriptionExpiredTimeout"),
    (
        "it is told to name servers only with enableSlaveActingMaster",
        "brokerNotActiveTimeoutMillis",
    ),
    (
        "a server is given 3 s to connect and 120 s of silence, always",
        "connectTimeoutMillis clientChannelMaxIdleTimeSeconds",
    ),
    ("a client is forgotten after two minutes of silence, always", "channelExpiredTimeout"),
    ("files are deleted one after the other, without a pause", "deleteCommitLogFilesInterval"),
    ("a pull looks at 800 messages at most, always", "maxFilterMessageSize"),
    ("name servers look every second, always", "scanNotActiveBrokerInterval"),
    (
        "there are no thread pools to size; connections share one thread a core",
        "sendMessageThreadPoolNums putMessageFutureThreadPoolNums pullMessageThreadPoolNums
        litePullMessageThreadPoolNums ackMessageThreadPoolNums processReplyMessageThreadPoolNums
        queryMessageThreadPoolNums adminBrokerThreadPoolNums clientManageThreadPoolNums
        consumerManageThreadPoolNums loadBalanceProcessorThreadPoolNums heartbeatThreadPoolNums
        recoverThreadPoolNums endTransactionThreadPoolNums serverWorkerThreads
        serverCallbackExecutorThreads serverSelectorThreads clientWorkerThreads
        clientCallbackExecutorThreads clientRequestThreadPoolNums defaultThreadPoolNums
        timerGetMessageThreadNum timerPutMessageThreadNum batchDispatchRequestThreadPoolNums
        disableCallbackExecutor disableNettyWorkerGroup serverNettyWorkerGroupEnable
        useEpollNativeSelector recoverConcurrently enableBuildConsumeQueueConcurrently",
    ),
    (
        "requests do not queue up; a full server reads less from its sockets",
        "sendThreadPoolQueueCapacity putThreadPoolQueueCapacity pullThreadPoolQueueCapacity
        litePullThreadPoolQueueCapacity ackThreadPoolQueueCapacity replyThreadPoolQueueCapacity
        queryThreadPoolQueueCapacity clientManagerThreadPoolQueueCapacity
        consumerManagerThreadPoolQueueCapacity heartbeatThreadPoolQueueCapacity
        endTransactionPoolQueueCapacity adminBrokerThreadPoolQueueCapacity
        loadBalanceThreadPoolQueueCapacity clientRequestThreadPoolQueueCapacity
        defaultThreadPoolQueueCapacity unRegisterBrokerQueueCapacity maxAsyncPutMessageRequests
        serverOnewaySemaphoreValue serverAsyncSemaphoreValue clientOnewaySemaphoreValue
        clientAsyncSemaphoreValue brokerFastFailureEnable waitTimeMillsInSendQueue
        waitTimeMillsInPullQueue waitTimeMillsInLitePullQueue waitTimeMillsInHeartbeatQueue
        waitTimeMillsInTransactionQueue waitTimeMillsInAckQueue waitTimeMillsInAdminBrokerQueue
        osPageCacheBusyTimeOutMills enableNetWorkFlowControl asyncSendEnable",
    ),
    (
        "it tunes buffers and locks that Apogee does not have",
        "transferMsgByHeap transientStorePoolEnable transientStorePoolSize
        fastFailIfNoBufferInStorePool writeWithoutMmap commitIntervalCommitLog
        commitCommitLogLeastPages commitCommitLogThoroughInterval wakeCommitWhenPutMessage
        wakeFlushWhenPutMessage flushCommitLogTimed useReentrantLockWhenPutMessage useABSLock
        spinLockCollisionRetreatOptimalDegree topicQueueLockNum warmMapedFileEnable
        flushLeastPagesWhenWarmMapedFile putConsumeQueueDataByFileChannel dataReadAheadEnable
        destroyMapedFileIntervalForcibly redeleteHangedFileInterval writeBufferHighWaterMark
        deleteConsumeQueueFilesInterval writeBufferLowWaterMark serverPooledByteBufAllocatorEnable
        clientPooledByteBufAllocatorEnable clientSocketSndBufSize clientSocketRcvBufSize
        clientCloseSocketIfTimeout enableFastChannelEventProcess searchBcqByCacheEnable
        sharedByteBufferNum travelCqFileNumWhenGetMessage correctLogicMinOffsetSleepInterval
        correctLogicMinOffsetForceInterval maxConsumeQueueScan sampleCountThreshold
        messageIndexSafe autoMessageVersionOnTopicLen enableAcceleratedRecovery
        commitLogRecoverMaxNum enableLogConsumeQueueRepeatedlyBuildWhenRecover",
    ),
    (
        "it only shapes logs and statistics of Apache RocketMQ",
        "accountStatsEnable accountStatsPrintZeroValues maxStatsIdleTimeInMinutes enableDetailStat
        autoDeleteUnusedStats isolateLogEnable enablePopLog printChannelGroups
        printChannelGroupsMinNum debugLockEnable diskFallRecorded enableScheduleMessageStats
        estimateAccumulation metricsOtelCardinalityLimit enableRemotingMetrics
        enableMessageStoreMetrics enablePopMetrics enableConnectionMetrics
        enableTransactionMetrics enableStatsMetrics enableRequestMetrics enableLagAndDlqMetrics",
    ),
    (
        "it belongs to a feature that Apogee does not have yet, or does in another way",
        "accessMessageInMemoryHotRatio allAckInSyncStateSet appendAckAsync appendCkAsync
        appendTopicForTimerDeleteKey asyncLearner bitMapLengthConsumeQueueExt
        bottomMostCompressionTypeForConsumeQueueStore broadcastOffsetExpireMaxSecond
        broadcastOffsetExpireSecond brokerElectionPriority brokerHeartbeatInterval
        cgColdReadThreshold checkCommitLogOffsetOnRecover checkSyncStateSetPeriod
        cleanRocksDBDirtyCQIntervalMin clearRetryTopicWhenDeleteTopic clusterTest
        coldCtrStrategyEnable coldDataFlowControlEnable coldDataScanEnable
        combineAssignOffsetCQType combineCQEnableCheckSelf combineCQLoadingCQTypes
        combineCQMaxExtraSearchCommitLogFiles combineCQPreferCQType
        combineCQUseRocksdbForLmq compactionCqMappedFileSize compactionMappedFileSize
        compactionScheduleInternal compactionThreadNum compatibleWithOldNameSrv
        configBlackList consumerFallbehindThreshold controllerAddr
        controllerHeartBeatTimeoutMills defaultPopShareQueueNum
        delayOffsetUpdateVersionStep disappearTimeAfterStart dLegerGroup dLegerPeers
        dLegerSelfId enableAutoInSyncReplicas enableBatchPush enableBroadcastOffsetStore
        enableLiteEventMode enableLitePopLog enableLmqQuota enableLmqStats
        enableNotifyAfterPopOrderLockRelease enableNotifyBeforePopCalculateLag
        enablePopBatchAck enablePopBufferMerge enableRegisterProducer enableRocksDBLog
        enableRunningFlagsInFlush enableScheduleAsyncDeliver enableSingleTopicRegister
        enableSplitMetadata enableSplitRegistration expectConsumerNumUseFilter
        fetchControllerAddrByDnsLookup fetchNamesrvAddrInterval filterDataCleanTimeSpan
        forwardTimeout globalColdReadThreshold haFlowControlEnable haHousekeepingInterval
        haMaxTimeSlaveNotCatchup haSendHeartbeatInterval haTransferBatchSize
        indexFileReadEnable indexFileWriteEnable indexRocksDBEnable
        initPopOffsetByCheckMsgInMem isScanAvailableNameSrv
        iteratorWhenUseRocksdbConsumeQueue liteEventCheckInterval
        liteEventFullDispatchDelayTime liteEventFullDispatchDelayTimeForWildcardGroup
        liteLagCountMetricsEnable liteLagLatencyCollectEnable liteLagLatencyMetricsEnable
        liteLagLatencyTopK liteSubscriptionCheckInterval liteSubscriptionCheckTimeoutMills
        liteTtlCheckInterval loadBalancePollNameServerInterval
        logicalDiskSpaceCleanForciblyThreshold mappedFileSizeConsumeQueueExt
        mappedFileSizeTimerLog mapperFileSizeBatchConsumeQueue maxChecksumRange
        maxClientEventCount maxErrorRateOfBloomFilter maxHaTransferByteInSecond
        maxLiteSubscriptionCount maxMessageFilterNumForNotification maxOffsetMapSize
        maxPopPollingSize maxRocksDBIndexQueryDays memTableFlushIntervalMs
        metricGrpcExporterIntervalInMills metricGrpcExporterTimeOutInMills
        metricLoggingExporterIntervalInMills metricsExportBatchMaxDataPoints
        metricsGrpcExporterHeader metricsGrpcExporterTarget metricsInDelta metricsLabel
        metricsPromExporterHost metricsPromExporterPort minLiteTTl offsetCheckInSlave
        persistConsumerOffsetIncrementally popCkMaxBufferSize popCkOffsetMaxQueueSize
        popCkStayBufferTime popCkStayBufferTimeOut popConsumerFSServiceInit
        popConsumerKVServiceEnable popConsumerKVServiceInit popConsumerKVServiceLog
        popFromRetryProbability popFromRetryProbabilityForPriority
        popInflightMessageThreshold popLongPollingForceNotifyInterval
        popPollingMapExpireTimeSeconds popPollingMapSize popPollingSize
        popResponseReturnActualRetryTopic popReviveConcurrency popReviveMaxAttemptTimes
        popReviveMaxReturnSizePerRead popReviveSkipIfGroupAbsent preferredLeaderId
        priorityOrderAsc productEnvName readUnCommitted realTimePersistRocksDBConfig
        recheckReputOffsetFromCq replicasPerDiskPartition
        retrieveMessageFromPopRetryTopicV1 reviveAckWaitMs reviveInterval reviveMaxSlow
        reviveQueueNum reviveScanTime rocksdbCompressionType rocksdbCQDoubleWriteEnable
        rocksdbFlushWalFrequency rocksdbWalFileRollingThreshold sampleSteps
        scanAvailableNameSrv scheduleAsyncDeliverMaxPendingLimit
        scheduleAsyncDeliverMaxResendNum2Blocked sendHeartbeatTimeoutMillis
        shutdownWaitTimeSeconds skipPreOnline skipWhenCKRePutReachMaxTimes slaveTimeout
        socksProxyConfig splitMetadataSize splitRegistrationSize statRocksDBCQIntervalSec
        storePathBrokerIdentity storePathDLedgerCommitLog storePathEpochFile
        syncBrokerMemberGroupPeriod syncBrokerMetadataPeriod syncControllerMetadataPeriod
        syncFromLastFile syncMasterFlushOffsetWhenStartup timerCheckMetricsWhen
        timerColdDataCheckIntervalMs timerCongestNumEachSlot timerEnableCheckMetrics
        timerEnableDisruptor timerEnableRetryUntilSuccess timerFlushIntervalMs
        timerMaxDelaySec timerMetricSmallThreshold timerPrecisionMs
        timerProgressLogIntervalMs timerRecallToTimelineEnable
        timerRecallToTimeWheelEnable timerReputServiceCorePoolSize
        timerReputServiceMaxPoolSize timerReputServiceQueueCapacity
        timerRocksDBPrecisionMs timerRocksDBRollIntervalHours timerRocksDBRollMaxTps
        timerRocksDBRollRangeHours timerRocksDBStopScan timerRocksDBTimeExpiredMaxTps
        timerRollWindowSlot timerSkipUnknownError timerStopDequeue timerStopEnqueue
        timerWarmEnable timerWheelSnapshotFlush timerWheelSnapshotIntervalMs
        transactionCheckInterval transactionCheckMax transactionCheckRocksdbCoreThreads
        transactionCheckRocksdbMaxThreads transactionCheckRocksdbQueueCapacity
        transactionMetricFlushInterval transactionOpBatchInterval transactionOpMsgMaxSize
        transactionTimeOut transWriteOriginTransHalfEnable updateNameServerAddrPeriod
        useMessageFilterForNotification usePIDColdCtrStrategy useSeparateRetryQueue
        useSeparateStorePathForRocksdbCQ useSingleRocksDBForAllConfigs
        useStaticSubscription",
    ),
];

/// Longer than any key with its mistakes; comparing costs the product of two lengths.
const KEY_LEN_MAX: usize = 100;

/// The known key that `key` most likely means. Steps of spec `config.md` 7.3.
#[must_use]
pub fn nearest(key: &str) -> Option<&'static str> {
    if KEY_LEN_MAX < key.len() {
        return None;
    }
    let keys = || {
        let tables =
            [BrokerSettings::KEYS, StoreSettings::KEYS, NamesrvSettings::KEYS, NetSettings::KEYS];
        let declared = tables.into_iter().flatten().map(|key| key.name);
        let ignored = IGNORED.iter().flat_map(|(_, keys)| keys.split_whitespace());
        declared.chain(MISSING.iter().map(|(key, _)| *key)).chain(ignored)
    };
    let meant = plain(key);
    let limit = (key.len() / 6).max(2);
    // No fewer changes than the lengths differ.
    let is_near = |known: &&str| known.len().abs_diff(key.len()) <= limit;
    let nearest = || {
        let near = keys().filter(is_near).map(|known| (distance(known, key), known));
        near.min_by_key(|(distance, _)| *distance).filter(|(distance, _)| *distance <= limit)
    };
    keys()
        .find(|known| known.eq_ignore_ascii_case(key))
        .or_else(|| keys().find(|known| plain(known) == meant))
        .or_else(|| nearest().map(|(_, known)| known))
}

/// Parts that are usually misspelt or left out, and what they are compared as.
const ODD_PARTS: &[(&str, &str)] = &[
    ("maped", "map"),
    ("maoed", "map"),
    ("mapped", "map"),
    ("destory", "destroy"),
    ("dledger", "dleger"),
    ("enabled", ""),
    ("enable", ""),
];

/// A key as it is compared.
fn plain(key: &str) -> String {
    let key = key.to_ascii_lowercase();
    let mut plain = String::with_capacity(key.len());
    let mut rest = key.as_str();
    while let Some(first) = rest.chars().next() {
        if let Some((odd, text)) = ODD_PARTS.iter().find(|(odd, _)| rest.starts_with(odd)) {
            plain.push_str(text);
            rest = &rest[odd.len()..];
        } else {
            plain.push(first);
            rest = &rest[first.len_utf8()..];
        }
    }
    plain
}

/// Insertions, deletions, replacements and swaps of neighbours between two keys.
fn distance(a: &str, b: &str) -> usize {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    let mut rows = vec![vec![0; b.len() + 1]; a.len() + 1];
    for i in 0..=a.len() {
        for j in 0..=b.len() {
            rows[i][j] = match (i, j) {
                (0, n) | (n, 0) => n,
                _ => {
                    let replaced = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
                    let best = replaced.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1);
                    let swapped = i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1];
                    if swapped { best.min(rows[i - 2][j - 2] + 1) } else { best }
                }
            };
        }
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_key_finds_the_one_that_was_meant() {
        for (key, meant) in [
            ("namesrvaddr", "namesrvAddr"),
            ("brokerIp1", "brokerIP1"),
            ("destoryMaoedFileIntervalForcibly", "destroyMapedFileIntervalForcibly"),
            ("fileReserveTime", "fileReservedTime"),
            ("enablePropertyfilter", "enablePropertyFilter"),
            ("flushDiskTpye", "flushDiskType"),
        ] {
            assert_eq!(nearest(key), Some(meant), "{key}");
        }
        assert_eq!(nearest("somethingElseAltogether"), None);
    }

    #[test]
    fn no_key_stands_in_two_tables() {
        let declared = |key: &str| {
            [BrokerSettings::KEYS, StoreSettings::KEYS, NamesrvSettings::KEYS, NetSettings::KEYS]
                .into_iter()
                .flatten()
                .any(|declared| declared.name == key)
        };
        let ignored = IGNORED.iter().flat_map(|(_, keys)| keys.split_whitespace());
        let others =
            RENAMED.iter().map(|(key, ..)| *key).chain(REFUSED.iter().map(|(key, ..)| *key));
        let mut keys: Vec<_> =
            others.chain(MISSING.iter().map(|(key, _)| *key)).chain(ignored).collect();
        keys.sort_unstable();
        for pair in keys.windows(2) {
            assert_ne!(pair[0], pair[1]);
        }
        for key in keys {
            assert!(!declared(key), "{key}");
        }
    }
}
