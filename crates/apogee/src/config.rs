//! Files, environment and flags to the settings tables, in this order; the last one wins.
//!
//! The environment knows every setting as `APOGEE_<KEY>`, in any case and with or without
//! underscores. `NAMESRV_ADDR` stays what it is for Apache RocketMQ: a default, below the file.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use anyhow::Context;
use apogee_store::most_frequent;
use apogee_types::settings::{
    self, Assigned, BrokerRole, BrokerSettings, Key, NamesrvSettings, NetSettings, Settings,
    StoreSettings,
};

use crate::machine;
use paths::Expanded;

mod paths;

/// What one process is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    Standalone,
    Broker,
    Namesrv,
}

/// The settings of one process.
#[derive(Debug, Clone)]
pub struct Config {
    role: Role,
    pub broker: BrokerSettings,
    pub store: StoreSettings,
    pub net: NetSettings,
    pub namesrv: NamesrvSettings,
    /// What the operator should know about what was given, in its order.
    pub notices: Vec<Notice>,
    /// Values that cannot be, in their order; such a process does not start.
    errors: Vec<String>,
    /// Where the value of a key was given, of those that were.
    origins: BTreeMap<String, String>,
}

/// A remark on a key that does not do what it says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// Whether the operator should change something, else all is well.
    pub is_warning: bool,
    pub text: String,
}

/// Where a value was given.
#[derive(Debug, Clone, Copy)]
enum Origin<'a> {
    File { path: &'a Path, line: usize },
    Environment { variable: &'a str },
    Flag,
}

impl fmt::Display for Origin<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, line } => write!(f, "{}:{line}", path.display()),
            Self::Environment { variable } => write!(f, "environment {variable}"),
            Self::Flag => f.write_str("command line"),
        }
    }
}

/// Variables of the environment that are ours without being settings.
const OTHER_VARIABLES: &[&str] = &["APOGEE_LOG"];

impl Config {
    /// Reads `file`, then `environment`, then `flags`, which are keys with values.
    pub fn load(
        role: Role,
        file: Option<&Path>,
        environment: &[(String, String)],
        flags: &[(&str, String)],
    ) -> anyhow::Result<Self> {
        let mut config = Self::new(role);
        let variable = |name: &str| variable(environment, name);
        if let Some(addr) = variable("NAMESRV_ADDR").filter(|_| role != Role::Namesrv) {
            config.set("namesrvAddr", &addr, Origin::Environment { variable: "NAMESRV_ADDR" });
        }
        if let Some(path) = file {
            config.read_file(path)?;
        }
        config.read_environment(environment);
        for (key, value) in flags {
            config.set(key, value, Origin::Flag);
        }
        config.derive(&variable);
        config.refuse_errors()?;
        Ok(config)
    }

    fn new(role: Role) -> Self {
        Self {
            role,
            broker: BrokerSettings::default(),
            store: StoreSettings::default(),
            net: NetSettings::default(),
            namesrv: NamesrvSettings::default(),
            notices: Vec::new(),
            errors: Vec::new(),
            origins: BTreeMap::new(),
        }
    }

    /// All settings of this role with their values.
    pub fn rows(&mut self) -> Vec<(&'static Key, String)> {
        self.tables().into_iter().flat_map(|table| table.rows()).collect()
    }

    /// The tables of this role. A key belongs to the first that has it, so `listenPort` is the
    /// broker's when there is one.
    fn tables(&mut self) -> Vec<&mut dyn Settings> {
        let Self { broker, store, net, namesrv, .. } = self;
        match self.role {
            Role::Standalone => vec![broker, net, store, namesrv],
            Role::Broker => vec![broker, net, store],
            Role::Namesrv => vec![namesrv, net],
        }
    }

    fn read_file(&mut self, path: &Path) -> anyhow::Result<()> {
        #[allow(
            clippy::disallowed_methods,
            reason = "a configuration is read before there is a disk"
        )]
        let bytes = std::fs::read(path)
            .with_context(|| format!("cannot read the configuration file {}", path.display()))?;
        let entries = settings::file::parse(&bytes).with_context(|| path.display().to_string())?;
        for entry in entries {
            self.set(&entry.key, &entry.value, Origin::File { path, line: entry.line });
        }
        Ok(())
    }

    fn read_environment(&mut self, environment: &[(String, String)]) {
        let plain = |text: &str| text.replace('_', "").to_ascii_lowercase();
        for (variable, value) in environment {
            let Some(name) = variable.strip_prefix("APOGEE_") else { continue };
            let mut keys = self.tables().into_iter().flat_map(|table| table.keys());
            let key = keys.find(|key| plain(key.name) == plain(name));
            let origin = Origin::Environment { variable };
            match key {
                Some(key) => self.set(key.name, value, origin),
                None if OTHER_VARIABLES.contains(&variable.as_str()) => {}
                None => self.warn(format!("{origin}: there is no setting of this name")),
            }
        }
    }

    /// Sets a key, or says what became of it.
    fn set(&mut self, key: &str, text: &str, origin: Origin<'_>) {
        match settings::assign(&mut self.tables(), key, text) {
            Assigned::Quietly => {
                self.origins.insert(key.to_owned(), origin.to_string());
            }
            Assigned::Note(text) => self.note(format!("{origin}: {text}")),
            Assigned::Warning(text) => self.warn(format!("{origin}: {text}")),
            Assigned::Error(text) => self.errors.push(format!("{origin}: {text}")),
        }
    }

    fn note(&mut self, text: String) {
        self.notices.push(Notice { is_warning: false, text });
    }

    fn warn(&mut self, text: String) {
        self.notices.push(Notice { is_warning: true, text });
    }
}

/// What follows from the values together. Rules: spec `config.md` 1.6.
impl Config {
    fn derive(&mut self, variable: &dyn Fn(&str) -> Option<String>) {
        self.expand_paths(variable);
        if self.role == Role::Namesrv {
            return;
        }
        if self.broker.broker_name.is_empty() {
            self.broker.broker_name = machine::host_name().unwrap_or("DEFAULT_BROKER".into());
        }
        if self.store.ha_listen_port <= 0 {
            self.store.ha_listen_port = i32::from(self.broker.listen_port) + 1;
        }
        if self.role == Role::Broker && !self.broker.advertised_addresses.is_empty() {
            self.warn(
                "advertisedAddresses has no effect without a name server in the same process; \
                 give this broker brokerIP1"
                    .into(),
            );
        }
        self.derive_role();
        self.clamp();
    }

    fn expand_paths(&mut self, variable: &dyn Fn(&str) -> Option<String>) {
        let home = variable("HOME").unwrap_or(".".into());
        let Self { store, namesrv, .. } = self;
        // A standalone server keeps all that it has in one directory.
        let (root, base) = match self.role {
            Role::Standalone => ("data".into(), None),
            Role::Broker | Role::Namesrv => (format!("{home}/store"), Some(home)),
        };
        let or = |path: &mut String, default: String| {
            if path.is_empty() {
                *path = default;
            }
        };
        or(&mut store.store_path_root_dir, root);
        let base = base.unwrap_or(store.store_path_root_dir.clone());
        or(&mut namesrv.kv_config_path, format!("{base}/namesrv/kvConfig.json"));
        or(&mut namesrv.config_store_path, format!("{base}/namesrv/namesrv.properties"));
        let paths = [
            ("storePathRootDir", &mut store.store_path_root_dir),
            ("storePathCommitLog", &mut store.store_path_commit_log),
            ("kvConfigPath", &mut namesrv.kv_config_path),
            ("configStorePath", &mut namesrv.config_store_path),
        ];
        // Apache's start scripts set it too; with it, a file for them works without them.
        let variable = |name: &str| {
            let here = || (name == "ROCKETMQ_HOME").then(|| ".".to_owned());
            variable(name).or_else(here)
        };
        for (key, path) in paths {
            let remark = match paths::expand(path, &variable, &paths::holds_files) {
                Ok(Expanded::Plain) => continue,
                Ok(Expanded::Literal) => {
                    format!("{key} = {path}: a directory of exactly this name exists and is used")
                }
                Ok(Expanded::To(expanded)) => {
                    let remark = format!("{key} = {path} means {expanded}");
                    *path = expanded;
                    remark
                }
                Err(name) => {
                    self.errors.push(format!("{key} = {path}: the variable {name} is not set"));
                    continue;
                }
            };
            self.notices.push(Notice { is_warning: false, text: remark });
        }
        if self.store.store_path_commit_log.contains(',') {
            let refusal = "storePathCommitLog: several paths are not supported; \
                           move all files into one of them and name that one";
            self.errors.push(refusal.into());
        }
    }

    fn derive_role(&mut self) {
        let (role, id) = (self.store.broker_role, self.broker.broker_id);
        match role {
            BrokerRole::Slave if id <= 0 => {
                self.errors.push(format!("brokerId = {id}: Slave's brokerId must be > 0"));
            }
            BrokerRole::Slave => self.warn(
                "brokerRole = SLAVE: replication is not there yet; this slave gets no messages"
                    .into(),
            ),
            BrokerRole::AsyncMaster | BrokerRole::SyncMaster if id != 0 => {
                self.broker.broker_id = 0;
                self.warn(format!("brokerId = {id}: a master's brokerId is 0; that is used"));
            }
            BrokerRole::AsyncMaster | BrokerRole::SyncMaster => {}
        }
    }

    /// Brings values into the bounds that Apache RocketMQ gives them.
    fn clamp(&mut self) {
        let store = &mut self.store;
        let bounds: [(&str, u8, u8, &mut u8); 3] = [
            ("diskMaxUsedSpaceRatio", 10, 95, &mut store.disk_max_used_space_ratio),
            ("diskSpaceCleanForciblyRatio", 30, 85, &mut store.disk_space_clean_forcibly_ratio),
            ("diskSpaceWarningLevelRatio", 35, 90, &mut store.disk_space_warning_level_ratio),
        ];
        let mut remarks = Vec::new();
        for (key, low, high, value) in bounds {
            let given = std::mem::replace(value, (*value).clamp(low, high));
            if given != *value {
                remarks
                    .push(format!("{key} = {given}: {value} is used; {low} to {high} is possible"));
            }
        }
        remarks.into_iter().for_each(|remark| self.warn(remark));
        let period = &mut self.broker.register_name_server_period;
        *period = (*period).clamp(10_000, 60_000);
        let queue_segment_len = &mut self.store.mapped_file_size_consume_queue;
        *queue_segment_len = queue_segment_len.next_multiple_of(20);
    }

    /// Looks at the files of a store that exists: only with the sizes that they were made with can
    /// they be read. A size that nobody has set is theirs, one that was set must be.
    pub fn adopt_sizes(&mut self) -> anyhow::Result<()> {
        let commit_log = self.store.commit_log_dir();
        let queues = Path::new(&self.store.store_path_root_dir).join("consumequeue");
        let StoreSettings { mapped_file_size_commit_log, mapped_file_size_consume_queue, .. } =
            &mut self.store;
        // A cut file has any length, but a segment whole pages and a queue whole units.
        let sizes = [
            ("mappedFileSizeCommitLog", commit_log, 0, 4096, mapped_file_size_commit_log),
            ("mappedFileSizeConsumeQueue", queues, 2, 20, mapped_file_size_consume_queue),
        ];
        let mut remarks = Vec::new();
        for (key, dir, depth, multiple, value) in sizes {
            let lens = paths::segment_lens(&dir, depth);
            let Some(len) = most_frequent(lens.clone()).filter(|len| len != value) else {
                continue;
            };
            let dir = dir.display();
            let files = format!("the files in {dir} are {len} bytes long");
            if let Some(origin) = self.origins.get(key) {
                self.errors.push(format!(
                    "{origin}: {key} = {value}: {files}, and a store keeps the size that it was \
                     made with; set that size"
                ));
            } else if lens.len() == 1 && len % multiple != 0 {
                self.errors.push(format!(
                    "the only file in {dir} is {len} bytes long, as if it was cut: bring it back, \
                     or set {key} to the size that the store was made with"
                ));
            } else {
                remarks.push(format!("{key} = {len}: {files}"));
                *value = len;
            }
        }
        remarks.into_iter().for_each(|remark| self.note(remark));
        self.refuse_errors()
    }

    /// With these values nothing starts.
    fn refuse_errors(&self) -> anyhow::Result<()> {
        anyhow::ensure!(self.errors.is_empty(), "{}", self.errors.join("\n"));
        Ok(())
    }
}

fn variable(environment: &[(String, String)], name: &str) -> Option<String> {
    let found = environment.iter().find(|(variable, _)| variable == name);
    found.map(|(_, value)| value.clone()).filter(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    fn file(name: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/2m-2s-sync").join(name)
    }

    fn environment(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    /// Loads `text` as a broker's file.
    fn load(text: &str, variables: &[(&str, &str)]) -> anyhow::Result<Config> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("broker.conf");
        #[allow(clippy::disallowed_methods, reason = "the file is the input")]
        std::fs::write(&path, text).unwrap();
        Config::load(Role::Broker, Some(&path), &environment(variables), &[]).map_err(|error| {
            anyhow::anyhow!(format!("{error:#}").replace(path.to_str().unwrap(), "F"))
        })
    }

    fn notices(config: &Config) -> String {
        config.notices.iter().map(|notice| notice.text.as_str()).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn files_that_have_run_for_seven_years_are_accepted_as_they_are() {
        let variables = environment(&[("ROCKETMQ_HOME", "/opt/rocketmq"), ("HOME", "/root")]);
        for name in ["broker-a", "broker-a-s", "broker-b", "broker-b-s"] {
            let path = file(&format!("{name}.properties"));
            let config = Config::load(Role::Broker, Some(&path), &variables, &[]).unwrap();
            let slave = name.ends_with("-s");
            assert_eq!(config.broker.broker_name, name.trim_end_matches("-s"));
            assert_eq!(config.broker.listen_port, if slave { 10921 } else { 10911 });
            assert_eq!(config.broker.default_topic_queue_nums, 4);
            assert_eq!(config.broker.max_message_size, 65_536);
            assert_eq!(config.store.file_reserved_time, 120);
            let root = if slave { "data/store/slave" } else { "data/store" };
            assert_eq!(config.store.store_path_root_dir, format!("/opt/rocketmq/{root}"));
            let expected = "destoryMaoedFileIntervalForcibly is not a key; \
                            destroyMapedFileIntervalForcibly is the one that counts";
            assert!(notices(&config).contains(expected), "{}", notices(&config));
            assert!(!notices(&config).contains("unknown key"), "{}", notices(&config));
        }
    }

    #[test]
    fn an_unknown_key_is_a_warning_that_names_the_nearest() {
        let config = load("\nflushDiskTyp=SYNC_FLUSH", &[]).unwrap();
        assert!(
            notices(&config).ends_with(":2: unknown key flushDiskTyp; did you mean flushDiskType?")
        );
        assert!(config.notices.iter().all(|notice| notice.is_warning));
    }

    #[test]
    fn bad_values_are_errors_with_file_line_and_what_is_allowed() {
        let error = load("a=1\nflushDiskType=SYNC\nlistenPort=99999\n", &[]).unwrap_err();
        let expected = "F:2: flushDiskType = SYNC: must be ASYNC_FLUSH or SYNC_FLUSH\n\
                        F:3: listenPort = 99999: must be a port, 1 to 65535";
        assert_eq!(error.to_string(), expected);
        let error = load("storeType=defaultRocksDB", &[]).unwrap_err();
        assert!(error.to_string().contains("RocksDB"), "{error}");
        let error = load("storePathCommitLog=/a,/b", &[]).unwrap_err();
        assert!(error.to_string().contains("several paths"), "{error}");
        let error = load("a=\\u00", &[]).unwrap_err();
        assert_eq!(error.to_string(), "F: line 1: `\\u` must be followed by four hex digits");
    }

    #[test]
    fn flags_win_over_the_environment_and_that_over_the_file() {
        let path = file("broker-b.properties");
        let variables = environment(&[
            ("APOGEE_LISTEN_PORT", "1"),
            ("APOGEE_brokerName", "from-environment"),
            ("NAMESRV_ADDR", "only-a-default:9876"),
        ]);
        let flags = [("listenPort", "2".to_owned())];
        let config = Config::load(Role::Broker, Some(&path), &variables, &flags).unwrap();
        assert_eq!(config.broker.listen_port, 2);
        assert_eq!(config.broker.broker_name, "from-environment");
        assert_eq!(config.broker.namesrv_addr.as_str(), "192.168.9.230:9876;192.168.9.231:9876");
        let config = Config::load(Role::Broker, None, &variables, &[]).unwrap();
        assert_eq!(config.broker.namesrv_addr.as_str(), "only-a-default:9876");
    }

    #[test]
    fn a_store_keeps_the_sizes_of_its_files() {
        let dir = tempfile::tempdir().unwrap();
        #[allow(clippy::disallowed_methods, reason = "a store made by another server")]
        let write = |path: &str, len| {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, vec![0; len]).unwrap();
        };
        write("commitlog/.DS_Store", 6148);
        write("commitlog/00000000000000000000", 4096);
        // One that was cut, and comes first.
        write("consumequeue/a/0/00000000000000000000", 1980);
        write("consumequeue/b/0/00000000000000000000", 2000);
        write("consumequeue/b/1/00000000000000000000", 2000);
        let text = format!("storePathRootDir={}", dir.path().display());
        let sizes = |more: &str| {
            let mut config = load(&format!("{text}\n{more}"), &[]).unwrap();
            config.adopt_sizes().map_err(|error| error.to_string())?;
            let StoreSettings { mapped_file_size_commit_log, .. } = config.store;
            Ok((mapped_file_size_commit_log, config.store.mapped_file_size_consume_queue))
        };
        assert_eq!(sizes(""), Ok((4096, 2000)));
        assert_eq!(sizes("mappedFileSizeCommitLog=4096"), Ok((4096, 2000)));
        let error: String = sizes("mappedFileSizeConsumeQueue=4000").unwrap_err();
        let expected = ":2: mappedFileSizeConsumeQueue = 4000: the files in ";
        assert!(error.contains(expected) && error.contains("are 2000 bytes long"), "{error}");
        write("commitlog/00000000000000000000", 4000);
        assert!(sizes("").unwrap_err().contains("4000 bytes long, as if it was cut"));
        write("commitlog/00000000000000004000", 4000);
        assert_eq!(sizes(""), Ok((4000, 2000)));
    }

    #[test]
    fn a_value_out_of_its_range_does_not_start() {
        for (text, allowed) in [
            ("mappedFileSizeCommitLog=0", "a whole number, 4096 to 2147483647"),
            ("mappedFileSizeConsumeQueue=0", "a whole number, 20 to 2147483640"),
            ("maxHashSlotNum=0", "a whole number, 1 to 100000000"),
            ("maxIndexNum=1", "a whole number, 2 to 100000000"),
            ("flushConsumerOffsetInterval=0", "a whole number, 1 to 2147483647"),
            ("flushIntervalCommitLog=0", "a whole number, 1 to 2147483647"),
            ("defaultTopicQueueNums=-3", "a whole number, 1 to 65536"),
            ("brokerPermission=99", "a whole number, 0 to 7"),
            ("namesrvAddr=nohost", "`host:port`, several separated by `;`"),
            ("namesrvAddr=127.0.0.1:99999", "`host:port`, several separated by `;`"),
            ("messageDelayLevel=1x", "delays such as `1s 5s 1m 2h 1d`, separated by blanks"),
            ("bindAddress=here", "an IP address"),
        ] {
            let error = load(&format!("\n{text}"), &[]).unwrap_err();
            let (key, value) = text.split_once('=').unwrap();
            assert_eq!(error.to_string(), format!("F:2: {key} = {value}: must be {allowed}"));
        }
    }

    #[test]
    fn a_master_has_the_id_0_and_a_slave_another() {
        assert_eq!(load("brokerRole=SYNC_MASTER\nbrokerId=1", &[]).unwrap().broker.broker_id, 0);
        assert!(load("brokerRole=SLAVE", &[]).is_err());
    }
}
