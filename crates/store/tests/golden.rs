//! Stores that Apache RocketMQ wrote: all is found, and nothing of it is changed.

#![allow(clippy::disallowed_methods, clippy::unwrap_used, reason = "fixtures are files")]

mod common;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use apogee_store::{Boundary, Settings, Store};
use apogee_types::properties::{self, pairs};
use apogee_types::record::{Record, body_crc};
use apogee_types::{LogOffset, QueueId, QueueOffset};
use serde_json::Value;

struct Golden {
    dir: tempfile::TempDir,
    name: &'static str,
    records: Vec<Value>,
}

impl Golden {
    fn unpack(name: &'static str) -> Self {
        let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
        let dir = tempfile::tempdir().unwrap();
        // The timer's files are large and not the store's.
        let mut tar = Command::new("tar");
        tar.args(["--exclude=timerlog", "--exclude=timerwheel", "-xzf"]);
        tar.arg(fixtures.join(format!("{name}.tar.gz"))).arg("-C").arg(dir.path());
        assert!(tar.status().unwrap().success());
        let records = std::fs::read(fixtures.join(format!("{name}.records.json"))).unwrap();
        Self { dir, name, records: serde_json::from_slice(&records).unwrap() }
    }

    fn root(&self) -> PathBuf {
        self.dir.path().join(self.name)
    }

    fn open(&self) -> Store {
        let delays = [1, 5, 10, 30, 60, 120, 180, 240, 300, 360, 420, 480, 540, 600, 1200, 1800];
        let mut delays_ms: Vec<_> = delays.iter().map(|seconds| seconds * 1000).collect();
        delays_ms.extend([3_600_000, 7_200_000]);
        common::open_with(Settings {
            segment_len: 1 << 20,
            queue_file_len: 6000,
            index_slot_count: 1000,
            index_entry_count: 4000,
            delays_ms,
            ..Settings::at(self.root())
        })
        .unwrap()
    }

    /// Where the log ends, from the list.
    fn end(&self) -> usize {
        let last = self.records.last().unwrap();
        (number(last, "offset") + number(last, "size")) as usize
    }

    /// The log up to its end, and the queue files.
    fn bytes(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let mut found = BTreeMap::new();
        for dir in ["commitlog", "consumequeue"] {
            for path in common::files(&self.root().join(dir)) {
                let bytes = std::fs::read(&path).unwrap();
                found.insert(path, bytes);
            }
        }
        let log = found.get_mut(&self.root().join("commitlog/00000000000000000000")).unwrap();
        log.truncate(self.end());
        // A file that was made ahead is no part of what was kept.
        found.retain(|path, _| !path.ends_with("commitlog/00000000000001048576"));
        found
    }

    fn check(&self, store: &Store) {
        let mut ends = BTreeMap::new();
        for it in &self.records {
            let (topic, queue) =
                (text(it, "topic"), QueueId::from_wire(number(it, "queue_id") as i32));
            let queue = queue.unwrap();
            let offset = QueueOffset(number(it, "queue_offset") as u64);
            let unit = store.unit(topic, queue, offset).unwrap();
            let unit = unit.unwrap_or_else(|| panic!("lacks {it}"));
            let bytes = store.records().slice(&unit).unwrap();
            check_record(&Record::parse(&bytes).unwrap(), it);
            assert_eq!(store.record_at(unit.at).unwrap().unwrap(), bytes);
            assert_eq!(store.stored_ms(topic, queue, offset), Some(number(it, "stored")));
            self.check_keys(store, it);
            ends.entry((topic, queue))
                .or_insert_with(Vec::new)
                .push((number(it, "stored"), offset));
        }
        for ((topic, queue), messages) in ends {
            let bounds = QueueOffset(0)..QueueOffset(messages.len() as u64);
            assert_eq!(store.queue_bounds(topic, queue), bounds, "{topic} {queue}");
            for (time, _) in &messages {
                let first = messages.iter().find(|it| time <= &it.0).unwrap().1;
                let last = messages.iter().rfind(|it| &it.0 <= time).unwrap().1;
                let by_time =
                    |boundary| store.offset_by_time(topic, queue, *time, boundary).unwrap();
                assert_eq!(by_time(Boundary::Lower), first);
                assert_eq!(by_time(Boundary::Upper), last);
            }
        }
    }

    fn check_keys(&self, store: &Store, it: &Value) {
        let of = &it["properties"];
        let words = of["KEYS"].as_str().into_iter().flat_map(|keys| keys.split(' '));
        for key in words.chain(of["UNIQ_KEY"].as_str()).filter(|key| !key.is_empty()) {
            let found = store.query_by_key(text(it, "topic"), key, 100, 0, i64::MAX);
            let at = LogOffset(number(it, "offset") as u64);
            assert_eq!(found.iter().filter(|found| **found == at).count(), 1, "{key} of {it}");
        }
    }
}

fn text<'a>(it: &'a Value, name: &str) -> &'a str {
    it[name].as_str().unwrap()
}

fn number(it: &Value, name: &str) -> i64 {
    it[name].as_i64().unwrap()
}

fn check_record(record: &Record<'_>, it: &Value) {
    let hex: String = record.body.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(hex, text(it, "body_hex"));
    assert_eq!(i64::from(body_crc(record.body)), number(it, "body_crc"));
    assert_eq!(record.at.0 as i64, number(it, "offset"));
    assert_eq!(record.len as i64, number(it, "size"));
    assert_eq!(i64::from(record.sys_flag.0), number(it, "sys_flag"));
    assert_eq!(i64::from(record.reconsume_times), number(it, "reconsume_times"));
    assert_eq!(record.prepared_at.0 as i64, number(it, "prepared_offset"));
    assert_eq!(record.born_ms, number(it, "born"));
    let found: BTreeMap<_, _> = pairs(record.properties).collect();
    let listed = it["properties"].as_object().unwrap();
    let listed: BTreeMap<_, _> =
        listed.iter().map(|(name, value)| (&**name, value.as_str().unwrap())).collect();
    assert_eq!(found, listed);
    for name in ["TAGS", "KEYS"] {
        assert_eq!(properties::find(record.properties, name), it["properties"][name].as_str());
    }
}

/// Opened and closed twice, it serves all that Apache stored, and holds the same bytes.
fn opens_and_stays_the_same(name: &'static str) {
    let golden = Golden::unpack(name);
    let before = golden.bytes();
    for _ in 0..2 {
        let store = golden.open();
        golden.check(&store);
        store.close().unwrap();
        drop(store);
        let after = golden.bytes();
        assert_eq!(after.keys().collect::<Vec<_>>(), before.keys().collect::<Vec<_>>());
        for (path, bytes) in &before {
            assert!(after[path] == *bytes, "{path:?} has changed");
        }
        assert!(!golden.root().join("abort").exists());
    }
}

#[test]
fn a_store_that_5_5_0_stopped_is_served_whole_and_left_as_it_is() {
    opens_and_stays_the_same("apache-5.5.0");
}

#[test]
fn a_store_that_4_9_7_left_unclean_is_served_whole_and_left_as_it_is() {
    opens_and_stays_the_same("apache-4.9.7-unclean");
}

#[test]
fn a_kill_right_after_a_takeover_changes_nothing() {
    for name in ["apache-5.5.0", "apache-4.9.7-unclean"] {
        let golden = Golden::unpack(name);
        let before = golden.bytes();
        drop(golden.open());
        let store = golden.open();
        golden.check(&store);
        drop(store);
        assert_eq!(golden.bytes(), before);
    }
}

#[test]
fn an_unclean_store_without_queues_and_index_is_built_again_as_it_was() {
    let golden = Golden::unpack("apache-4.9.7-unclean");
    let before = golden.bytes();
    std::fs::remove_dir_all(golden.root().join("consumequeue")).unwrap();
    std::fs::remove_dir_all(golden.root().join("index")).unwrap();
    let store = golden.open();
    golden.check(&store);
    store.close().unwrap();
    assert_eq!(golden.bytes(), before);
}
