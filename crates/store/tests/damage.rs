//! What is served after files were damaged, lost or made by somebody else.

#![allow(clippy::disallowed_methods, clippy::unwrap_used, reason = "tests damage files on purpose")]

mod common;

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use apogee_store::{Disk, DiskFile, Documents, Error, FlushMode, RealDisk, Settings, Store, disk};
use apogee_types::{Clock, LogOffset, Millis, QueueId};
use common::{
    COUNT, Filled, Sent, check_goes_on, check_gone, check_served, files, open, open_on, open_with,
    overwrite, send, settings, settle,
};

/// After the damage all is served that was sent, and the store goes on.
fn loses_nothing(filled: Filled, damage: impl FnOnce(&Filled)) {
    damage(&filled);
    let store = filled.open();
    check_served(&store, &filled.sent);
    check_goes_on(store, filled.root(), filled.sent.clone());
}

/// After the damage all but the last message is served, and the store goes on.
fn loses_the_last(filled: Filled, damage: impl FnOnce(&Filled)) {
    damage(&filled);
    let store = filled.open();
    let (last, kept) = filled.sent.split_last().unwrap();
    check_gone(&store, std::slice::from_ref(last));
    check_served(&store, kept);
    check_goes_on(store, filled.root(), kept.to_vec());
}

/// The damage is refused, with these words, and the files stay as they are.
fn is_refused(filled: &Filled, words: &str, damage: impl FnOnce(&Filled)) {
    damage(filled);
    let error = open_with(settings(filled.root())).err().expect("it is refused").to_string();
    assert!(error.contains(words), "{error}");
}

/// A log that stops in the middle of the last record: the bytes from `from` on are replaced.
fn tear(filled: &Filled, from: u64, byte: u8) {
    let last = filled.last();
    filled.damage_log(from, &vec![byte; (last.end.0 - from) as usize]);
}

fn middle(sent: &Sent) -> u64 {
    (sent.at.0 + sent.end.0) / 2
}

// The tail of the log, after a crash.

#[test]
fn a_crash_without_damage_loses_nothing() {
    loses_nothing(Filled::killed(), |_| {});
    loses_nothing(Filled::killed_at_once(), |_| {});
}

#[test]
fn a_last_record_whose_second_half_is_zeros_is_cut_off() {
    loses_the_last(Filled::killed(), |it| tear(it, middle(it.last()), 0));
}

#[test]
fn a_last_record_whose_second_half_is_garbage_is_cut_off() {
    loses_the_last(Filled::killed(), |it| tear(it, middle(it.last()), 0x5A));
}

#[test]
fn a_last_record_that_ends_at_any_sector_is_cut_off() {
    let last = Filled::killed().last().clone();
    let sectors: Vec<_> = (last.at.0..last.end.0).filter(|at| at % 512 == 0).collect();
    assert!(!sectors.is_empty());
    for sector in sectors {
        loses_the_last(Filled::killed(), |it| tear(it, sector, 0));
    }
}

#[test]
fn a_last_record_that_is_cut_anywhere_in_its_head_is_cut_off() {
    for len in [0, 1, 4, 8, 20, 40, 80] {
        loses_the_last(Filled::killed(), |it| tear(it, it.last().at.0 + len, 0));
    }
}

#[test]
fn a_last_record_with_a_hole_is_cut_off() {
    loses_the_last(Filled::killed(), |it| it.damage_log(middle(it.last()), &[0; 64]));
}

#[test]
fn after_a_crash_nothing_that_follows_a_lost_page_is_served() {
    let filled = Filled::killed();
    let page = (filled.last().at.0 - 2048) / 4096 * 4096;
    filled.damage_log(page, &[0; 4096]);
    let (kept, lost): (Vec<_>, Vec<_>) =
        filled.sent.iter().cloned().partition(|it| it.end.0 <= page);
    let store = filled.open();
    check_gone(&store, &lost);
    check_served(&store, &kept);
    check_goes_on(store, filled.root(), kept);
}

#[test]
fn a_crash_within_what_the_checkpoint_vouches_for_is_damage_and_not_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let sent: Vec<_> = (0..COUNT).map(|number| send(&store, number)).collect();
    store.checkpoint_step(&mut |_| {}).unwrap();
    drop(store);
    let filled = Filled { dir, sent };
    let broken = COUNT - 20;
    filled.damage_log(filled.sent[broken].at.0, &[0; 91]);
    let store = filled.open();
    let mut kept = filled.sent.clone();
    kept.remove(broken);
    for it in &kept {
        assert!(store.record_at(it.at).unwrap().is_some());
        assert_eq!(store.query_by_key(&it.topic, &it.key, 9, 0, i64::MAX), [it.at]);
        let unit = store.unit(&it.topic, it.queue, it.offset).unwrap();
        assert_eq!(unit.unwrap().at, it.at);
    }
}

/// The checkpoint as releases before 5.5 leave it: times, and no place in the log.
fn note_times(filled: &Filled, ms: Millis, index_ms: Millis) {
    let mut bytes = [0; 4096];
    for (field, ms) in bytes.chunks_exact_mut(8).zip([ms, ms, index_ms]) {
        field.copy_from_slice(&ms.to_be_bytes());
    }
    std::fs::write(filled.path("checkpoint"), bytes).unwrap();
}

#[test]
fn a_crash_within_what_times_in_the_checkpoint_vouch_for_is_damage_and_not_the_end() {
    for index_ms in [0, i64::MAX] {
        let filled = Filled::killed();
        note_times(&filled, filled.last().stored_ms + 3000, index_ms);
        let page = 4096 * 3..4096 * 4;
        filled.damage_log(page.start, &[0; 4096]);
        let store = filled.open();
        let is_kept = |it: &&Sent| it.end.0 <= page.start || page.end <= it.at.0;
        let kept: Vec<_> = filled.sent.iter().filter(is_kept).collect();
        assert!(kept.len() < COUNT && COUNT - 20 < kept.len());
        for it in kept {
            assert!(store.record_at(it.at).unwrap().is_some());
            assert_eq!(store.query_by_key(&it.topic, &it.key, 9, 0, i64::MAX), [it.at]);
            assert_eq!(store.unit(&it.topic, it.queue, it.offset).unwrap().unwrap().at, it.at);
        }
        assert_eq!(store.log_min(), LogOffset(0));
        assert_eq!(send(&store, COUNT).at, filled.last().end);
    }
}

#[test]
fn a_segment_is_trusted_that_began_three_seconds_before_the_times_in_the_checkpoint() {
    for (margin_ms, segment) in [(3000, 2), (2999, 1)] {
        let filled = Filled::killed();
        let first = filled.sent.iter().find(|it| it.at == LogOffset(2 << 16)).unwrap();
        note_times(&filled, first.stored_ms + margin_ms, i64::MAX);
        let store = filled.open();
        assert_eq!(store.recovery().from, LogOffset(segment << 16));
        check_served(&store, &filled.sent);
        check_goes_on(store, filled.root(), filled.sent.clone());
    }
}

// The middle of the log, after a stop in order.

#[test]
fn a_bit_that_flipped_in_a_body_costs_no_other_message() {
    let filled = Filled::clean();
    let broken = COUNT - 20;
    filled.damage_log(middle(&filled.sent[broken]), &[0xFF]);
    let store = filled.open();
    let mut sent = filled.sent.clone();
    // Its bytes are served as they are: the client compares the checksum.
    let damaged = store.record_at(sent[broken].at).unwrap().unwrap();
    let damaged = apogee_types::record::Record::parse(&damaged).unwrap();
    assert!(damaged.check_body().is_err());
    sent[broken].body = damaged.body.to_vec();
    check_served(&store, &sent);
    check_goes_on(store, filled.root(), sent);
}

#[test]
fn a_record_that_is_destroyed_costs_no_other_message() {
    for with_queues in [true, false] {
        let filled = Filled::clean();
        // The last one of its queue would free its place there.
        let broken = COUNT - 20;
        filled.damage_log(filled.sent[broken].at.0, &[0x5A; 91]);
        if !with_queues {
            std::fs::remove_dir_all(filled.path("consumequeue")).unwrap();
        }
        let store = filled.open();
        for (number, it) in filled.sent.iter().enumerate().filter(|(number, _)| *number != broken) {
            assert!(store.record_at(it.at).unwrap().is_some(), "{number}");
            let unit = store.unit(&it.topic, it.queue, it.offset).unwrap();
            assert_eq!(unit.map(|unit| unit.at), Some(it.at), "{number}");
        }
        let it = &filled.sent[broken];
        assert_eq!(store.record_at(it.at).unwrap(), None);
        // Who reads the queue gets past it.
        let last =
            filled.sent.iter().rfind(|other| (&other.topic, other.queue) == (&it.topic, it.queue));
        let units = common::read_all(&store, &it.topic, it.queue);
        assert_eq!(units.last().unwrap().at, last.unwrap().at);
        store.close().unwrap();
    }
}

#[test]
fn a_last_record_that_is_destroyed_is_cut_off_after_a_clean_stop_as_well() {
    loses_the_last(Filled::clean(), |it| tear(it, it.last().at.0, 0));
}

// Queues.

#[test]
fn a_lost_consumequeue_directory_is_built_again() {
    for filled in Filled::each() {
        loses_nothing(filled, |it| std::fs::remove_dir_all(it.path("consumequeue")).unwrap());
    }
}

#[test]
fn lost_queue_files_are_built_again() {
    for filled in Filled::each() {
        loses_nothing(filled, |it| {
            files(&it.path("consumequeue"))
                .iter()
                .for_each(|path| std::fs::remove_file(path).unwrap());
        });
    }
}

#[test]
fn one_lost_last_file_of_a_queue_is_built_again() {
    for filled in Filled::each() {
        loses_nothing(filled, |it| {
            let of_queue = files(&it.path("consumequeue/topic1/1"));
            std::fs::remove_file(of_queue.last().unwrap()).unwrap();
        });
    }
}

#[test]
fn all_lost_files_of_one_queue_are_built_again() {
    for filled in Filled::each() {
        loses_nothing(filled, |it| {
            let of_queue = files(&it.path("consumequeue/topic1/1"));
            of_queue.iter().for_each(|path| std::fs::remove_file(path).unwrap());
        });
    }
}

#[test]
fn empty_last_queue_files_are_built_again() {
    for filled in Filled::each() {
        loses_nothing(filled, |it| {
            for queue in ["topic0/0", "topic2/1"] {
                let of_queue = files(&it.path("consumequeue").join(queue));
                std::fs::write(of_queue.last().unwrap(), "").unwrap();
            }
        });
    }
}

#[test]
fn zeroed_queue_files_are_built_again() {
    for filled in Filled::each() {
        loses_nothing(filled, |it| {
            for queue in ["topic0/0", "topic2/1"] {
                for path in files(&it.path("consumequeue").join(queue)) {
                    std::fs::write(path, [0; 400]).unwrap();
                }
            }
        });
    }
}

/// A store that was stopped in order long after the last message of topic0.
fn with_an_idle_topic() -> Filled {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let numbers = (0..999).filter(|number| *number < COUNT / 2 || number % 3 != 0);
    let sent: Vec<_> = numbers.map(|number| send(&store, number)).collect();
    let idle = sent.iter().rfind(|it| it.topic == "topic0").unwrap();
    assert!(idle.end.plus(128 << 10) < sent.last().unwrap().at);
    store.close().unwrap();
    Filled { dir, sent }
}

#[test]
fn what_an_idle_queue_has_lost_since_a_clean_stop_is_built_again() {
    let directory: fn(&Filled) =
        |it| std::fs::remove_dir_all(it.path("consumequeue/topic0")).unwrap();
    let last_file: fn(&Filled) = |it| {
        std::fs::remove_file(files(&it.path("consumequeue/topic0/1")).last().unwrap()).unwrap();
    };
    let empty: fn(&Filled) = |it| {
        std::fs::write(files(&it.path("consumequeue/topic0/1")).last().unwrap(), "").unwrap();
    };
    let zeros: fn(&Filled) =
        |it| overwrite(files(&it.path("consumequeue/topic0/0")).last().unwrap(), 0, &[0; 400]);
    for damage in [directory, last_file, empty, zeros] {
        loses_nothing(with_an_idle_topic(), damage);
    }
}

#[test]
fn ends_of_queues_from_another_time_or_damaged_ones_change_nothing() {
    let filled = with_an_idle_topic();
    let ends = std::fs::read(filled.path("queue-ends")).unwrap();
    let store = filled.open();
    // While the store is used nobody may find it.
    assert!(!filled.path("queue-ends").exists());
    store.delete_topic("topic0").unwrap();
    let mut sent = filled.sent;
    sent.retain(|it| it.topic != "topic0");
    sent.push(send(&store, 1000));
    store.close().unwrap();
    drop(store);
    let mut damaged = ends.clone();
    *damaged.last_mut().unwrap() ^= 1;
    for content in [&ends[..], &damaged, b"", b"\xFF", b"1"] {
        std::fs::write(filled.dir.path().join("queue-ends"), content).unwrap();
        let store = open(filled.dir.path());
        check_served(&store, &sent);
        assert!(store.queue_bounds("topic0", QueueId::from_wire(0).unwrap()).is_empty());
        store.close().unwrap();
    }
}

#[test]
fn queue_files_of_another_length_are_refused_by_the_name_of_their_setting() {
    is_refused(&Filled::clean(), "mappedFileSizeConsumeQueue", |it| {
        for path in files(&it.path("consumequeue")) {
            std::fs::write(path, [0; 200]).unwrap();
        }
    });
}

#[test]
fn a_queue_file_that_is_cut_or_too_long_is_built_again() {
    for filled in Filled::each() {
        loses_nothing(filled, |it| {
            for (queue, len) in [("topic0/0", 205), ("topic1/1", 90_000), ("topic2/1", 7)] {
                let of_queue = files(&it.path("consumequeue").join(queue));
                for path in [of_queue.first(), of_queue.last()].into_iter().flatten() {
                    let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
                    file.set_len(len).unwrap();
                }
            }
        });
    }
}

#[test]
fn a_lost_file_between_others_of_a_queue_is_built_again() {
    for filled in Filled::each() {
        loses_nothing(filled, |it| {
            let of_queue = files(&it.path("consumequeue/topic1/1"));
            assert!(3 <= of_queue.len());
            std::fs::remove_file(&of_queue[1]).unwrap();
        });
    }
}

#[test]
fn units_beyond_the_logs_end_are_cut_off() {
    for filled in Filled::each() {
        loses_nothing(filled, |it| {
            let store = it.open();
            let last = it.last();
            let count = store.queue_bounds(&last.topic, last.queue).end.0;
            drop(store);
            let mut unit = [0; 20];
            for beyond in count..count.next_multiple_of(20) {
                unit[..8].copy_from_slice(&(last.end.0 + beyond * 100).to_be_bytes());
                unit[8..12].copy_from_slice(&100_u32.to_be_bytes());
                let dir = format!("consumequeue/{}/{}", last.topic, last.queue);
                let of_queue = files(&it.path(&dir));
                overwrite(&of_queue[beyond as usize / 20], beyond % 20 * 20, &unit);
            }
        });
    }
}

#[test]
fn units_of_garbage_are_cut_off_or_put_right() {
    loses_nothing(Filled::killed(), |it| {
        let of_queue = files(&it.path("consumequeue/topic1/0"));
        overwrite(of_queue.last().unwrap(), 0, &[0x7A; 400]);
        // A unit in the middle that says something else.
        overwrite(&of_queue[1], 40, &[0x11; 20]);
    });
}

#[test]
fn a_queue_that_says_more_than_the_log_holds_does_not_hide_that_others_are_lost() {
    for filled in Filled::each() {
        loses_nothing(filled, |it| {
            std::fs::remove_dir_all(it.path("consumequeue")).unwrap();
            std::fs::create_dir_all(it.path("consumequeue/topic0/1")).unwrap();
            let mut unit = [0; 400];
            unit[..8].copy_from_slice(&it.last().at.plus(1).0.to_be_bytes());
            unit[8..12].copy_from_slice(&100_u32.to_be_bytes());
            std::fs::write(it.path("consumequeue/topic0/1/00000000000000000000"), unit).unwrap();
        });
    }
}

#[test]
fn a_topic_that_was_deleted_stays_so_after_a_clean_stop() {
    let filled = Filled::clean();
    let store = filled.open();
    store.delete_topic("topic1").unwrap();
    store.close().unwrap();
    drop(store);
    let store = filled.open();
    let queue = QueueId::from_wire(0).unwrap();
    assert!(store.queue_bounds("topic1", queue).is_empty());
    // Made again, it begins anew, and what it held before does not come back.
    let again = send(&store, 1);
    assert_eq!(again.offset.0, 0);
    drop(store);
    let store = filled.open();
    let found = common::read_all(&store, "topic1", queue);
    assert_eq!(found.iter().map(|it| it.at).collect::<Vec<_>>(), [again.at]);
}

#[test]
fn of_a_topic_that_was_made_again_the_later_messages_are_kept_after_a_crash() {
    for lose_the_queue in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path());
        (0..COUNT).for_each(|number| drop(send(&store, number)));
        store.delete_topic("topic1").unwrap();
        let again: Vec<_> = (0..60).map(|number| send(&store, number)).collect();
        drop(store);
        if lose_the_queue {
            std::fs::remove_dir_all(dir.path().join("consumequeue/topic1")).unwrap();
        }
        let store = open(dir.path());
        for queue in [0, 1].map(|id| QueueId::from_wire(id).unwrap()) {
            let is_of_queue = |it: &&Sent| it.topic == "topic1" && it.queue == queue;
            let expected: Vec<_> = again.iter().filter(is_of_queue).map(|it| it.at).collect();
            let found = common::read_all(&store, "topic1", queue);
            assert_eq!(found.iter().map(|it| it.at).collect::<Vec<_>>(), expected);
        }
    }
}

// The index.

fn index_files(filled: &Filled) -> Vec<std::path::PathBuf> {
    let found = files(&filled.path("index"));
    assert!(2 < found.len());
    found
}

#[test]
fn a_lost_index_is_built_again() {
    for filled in Filled::each() {
        loses_nothing(filled, |it| std::fs::remove_dir_all(it.path("index")).unwrap());
    }
}

#[test]
fn a_last_index_file_that_is_lost_empty_or_garbage_is_built_again() {
    let remove: fn(&Path) = |path| std::fs::remove_file(path).unwrap();
    let empty: fn(&Path) = |path| std::fs::write(path, "").unwrap();
    let garbage: fn(&Path) = |path| overwrite(path, 0, &[0xA5; 4000]);
    let zeros: fn(&Path) = |path| overwrite(path, 0, &[0; 40]);
    let cut: fn(&Path) = |path| std::fs::write(path, [0; 100]).unwrap();
    for damage in [remove, empty, garbage, zeros, cut] {
        for filled in Filled::each() {
            loses_nothing(filled, |it| damage(index_files(it).last().unwrap()));
        }
    }
}

#[test]
fn a_first_index_file_that_is_empty_or_garbage_is_built_again_with_those_that_follow() {
    let empty: fn(&Path) = |path| std::fs::write(path, "").unwrap();
    let garbage: fn(&Path) = |path| overwrite(path, 0, &[0xA5; 4000]);
    let cut: fn(&Path) = |path| std::fs::write(path, [0; 100]).unwrap();
    for damage in [empty, garbage, cut] {
        for filled in Filled::each() {
            loses_nothing(filled, |it| damage(&index_files(it)[0]));
        }
    }
}

#[test]
fn index_files_of_another_length_are_refused_by_the_names_of_their_settings() {
    is_refused(&Filled::clean(), "maxHashSlotNum or maxIndexNum", |it| {
        index_files(it).iter().for_each(|path| std::fs::write(path, [0; 100]).unwrap());
    });
}

struct Frozen;

impl Clock for Frozen {
    fn now_ms(&self) -> Millis {
        1_700_000_000_000
    }
}

#[test]
fn index_files_that_are_filled_within_a_millisecond_are_several() {
    let dir = tempfile::tempdir().unwrap();
    let open = || Store::open(Arc::new(RealDisk), Arc::new(Frozen), settings(dir.path())).unwrap();
    let store = open();
    let sent: Vec<_> = (0..COUNT).map(|number| send(&store, number)).collect();
    let check = |store: &Store| {
        for it in &sent {
            assert_eq!(store.query_by_key(&it.topic, &it.key, 9, 0, i64::MAX), [it.at]);
        }
    };
    check(&store);
    store.close().unwrap();
    drop(store);
    check(&open());
}

// The checkpoint and `abort`.

#[test]
fn a_checkpoint_may_be_lost_zeroed_garbage_or_short() {
    let remove: fn(&Path) = |path| std::fs::remove_file(path).unwrap();
    let zeros: fn(&Path) = |path| std::fs::write(path, [0; 4096]).unwrap();
    let garbage: fn(&Path) = |path| std::fs::write(path, [0x3C; 4096]).unwrap();
    let negative: fn(&Path) = |path| std::fs::write(path, [0xFF; 4096]).unwrap();
    let short: fn(&Path) = |path| std::fs::write(path, [0x11; 10]).unwrap();
    for damage in [remove, zeros, garbage, negative, short] {
        for filled in Filled::each() {
            loses_nothing(filled, |it| damage(&it.path("checkpoint")));
        }
    }
}

#[test]
fn a_checkpoint_may_be_stale_or_of_another_log() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let mut sent: Vec<_> = (0..200).map(|number| send(&store, number)).collect();
    store.checkpoint_step(&mut |_| {}).unwrap();
    store.checkpoint_step(&mut |_| {}).unwrap();
    let stale = std::fs::read(dir.path().join("checkpoint")).unwrap();
    sent.extend((200..COUNT).map(|number| send(&store, number)));
    store.checkpoint_step(&mut |_| {}).unwrap();
    drop(store);
    loses_nothing(Filled { dir, sent }, |it| {
        std::fs::write(it.path("checkpoint"), &stale).unwrap()
    });
    loses_nothing(Filled::clean(), |it| std::fs::write(it.path("checkpoint"), &stale).unwrap());
    let mut beyond = stale.clone();
    beyond[40..48].copy_from_slice(&(1_u64 << 40).to_be_bytes());
    loses_nothing(Filled::killed(), |it| std::fs::write(it.path("checkpoint"), &beyond).unwrap());
}

#[test]
fn abort_after_a_clean_stop_changes_nothing() {
    loses_nothing(Filled::clean(), |it| std::fs::write(it.path("abort"), "1").unwrap());
}

// Segments.

#[test]
fn a_segment_of_another_length_is_refused_by_the_name_of_its_setting() {
    let filled = Filled::clean();
    let before = std::fs::read(&files(&filled.path("commitlog"))[1]).unwrap();
    is_refused(&filled, "mappedFileSizeCommitLog", |it| {
        std::fs::write(&files(&it.path("commitlog"))[0], [0; 1000]).unwrap();
    });
    assert_eq!(std::fs::read(&files(&filled.path("commitlog"))[1]).unwrap(), before);
}

#[test]
fn a_gap_in_the_row_of_segments_is_refused() {
    is_refused(&Filled::clean(), "does not start where the file before it ends", |it| {
        std::fs::remove_file(&files(&it.path("commitlog"))[1]).unwrap();
    });
}

#[test]
fn segments_made_ahead_that_are_blank_or_empty_are_no_obstacle() {
    for filled in Filled::each() {
        for len in [64 << 10, 0] {
            let count = files(&filled.path("commitlog")).len() as u64;
            let next = filled.path(&format!("commitlog/{:020}", count * (64 << 10)));
            std::fs::write(next, vec![0; len]).unwrap();
            let store = filled.open();
            check_served(&store, &filled.sent);
            drop(store);
        }
        loses_nothing(filled, |_| {});
    }
}

#[test]
fn a_lost_last_segment_costs_its_messages_only() {
    for filled in Filled::each() {
        let count = files(&filled.path("commitlog")).len();
        let last = filled.last().at.0 / (64 << 10);
        for path in &files(&filled.path("commitlog"))[last as usize..count] {
            std::fs::remove_file(path).unwrap();
        }
        let is_kept = |it: &Sent| it.at.0 < last * (64 << 10);
        let (kept, lost): (Vec<_>, Vec<_>) = filled.sent.iter().cloned().partition(is_kept);
        let store = filled.open();
        check_gone(&store, &lost);
        check_served(&store, &kept);
        check_goes_on(store, filled.root(), kept);
    }
}

#[test]
fn queues_whose_records_are_too_old_keep_their_end() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let idle =
        (0..COUNT).map(|number| send(&store, number)).rfind(|it| it.topic == "topic0").unwrap();
    let others = (0..3 * COUNT).filter(|number| number % 3 != 0);
    others.for_each(|number| drop(send(&store, number)));
    store.checkpoint_step(&mut |_| {}).unwrap();
    store.delete_older(i64::MAX, 100).unwrap();
    assert!(idle.at < store.log_min());
    let end = idle.offset.plus(1);
    // Of its files only the last one is left.
    let dir_of_queue = dir.path().join("consumequeue/topic0").join(idle.queue.to_string());
    assert_eq!(files(&dir_of_queue).len(), 1);
    assert_eq!(store.queue_bounds(&idle.topic, idle.queue), end..end);
    drop(store);
    for _ in 0..3 {
        let store = open(dir.path());
        assert_eq!(store.queue_bounds(&idle.topic, idle.queue), end..end);
        store.close().unwrap();
    }
    let store = open(dir.path());
    assert_eq!(send(&store, 3 * COUNT + 3).offset, end);
}

// Documents, foreign stores, locks.

#[test]
fn a_document_that_cannot_be_read_falls_back_to_its_bak() {
    let dir = tempfile::tempdir().unwrap();
    let documents = Documents::new(Arc::new(RealDisk), dir.path());
    let parse = |text: &str| text.parse::<u32>().map_err(|error| error.to_string());
    assert_eq!(documents.read("n.json", parse).unwrap(), None);
    documents.write("n.json", b"1").unwrap();
    documents.write("n.json", b"2").unwrap();
    assert_eq!(documents.read("n.json", parse).unwrap(), Some(2));
    let (path, bak) = (dir.path().join("config/n.json"), dir.path().join("config/n.json.bak"));
    for garbage in [&b"{garbage"[..], b"", b"\xFF\xFE", b"\0\0\0\0"] {
        std::fs::write(&path, garbage).unwrap();
        assert_eq!(documents.read("n.json", parse).unwrap(), Some(1), "{garbage:?}");
    }
    assert!(!path.exists());
    assert_eq!(documents.read("n.json", parse).unwrap(), Some(1));
    std::fs::write(&path, "x").unwrap();
    std::fs::write(&bak, "y").unwrap();
    let error = documents.read("n.json", parse).unwrap_err();
    assert!(
        matches!(error, Error::Document { .. }) && error.to_string().contains("n.json"),
        "{error}"
    );
    std::fs::remove_file(&bak).unwrap();
    assert!(documents.read("n.json", parse).is_err());
}

#[test]
fn a_document_that_was_empty_or_garbage_does_not_become_the_bak() {
    let dir = tempfile::tempdir().unwrap();
    let documents = Documents::new(Arc::new(RealDisk), dir.path());
    let parse = |text: &str| text.parse::<u32>().map_err(|error| error.to_string());
    for garbage in ["", "{garbage"] {
        documents.write("n.json", b"1").unwrap();
        documents.write("n.json", b"2").unwrap();
        let path = dir.path().join("config/n.json");
        std::fs::write(&path, garbage).unwrap();
        assert_eq!(documents.read("n.json", parse).unwrap(), Some(1));
        documents.write("n.json", b"3").unwrap();
        std::fs::write(&path, "").unwrap();
        assert_eq!(documents.read("n.json", parse).unwrap(), Some(1));
    }
}

#[test]
fn foreign_stores_are_refused_before_anything_is_written() {
    for (made, words) in [
        ("consumequeue_rocksdb/CURRENT", "RocksDB"),
        ("dledger-n0/data/00000000000000000000", "DLedger"),
        ("compaction/compactionLog/topic/0/00000000000000000000", "compaction"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(made);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, "theirs").unwrap();
        let error = open_with(settings(dir.path())).err().expect("it is refused");
        assert!(
            matches!(error, Error::Foreign { .. }) && error.to_string().contains(words),
            "{error}"
        );
        assert_eq!(files(dir.path()), [path]);
    }
}

#[test]
fn a_store_is_opened_once() {
    let filled = Filled::clean();
    let store = filled.open();
    for _ in 0..2 {
        let error = open_with(settings(filled.root())).err().expect("it is in use");
        assert!(matches!(error, Error::Locked { .. }), "{error}");
    }
    check_served(&store, &filled.sent);
    drop(store);
    filled.open();
}

/// A disk that makes no more queue files once it is told so.
#[derive(Default)]
struct Failing {
    fails: AtomicBool,
}

impl Disk for Failing {
    fn open(&self, path: &Path, len: u64) -> io::Result<Arc<dyn DiskFile>> {
        let is_queue = path.to_string_lossy().contains("consumequeue");
        if is_queue && self.fails.load(Ordering::Relaxed) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        RealDisk.open(path, len)
    }
    fn reopen(&self, path: &Path, len: u64) -> io::Result<Arc<dyn DiskFile>> {
        RealDisk.reopen(path, len)
    }
    fn peek(&self, path: &Path, at: u64, out: &mut [u8]) -> io::Result<()> {
        RealDisk.peek(path, at, out)
    }
    fn sync_all(&self, path: &Path) -> io::Result<()> {
        RealDisk.sync_all(path)
    }
    fn list(&self, dir: &Path) -> io::Result<Vec<disk::Entry>> {
        RealDisk.list(dir)
    }
    fn read(&self, path: &Path) -> io::Result<Option<Vec<u8>>> {
        RealDisk.read(path)
    }
    fn replace(&self, path: &Path, content: &[u8]) -> io::Result<()> {
        RealDisk.replace(path, content)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        RealDisk.rename(from, to)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        RealDisk.remove(path)
    }
    fn used_ratio(&self, path: &Path) -> io::Result<f64> {
        RealDisk.used_ratio(path)
    }
    fn lock(&self, path: &Path) -> io::Result<Box<dyn Send + Sync>> {
        RealDisk.lock(path)
    }
}

#[test]
fn a_message_that_did_not_get_into_its_queue_gets_there_at_the_next_start() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Arc::new(Failing::default());
    let store = open_on(Arc::clone(&disk) as _, settings(dir.path())).unwrap();
    let mut sent: Vec<_> = (0..100).map(|number| send(&store, number)).collect();
    disk.fails.store(true, Ordering::Relaxed);
    for number in 100.. {
        if store.check_writable().is_err() {
            break;
        }
        sent.push(send(&store, number));
    }
    let lost = sent.last().unwrap();
    assert_eq!(store.unit(&lost.topic, lost.queue, lost.offset).unwrap(), None);
    store.checkpoint_step(&mut |_| {}).unwrap();
    store.close().unwrap();
    drop(store);
    let store = open(dir.path());
    check_goes_on(store, dir.path(), sent);
}

// How much is read at a start.

#[test]
fn after_a_clean_stop_only_the_last_record_is_read() {
    let filled = Filled::clean();
    for _ in 0..2 {
        let store = filled.open();
        let recovery = store.recovery();
        assert_eq!((recovery.from, recovery.to), (filled.last().at, filled.last().end));
        assert_eq!(recovery.record_count, 1);
        check_served(&store, &filled.sent);
        store.close().unwrap();
    }
}

#[test]
fn after_a_crash_the_log_is_read_from_the_checkpoint_on() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let mut sent: Vec<_> = (0..COUNT).map(|number| send(&store, number)).collect();
    // The second one finds nothing new and brings the index to the device too.
    store.checkpoint_step(&mut |_| {}).unwrap();
    store.checkpoint_step(&mut |_| {}).unwrap();
    let noted = sent.last().unwrap().at;
    sent.extend((COUNT..COUNT + 300).map(|number| send(&store, number)));
    drop(store);
    let store = open(dir.path());
    let recovery = store.recovery();
    assert_eq!((recovery.from, recovery.to), (noted, sent.last().unwrap().end));
    assert_eq!(recovery.record_count, 301);
    check_served(&store, &sent);
    // Recovery has noted where it came to: the next one begins there.
    drop(store);
    let store = open(dir.path());
    assert_eq!(store.recovery().from, sent.last().unwrap().at);
    check_goes_on(store, dir.path(), sent);
}

#[test]
fn the_checkpoint_goes_on_while_messages_come() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    // Nobody flushes the log between a message and the checkpoint.
    let last = (0..COUNT).map(|number| send(&store, number)).last().unwrap();
    store.checkpoint_step(&mut |_| {}).unwrap();
    drop(store);
    let checkpoint = std::fs::read(dir.path().join("checkpoint")).unwrap();
    let queues_at = u64::from_be_bytes(checkpoint[40..48].try_into().unwrap());
    assert_eq!(LogOffset(queues_at), last.at);
}

#[test]
fn a_crash_that_tore_the_index_after_the_checkpoint_costs_no_key() {
    for torn_entries in [true, false] {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path());
        // So many that the last file is half full.
        let mut sent: Vec<_> = (0..COUNT + 100).map(|number| send(&store, number)).collect();
        store.checkpoint_step(&mut |_| {}).unwrap();
        store.checkpoint_step(&mut |_| {}).unwrap();
        let path = files(&dir.path().join("index")).pop().unwrap();
        let noted = std::fs::read(&path).unwrap();
        sent.extend((COUNT + 100..COUNT + 130).map(|number| send(&store, number)));
        settle(&store);
        drop(store);
        let bytes = std::fs::read(&path).unwrap();
        let count = |bytes: &[u8]| u32::from_be_bytes(bytes[36..40].try_into().unwrap()) as usize;
        let entries_at = |number: usize| 40 + 100 * 4 + number * 20;
        assert!(count(&noted) < count(&bytes));
        if torn_entries {
            // Slots and header reached the device, the entries did not.
            let lost = entries_at(count(&noted))..entries_at(count(&bytes));
            overwrite(&path, lost.start as u64, &vec![0; lost.len()]);
        } else {
            // The other way round, and some slots.
            overwrite(&path, 0, &noted[..40 + 200]);
        }
        let store = open(dir.path());
        check_served(&store, &sent);
        assert!(LogOffset(0) < store.recovery().from);
        check_goes_on(store, dir.path(), sent);
    }
}

#[test]
fn messages_without_keys_do_not_make_a_start_read_the_log_from_its_beginning() {
    let dir = tempfile::tempdir().unwrap();
    let settings = Settings { index_enabled: true, ..settings(dir.path()) };
    let store = open_with(settings.clone()).unwrap();
    let queue = QueueId::from_wire(0).unwrap();
    let message = apogee_types::Message::new("keyless", queue, &[b'x'; 1000]);
    for _ in 0..COUNT {
        store.append(&message).unwrap();
    }
    store.close().unwrap();
    drop(store);
    let store = open_with(settings).unwrap();
    assert!(LogOffset(0) < store.recovery().from);
    assert!(store.recovery().record_count < 100);
}

#[test]
fn with_synchronous_flush_a_crash_loses_nothing_that_was_flushed() {
    let dir = tempfile::tempdir().unwrap();
    let settings = Settings { flush: FlushMode::Sync, ..settings(dir.path()) };
    let store = open_with(settings.clone()).unwrap();
    let sent: Vec<_> = (0..COUNT).map(|number| send(&store, number)).collect();
    store.flush_step().unwrap();
    let torn = send(&store, COUNT);
    drop(store);
    let filled = Filled { dir, sent };
    filled.damage_log(middle(&torn), &[0; 20]);
    let store = open_with(settings).unwrap();
    check_served(&store, &filled.sent);
    check_gone(&store, &[torn]);
}
