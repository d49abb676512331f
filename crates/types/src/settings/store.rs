//! The settings of a store. Meaning and defaults: spec `config.md` 2.2.

use super::settings;
use super::value::{BrokerRole, FlushMode, Hours, INT_MAX};

settings! {
    /// How messages are kept.
    StoreSettings {
        /// Directory of everything that is kept. Unset: `store` in the home directory.
        "storePathRootDir" store_path_root_dir: String = String::new(), AtRestart important;
        /// Directory of the commit log. Unset: `commitlog` in the root directory.
        "storePathCommitLog" store_path_commit_log: String = String::new(), AtRestart important;
        /// Length of one commit-log file in bytes. Fixed for the life of a store.
        "mappedFileSizeCommitLog" mapped_file_size_commit_log: u64 [4096..=INT_MAX] =
            1 << 30, AtRestart;
        /// Length of one consume-queue file in bytes, 20 a message. Fixed for the life of a store.
        "mappedFileSizeConsumeQueue" mapped_file_size_consume_queue: u64 [20..=2_147_483_640] =
            6_000_000, AtRestart;
        /// Role of this broker within the brokers of its name.
        "brokerRole" broker_role: BrokerRole = BrokerRole::AsyncMaster, AtRestart important;

        /// When a send is acknowledged: after the write, or after the device has it.
        "flushDiskType" flush_disk_type: FlushMode = FlushMode::Async, AtRestart important;
        /// How long an acknowledgement waits for the device, in ms.
        "syncFlushTimeout" sync_flush_timeout: u64 [1..=INT_MAX] = 5000, Live;
        /// How often the commit log is flushed with ASYNC_FLUSH, in ms; the last 64 KiB may wait
        /// for one more.
        "flushIntervalCommitLog" flush_interval_commit_log: u64 [1..=INT_MAX] =
            500, Live important;
        /// How often consume queues are flushed, in ms.
        "flushIntervalConsumeQueue" flush_interval_consume_queue: u64 [1..=INT_MAX] =
            1000, Live;

        /// Whether messages are found by key and id.
        "messageIndexEnable" message_index_enable: bool = true, Live important;
        /// Slots of an index file. Fixed for the life of a store.
        "maxHashSlotNum" max_hash_slot_num: u32 [1..=100_000_000] = 5_000_000, AtRestart;
        /// Entries of an index file. Fixed for the life of a store.
        "maxIndexNum" max_index_num: u32 [2..=100_000_000] = 20_000_000, AtRestart;

        /// Hours after which a file may be deleted.
        "fileReservedTime" file_reserved_time: u32 = 72, Live important;
        /// Hours of the day at which files are deleted.
        "deleteWhen" delete_when: Hours = Hours(vec![4]), Live important;
        /// How often retention looks, in ms.
        "cleanResourceInterval" clean_resource_interval: u64 [1..=INT_MAX] = 10_000, AtRestart;
        /// Files deleted in one run, at most.
        "deleteFileBatchMax" delete_file_batch_max: u32 [1..=INT_MAX] = 10, Live important;
        /// Percent of the disk above which old files are deleted at any hour; 10 to 95.
        "diskMaxUsedSpaceRatio" disk_max_used_space_ratio: u8 = 75, Live;
        /// Percent of the disk above which the oldest files go whatever their age; 30 to 85.
        "diskSpaceCleanForciblyRatio" disk_space_clean_forcibly_ratio: u8 = 85, Live;
        /// Percent of the disk above which sends are refused; 35 to 90.
        "diskSpaceWarningLevelRatio" disk_space_warning_level_ratio: u8 = 90, Live;
        /// Whether files younger than fileReservedTime may be deleted on a full disk.
        "cleanFileForciblyEnable" clean_file_forcibly_enable: bool = true, Live important;


        /// Port for slaves. 0: one more than listenPort.
        "haListenPort" ha_listen_port: i32 [0..=65_535] = 0, AtRestart;
    }
}
