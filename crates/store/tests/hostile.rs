//! What others put into a store: producers by their messages, devices by flipped bits, other
//! programs by their files.

#![allow(clippy::disallowed_methods, clippy::unwrap_used, reason = "tests damage files on purpose")]

mod common;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use apogee_store::{AppendError, Disk, RealDisk, Settings, Store};
use apogee_types::{Message, QueueId};
use common::{
    COUNT, Filled, Sent, check_goes_on, check_served, files, open, open_with, overwrite, send,
    settings, settle,
};

/// Sends to topic `odd` with properties that begin with `count` bytes that may become zeros; how
/// far from the record's end they do.
fn send_odd(store: &Store, count: usize) -> (Sent, u64) {
    let key = format!("odd{}", store.visible());
    let properties = [&[b'z'; 2000][..count], b"x\x01y\x02KEYS\x01", key.as_bytes(), b"\x02"];
    let properties = properties.concat();
    let before_end = properties.len() as u64;
    let queue = QueueId::from_wire(0).unwrap();
    let message = Message { properties: &properties, ..Message::new("odd", queue, b"body") };
    let appended = store.append(&message).unwrap();
    store.dispatch(&mut |_| {});
    let sent = Sent {
        topic: "odd".to_owned(),
        queue,
        offset: appended.queue_offset,
        at: appended.at,
        end: appended.end,
        stored_ms: appended.stored_ms,
        key,
        body: b"body".to_vec(),
    };
    (sent, before_end)
}

/// As Apache takes them, and as we did.
fn make_zeros(filled: &Filled, (sent, before_end): &(Sent, u64), count: usize) {
    filled.damage_log(sent.end.0 - before_end, &vec![0; count]);
}

#[test]
fn no_message_is_taken_that_a_later_start_could_take_for_torn() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let queue = QueueId::from_wire(0).unwrap();
    let take = |properties: &[u8]| {
        let message = Message { properties, ..Message::new("t", queue, b"body") };
        let batch = store.append_batch(&[Message::new("t", queue, b"first"), message.clone()]);
        let one = store.append(&message).map(|_| ());
        assert_eq!(batch.map(|_| ()), one);
        one
    };
    for zeros in [511, 512, 1100] {
        let refused = take(&[b"x\x01", &vec![0; zeros][..], b"\x02"].concat()).unwrap_err();
        assert_eq!(refused, AppendError::PropertiesZeroed);
        assert!(refused.is_illegal_message());
    }
    assert_eq!(take(b"x\x01y\0"), Err(AppendError::PropertiesZeroed));
    // What Apache takes is taken, as far as that is safe.
    for zeros in [1, 100, 510] {
        take(&[&vec![0; zeros][..], b"x\x01", &vec![0; zeros], b"\x02"].concat()).unwrap();
    }
}

#[test]
fn a_message_with_zeros_in_its_properties_costs_none_that_follow_wherever_it_lies() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let mut sent = vec![send(&store, 0)];
    // The records' lengths go through the places in a sector.
    let odd: Vec<_> = (0..700).map(|number| send_odd(&store, 100 + number % 7)).collect();
    sent.extend(odd.iter().map(|(sent, _)| sent.clone()));
    sent.extend((1..4).map(|number| send(&store, number)));
    drop(store);
    let filled = Filled { dir, sent };
    odd.iter().for_each(|odd| make_zeros(&filled, odd, 100));
    let store = filled.open();
    check_served(&store, &filled.sent);
    check_goes_on(store, filled.root(), filled.sent.clone());
}

#[test]
fn what_the_checkpoint_vouches_for_is_not_taken_for_torn_after_a_crash() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let mut sent = vec![send(&store, 0)];
    let odd = [send_odd(&store, 1100), send_odd(&store, 1100)];
    sent.extend(odd.iter().map(|(sent, _)| sent.clone()));
    // It names the last one.
    store.checkpoint_step(&mut |_| {}).unwrap();
    sent.extend((1..4).map(|number| send(&store, number)));
    drop(store);
    let filled = Filled { dir, sent };
    odd.iter().for_each(|odd| make_zeros(&filled, odd, 1100));
    let store = filled.open();
    check_served(&store, &filled.sent);
    check_goes_on(store, filled.root(), filled.sent.clone());
}

#[test]
fn a_last_message_with_zeros_in_its_properties_is_there_after_a_clean_stop() {
    for is_by_apache in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path());
        let first = send(&store, 0);
        let odd = send_odd(&store, 1100);
        store.close().unwrap();
        drop(store);
        let filled = Filled { dir, sent: vec![first, odd.0.clone()] };
        make_zeros(&filled, &odd, 1100);
        if is_by_apache {
            std::fs::remove_file(filled.path("queue-ends")).unwrap();
            std::fs::write(filled.path("checkpoint"), [0; 4096]).unwrap();
        }
        let store = filled.open();
        check_served(&store, &filled.sent);
        check_goes_on(store, filled.root(), filled.sent.clone());
    }
}

// Flipped bits in the head of a record, which no checksum tells of.

/// Overwrites a field of a record's head: all others are served, and the store goes on.
fn costs_no_other(head: impl Fn(&Sent) -> (u64, Vec<u8>)) {
    for (with_queues, is_killed) in [(true, true), (false, true), (false, false)] {
        let filled = if is_killed { Filled::killed() } else { Filled::clean() };
        let broken = COUNT - 20;
        let (place, bytes) = head(&filled.sent[broken]);
        filled.damage_log(filled.sent[broken].at.0 + place, &bytes);
        if !with_queues {
            std::fs::remove_dir_all(filled.path("consumequeue")).unwrap();
        }
        let store = filled.open();
        for (number, it) in filled.sent.iter().enumerate().filter(|it| it.0 != broken) {
            let unit = store.unit(&it.topic, it.queue, it.offset).unwrap();
            assert_eq!(unit.map(|unit| unit.at), Some(it.at), "{number}");
        }
        assert!(files(&filled.path("consumequeue")).len() < 50);
        let it = &filled.sent[broken];
        assert_eq!(store.query_by_key(&it.topic, &it.key, 9, 0, i64::MAX), [it.at]);
        let next = send(&store, broken);
        assert!(next.offset.0 < COUNT as u64);
        store.close().unwrap();
        drop(store);
        assert_eq!(filled.open().recovery().record_count, 1);
    }
}

#[test]
fn a_queue_offset_that_no_queue_can_have_is_not_filled_up_to() {
    for bit in [14, 40, 62] {
        costs_no_other(|it| (20, (it.offset.0 | 1 << bit).to_be_bytes().to_vec()));
    }
}

#[test]
fn a_queue_offset_that_another_message_has_costs_no_other_message() {
    costs_no_other(|it| (20, (it.offset.0 ^ 64).to_be_bytes().to_vec()));
}

#[test]
fn a_queue_id_that_is_as_large_as_can_be_takes_no_memory() {
    costs_no_other(|_| (12, i32::MAX.to_be_bytes().to_vec()));
    let filled = Filled::clean();
    std::fs::create_dir_all(filled.path("consumequeue/topic0/2147483647")).unwrap();
    check_served(&filled.open(), &filled.sent);
}

// Files of other programs.

fn make(root: &Path, name: &str, content: &str) {
    let path = root.join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, content).unwrap();
}

/// Opening a directory with these files is refused with these words, and changes nothing.
fn is_refused(made: &[(&str, &str)], words: &str) {
    let dir = tempfile::tempdir().unwrap();
    made.iter().for_each(|(name, content)| make(dir.path(), name, content));
    let before = files(dir.path());
    let error = open_with(settings(dir.path())).err().expect("it is refused").to_string();
    assert!(error.contains(words), "{error}");
    assert_eq!(files(dir.path()), before);
}

#[test]
fn queues_in_rocksdb_among_those_in_files_are_refused() {
    is_refused(&[("consumequeue/CURRENT", "M"), ("consumequeue/0.sst", "")], "RocksDB");
    let sent = Filled::clean();
    std::fs::create_dir_all(sent.path("consumequeue/CURRENT/0")).unwrap();
    check_served(&sent.open(), &sent.sent);
}

#[test]
fn a_directory_that_is_no_store_is_refused_before_anything_is_written() {
    let no_store = "nothing of a store";
    is_refused(&[("Cargo.toml", ""), ("config/x.json", ""), (".git/HEAD", "")], no_store);
    is_refused(&[("src/main.rs", "")], no_store);
    is_refused(&[("config/topics.json", ""), ("notes.txt", "")], no_store);
}

#[test]
fn a_directory_with_what_an_operator_put_there_is_taken() {
    let harmless = ["lost+found/x", "config/topics.json", "logs/a", ".keep", "broker.conf"];
    for made in [&[][..], &harmless, &["namesrv/kvConfig.json"], &["slave/commitlog/x"]] {
        let dir = tempfile::tempdir().unwrap();
        made.iter().for_each(|name| make(dir.path(), name, ""));
        open(dir.path()).close().unwrap();
        open(dir.path()).close().unwrap();
    }
    open(&tempfile::tempdir().unwrap().path().join("new/store")).close().unwrap();
}

#[test]
fn a_commit_log_of_others_is_refused_before_anything_is_written() {
    let no_segment = "is no segment";
    is_refused(&[("commitlog/a.txt", "theirs"), ("commitlog/zzz.txt", "")], no_segment);
    is_refused(&[("commitlog/zzz.txt", "")], no_segment);
    is_refused(&[("commitlog/00000000000000000000", "theirs")], "mappedFileSizeCommitLog");
}

// The lock.

/// Not a test by itself: the process that [`the_lock_is_one_that_apache_sees`] starts.
#[test]
fn another_process_takes_the_record_lock() {
    let Ok(path) = std::env::var("APOGEE_LOCK") else { return };
    let file = std::fs::OpenOptions::new().read(true).write(true).open(path).unwrap();
    let exclusive = rustix::fs::FlockOperation::NonBlockingLockExclusive;
    let is_taken = rustix::fs::fcntl_lock(&file, exclusive).is_err();
    assert_eq!(is_taken.to_string(), std::env::var("APOGEE_IS_TAKEN").unwrap());
}

#[test]
fn the_lock_is_one_that_apache_sees() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("lock");
    let other_finds = |is_taken: bool| {
        let mut child = std::process::Command::new(std::env::current_exe().unwrap());
        child.args(["--exact", "another_process_takes_the_record_lock"]);
        child.env("APOGEE_LOCK", &path).env("APOGEE_IS_TAKEN", is_taken.to_string());
        assert!(child.output().unwrap().status.success(), "is it taken: {is_taken}");
    };
    let store = open(dir.path());
    other_finds(true);
    drop(store);
    other_finds(false);
    // Not before: who closes the file gives up the locks of its process.
    assert_eq!(std::fs::read(&path).unwrap(), b"lock");
}

#[test]
fn of_two_first_starts_one_finds_the_store_in_use() {
    for _ in 0..20 {
        let dir = tempfile::tempdir().unwrap();
        let start = || RealDisk.lock(&dir.path().join("lock"));
        let locks = std::thread::scope(|scope| {
            [scope.spawn(start), scope.spawn(start)].map(|it| it.join().unwrap())
        });
        assert_eq!(locks.iter().filter(|lock| lock.is_ok()).count(), 1);
    }
}

// What was lost since a clean stop, or given up by Apache meanwhile.

fn remove(path: &Path) {
    std::fs::remove_file(path).unwrap();
}

/// After the damage all is served that was sent, and the store goes on.
fn loses_nothing(damage: impl FnOnce(&Filled)) {
    let filled = Filled::clean();
    damage(&filled);
    let store = filled.open();
    check_served(&store, &filled.sent);
    check_goes_on(store, filled.root(), filled.sent.clone());
}

#[test]
fn an_index_file_that_is_lost_is_built_again_whichever_it_is() {
    let count = files(&Filled::clean().path("index")).len();
    assert!(2 < count);
    for lost in 0..count {
        loses_nothing(|it| remove(&files(&it.path("index"))[lost]));
    }
}

#[test]
fn what_apache_left_of_the_index_after_an_unclean_stop_is_completed() {
    loses_nothing(|it| {
        remove(&it.path("queue-ends"));
        let of_index = files(&it.path("index"));
        let [.., lost, marked] = &of_index[..] else { panic!("{of_index:?}") };
        remove(lost);
        std::fs::rename(marked, it.path("index/99990101000000000")).unwrap();
    });
}

#[test]
fn the_first_file_of_a_queue_is_built_again() {
    loses_nothing(|it| {
        for queue in ["topic0/0", "topic1/1", "topic2/1"] {
            remove(&files(&it.path("consumequeue").join(queue))[0]);
        }
    });
}

#[test]
fn ends_of_queues_of_an_older_release_are_believed() {
    loses_nothing(|it| {
        let text = std::fs::read_to_string(it.path("queue-ends")).unwrap();
        let (first, lines) = text.split_once('\n').unwrap();
        let last_at = first.split(' ').nth(1).unwrap();
        let mut old = String::new();
        for line in lines.lines().filter(|line| !line.starts_with("index")) {
            let [id, _, end, topic] = line.split(' ').collect::<Vec<_>>()[..] else { panic!() };
            old += &format!("{id} {end} {topic}\n");
        }
        let crc = apogee_types::record::body_crc(old.as_bytes());
        std::fs::write(it.path("queue-ends"), format!("{last_at} {crc}\n{old}")).unwrap();
        std::fs::remove_dir_all(it.path("consumequeue/topic1")).unwrap();
    });
}

#[test]
fn a_topic_that_apache_has_deleted_does_not_come_back() {
    for deleted in ["topic1", "topic2"] {
        let filled = Filled::clean();
        std::fs::remove_dir_all(filled.path(&format!("consumequeue/{deleted}"))).unwrap();
        let left: BTreeSet<_> = ["topic0", "topic1", "topic2"].map(str::to_owned).into();
        let left = left.into_iter().filter(|topic| topic != deleted).collect();
        let settings = Settings { topics: Some(left), ..settings(filled.root()) };
        let store = open_with(settings.clone()).unwrap();
        let check = |store: &Store| {
            for queue in [0, 1].map(|id| QueueId::from_wire(id).unwrap()) {
                assert!(store.queue_bounds(deleted, queue).is_empty(), "{deleted}");
            }
        };
        check(&store);
        let left: Vec<_> = filled.sent.into_iter().filter(|it| it.topic != deleted).collect();
        check_served(&store, &left);
        store.close().unwrap();
        drop(store);
        check(&open_with(settings).unwrap());
    }
}

#[test]
fn topics_with_batch_queues_of_apache_are_left_alone() {
    for is_killed in [false, true] {
        let filled = if is_killed { Filled::killed() } else { Filled::clean() };
        std::fs::remove_dir_all(filled.path("consumequeue")).unwrap();
        make(filled.root(), "batchconsumequeue/topic1/0/00000000000000000000", "theirs");
        let store = filled.open();
        let left: Vec<_> = filled.sent.iter().filter(|it| it.topic != "topic1").cloned().collect();
        check_served(&store, &left);
        assert!(!filled.path("consumequeue/topic1").exists());
        store.close().unwrap();
        drop(store);
        check_served(&filled.open(), &left);
    }
}

#[test]
fn after_a_crash_nothing_is_left_behind_the_end_of_a_queue() {
    let filled = Filled::killed();
    let last = filled.last();
    let is_of_queue = |it: &&Sent| (&it.topic, it.queue) == (&last.topic, last.queue);
    let of_queue: Vec<_> = filled.sent.iter().filter(is_of_queue).collect();
    let lost = of_queue[of_queue.len() - 3];
    // A sector of the log, and one of the queue; what was written after them is there.
    filled.damage_log(lost.at.0, &[0; 91]);
    let dir = filled.path(&format!("consumequeue/{}/{}", lost.topic, lost.queue));
    let at = lost.offset.0 * 20;
    overwrite(&dir.join(format!("{:020}", at - at % 400)), at % 400, &[0; 20]);
    let store = filled.open();
    assert_eq!(store.queue_bounds(&lost.topic, lost.queue).end, lost.offset);
    // Once the place of the one that is lost is filled.
    (0..6).for_each(|number| drop(send(&store, number)));
    let end = store.queue_bounds(&lost.topic, lost.queue).end;
    assert_eq!(end, lost.offset.plus(1));
    let bytes: Vec<u8> = files(&dir).iter().flat_map(|path| std::fs::read(path).unwrap()).collect();
    assert!(bytes[20 * end.0 as usize..].iter().all(|byte| *byte == 0));
}

#[test]
fn names_of_index_files_are_local_times_and_their_order_is_that_of_the_log() {
    let dir = tempfile::tempdir().unwrap();
    let of_zone = |local_time| Settings { local_time, ..settings(dir.path()) };
    let store = open_with(of_zone(|utc| utc + 3_600_000)).unwrap();
    let mut sent: Vec<_> = (0..COUNT).map(|number| send(&store, number)).collect();
    store.close().unwrap();
    drop(store);
    let name = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().to_owned();
    let index = dir.path().join("index");
    let names: Vec<_> = files(&index).iter().map(name).collect();
    // The clock of the tests begins at 8:00 UTC.
    assert!(names.iter().all(|name| name.starts_with("2027011509")), "{names:?}");
    // As Apache names the next ones where it is eight hours earlier.
    for (old, hour) in names.iter().zip(0..).skip(1) {
        let new = old.replace("2027011509", &format!("20270115{:02}", 8 - hour));
        std::fs::rename(index.join(old), index.join(new)).unwrap();
    }
    std::fs::remove_file(dir.path().join("queue-ends")).unwrap();
    std::fs::write(dir.path().join("checkpoint"), [0; 4096]).unwrap();
    let before = files(&index);
    let store = open_with(of_zone(|utc| utc - 18_000_000)).unwrap();
    check_served(&store, &sent);
    assert_eq!(files(&index), before);
    sent.extend((COUNT..2 * COUNT).map(|number| send(&store, number)));
    settle(&store);
    // Who goes by the names goes on with the newest.
    let after = files(&index);
    assert!(before.len() < after.len());
    assert_eq!(after[..before.len()], before);
    check_served(&store, &sent);
    store.close().unwrap();
    drop(store);
    check_served(&open(dir.path()), &sent);
}
