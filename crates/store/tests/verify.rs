//! What a check of a store finds: nothing in a sound one, the right thing in a damaged one; and it
//! changes nothing.

#![allow(clippy::disallowed_methods, clippy::unwrap_used, reason = "tests damage files on purpose")]

mod common;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use apogee_store::rebuild::{Old, Plan};
use apogee_store::verify::{Kind, Report, verify};
use apogee_store::view::{Live, View};
use apogee_store::{Error, Store};
use common::{COUNT, Filled, Sent, files, overwrite, send, settings};

fn check(root: &Path) -> Report {
    let before = state(root);
    let view = View::open(root, None, Live::Refuse).unwrap();
    let report = verify(&view, None, &mut |_| {}).unwrap();
    drop(view);
    assert_eq!(state(root), before, "a check changes nothing");
    report
}

/// Names, lengths and times of all files.
fn state(root: &Path) -> Vec<(PathBuf, u64, std::time::SystemTime)> {
    let of = |path: PathBuf| {
        let metadata = path.metadata().unwrap();
        (path, metadata.len(), metadata.modified().unwrap())
    };
    files(root).into_iter().map(of).collect()
}

/// Exactly these kinds are found, each so often.
#[track_caller]
fn finds(filled: &Filled, expected: &[(Kind, u64)]) {
    let report = check(filled.root());
    let found: Vec<_> = report.findings.0.iter().map(|(kind, it)| (*kind, it.count)).collect();
    assert_eq!(found, expected, "{:#?}", report.findings);
}

fn middle(sent: &Sent) -> u64 {
    (sent.at.0 + sent.end.0) / 2
}

fn queue_file(filled: &Filled, it: &Sent) -> PathBuf {
    let byte = it.offset.0 * 20;
    filled.path(&format!("consumequeue/{}/{}/{:020}", it.topic, it.queue, byte - byte % 400))
}

fn index_files(filled: &Filled) -> Vec<PathBuf> {
    files(&filled.path("index"))
}

#[test]
fn a_sound_store_has_no_findings() {
    let filled = Filled::clean();
    let report = check(filled.root());
    assert!(report.findings.0.is_empty(), "{:#?}", report.findings);
    assert_eq!((report.message_count, report.topic_count, report.queue_count), (600, 3, 6));
    assert_eq!(report.log_end, filled.last().end);
    assert_eq!(report.first_ms, filled.sent[0].stored_ms);
    assert_eq!(report.last_ms, filled.last().stored_ms);
    assert_eq!(report.index_entry_count, 2 * COUNT as u64);
    assert!(report.is_of_apogee());
}

#[test]
fn stores_of_apache_have_no_errors() {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    for (name, notes) in
        [("apache-5.5.0", &[][..]), ("apache-4.9.7-unclean", &[Kind::UncleanStop][..])]
    {
        let dir = tempfile::tempdir().unwrap();
        let mut tar = Command::new("tar");
        tar.args(["--exclude=timerlog", "--exclude=timerwheel", "-xzf"]);
        tar.arg(fixtures.join(format!("{name}.tar.gz"))).arg("-C").arg(dir.path());
        assert!(tar.status().unwrap().success());
        let report = check(&dir.path().join(name));
        assert!(!report.findings.has_errors(), "{name}: {:#?}", report.findings);
        let has_all = notes.iter().all(|kind| report.findings.0.contains_key(kind));
        assert!(has_all, "{name}: {:#?}", report.findings);
        assert!(0 < report.message_count, "{name}: {report:#?}");
        // After an unclean stop only what the checkpoint vouches for counts, which is nothing.
        assert_eq!(0 < report.index_entry_count, notes.is_empty(), "{name}: {report:#?}");
        assert!(!report.is_of_apogee());
    }
}

#[test]
fn a_killed_store_has_notes_only() {
    let report = check(Filled::killed().root());
    assert!(!report.findings.has_errors(), "{:#?}", report.findings);
    assert!(report.findings.0.contains_key(&Kind::UncleanStop));
}

// The log.

#[test]
fn a_bit_that_flipped_in_a_body_is_found() {
    let filled = Filled::clean();
    filled.damage_log(middle(&filled.sent[77]), &[0xFF]);
    finds(&filled, &[(Kind::BodyChecksum, 1)]);
}

#[test]
fn a_record_that_is_destroyed_is_found_with_what_names_it() {
    let filled = Filled::clean();
    let it = &filled.sent[77];
    filled.damage_log(it.at.0, &[0; 91]);
    let expected =
        [(Kind::LogDamage, it.end.0 - it.at.0), (Kind::UnitDangling, 1), (Kind::IndexEntry, 2)];
    finds(&filled, &expected);
}

#[test]
fn a_last_record_that_is_lost_after_a_clean_stop_is_missed_by_its_queue() {
    let filled = Filled::clean();
    let it = filled.last();
    filled.damage_log(it.at.0, &vec![0; (it.end.0 - it.at.0) as usize]);
    let report = check(filled.root());
    assert_eq!(report.findings.0[&Kind::UnitBeyondLog].count, 1, "{:#?}", report.findings);
}

#[test]
fn a_torn_tail_after_a_crash_is_a_note() {
    let filled = Filled::killed();
    let it = filled.last();
    filled.damage_log(middle(it), &vec![0; (it.end.0 - middle(it)) as usize]);
    let report = check(filled.root());
    assert!(!report.findings.has_errors(), "{:#?}", report.findings);
    assert!(report.findings.0.contains_key(&Kind::TornTail));
}

// Queues.

#[test]
fn a_unit_that_names_something_else_is_found() {
    let filled = Filled::clean();
    let it = &filled.sent[77];
    overwrite(&queue_file(&filled, it), it.offset.0 * 20 % 400, &1234u64.to_be_bytes());
    finds(&filled, &[(Kind::UnitWrong, 1), (Kind::UnitDangling, 1)]);
}

#[test]
fn a_wrong_tag_code_is_found() {
    let filled = Filled::clean();
    let it = &filled.sent[77];
    overwrite(&queue_file(&filled, it), it.offset.0 * 20 % 400 + 12, &7u64.to_be_bytes());
    finds(&filled, &[(Kind::UnitWrong, 1)]);
}

#[test]
fn a_lost_queue_is_found() {
    let filled = Filled::clean();
    std::fs::remove_dir_all(filled.path("consumequeue/topic1/1")).unwrap();
    finds(&filled, &[(Kind::QueueMissing, 100)]);
}

#[test]
fn a_lost_topic_is_deleted_if_nobody_knows_it() {
    let filled = Filled::clean();
    std::fs::remove_dir_all(filled.path("consumequeue/topic1")).unwrap();
    finds(&filled, &[(Kind::QueueMissing, 200)]);
    let view = View::open(filled.root(), None, Live::Refuse).unwrap();
    let topics = ["topic0", "topic2"].map(str::to_owned).into();
    let report = verify(&view, Some(&topics), &mut |_| {}).unwrap();
    assert_eq!(report.findings.0.keys().collect::<Vec<_>>(), [&Kind::TopicDeleted]);
}

#[test]
fn a_lost_first_file_of_a_queue_is_found() {
    let filled = Filled::clean();
    std::fs::remove_file(&files(&filled.path("consumequeue/topic1/1"))[0]).unwrap();
    finds(&filled, &[(Kind::UnitMissing, 20)]);
}

#[test]
fn a_lost_last_file_of_a_queue_is_put_right_by_the_next_start() {
    let filled = Filled::clean();
    std::fs::remove_file(files(&filled.path("consumequeue/topic1/1")).last().unwrap()).unwrap();
    let report = check(filled.root());
    assert_eq!(report.findings.0.keys().collect::<Vec<_>>(), [&Kind::QueueBehind]);
    filled.open().close().unwrap();
    finds(&filled, &[]);
}

#[test]
fn a_lost_or_truncated_middle_file_of_a_queue_is_found() {
    let filled = Filled::clean();
    let of_queue = files(&filled.path("consumequeue/topic1/1"));
    std::fs::remove_file(&of_queue[1]).unwrap();
    finds(&filled, &[(Kind::QueueFiles, 1)]);
    std::fs::write(&of_queue[1], [0; 100]).unwrap();
    finds(&filled, &[(Kind::QueueFiles, 1)]);
}

#[test]
fn zeros_within_a_queue_are_found() {
    let filled = Filled::clean();
    let of_queue = files(&filled.path("consumequeue/topic1/1"));
    overwrite(&of_queue[0], 100, &[0; 40]);
    let report = check(filled.root());
    assert_eq!(report.findings.0[&Kind::UnitMissing].count, 2, "{:#?}", report.findings);
}

// The index.

#[test]
fn a_wrong_entry_of_the_index_is_found() {
    let filled = Filled::clean();
    for named in [7u64, 1 << 40] {
        // Entry 9 of the first file, in the part for the log's offset.
        overwrite(&index_files(&filled)[0], 40 + 100 * 4 + 9 * 20 + 4, &named.to_be_bytes());
        finds(&filled, &[(Kind::IndexEntry, 1), (Kind::IndexMissing, 1)]);
    }
}

#[test]
fn a_slot_that_leads_elsewhere_is_found() {
    let filled = Filled::clean();
    overwrite(&index_files(&filled)[0], 40 + 4 * 50, &1u32.to_be_bytes());
    finds(&filled, &[(Kind::IndexChain, 1)]);
}

#[test]
fn a_lost_first_file_of_the_index_is_found() {
    let filled = Filled::clean();
    std::fs::remove_file(&index_files(&filled)[0]).unwrap();
    let report = check(filled.root());
    assert_eq!(report.findings.0.keys().collect::<Vec<_>>(), [&Kind::IndexMissing]);
}

#[test]
fn a_lost_index_is_put_right_by_the_next_start() {
    let filled = Filled::clean();
    std::fs::remove_dir_all(filled.path("index")).unwrap();
    finds(&filled, &[(Kind::NoIndex, COUNT as u64)]);
    filled.open().close().unwrap();
    finds(&filled, &[]);
}

// Around it.

#[test]
fn a_store_in_use_is_refused_unless_that_is_wanted() {
    let filled = Filled::clean();
    let store: Store = filled.open();
    let refused = View::open(filled.root(), None, Live::Refuse);
    assert!(matches!(refused, Err(Error::Locked { .. })));
    let view = View::open(filled.root(), None, Live::Allow).unwrap();
    let report = verify(&view, None, &mut |_| {}).unwrap();
    assert!(!report.findings.has_errors(), "{:#?}", report.findings);
    assert!(report.findings.0.contains_key(&Kind::InUse));
    store.close().unwrap();
}

#[test]
fn what_is_no_store_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let error = View::open(dir.path(), None, Live::Refuse).err().unwrap().to_string();
    assert!(error.contains("holds no store"), "{error}");
    let filled = Filled::clean();
    std::fs::create_dir(filled.path("consumequeue_rocksdb")).unwrap();
    let error = View::open(filled.root(), None, Live::Refuse).err().unwrap().to_string();
    assert!(error.contains("RocksDB"), "{error}");
}

#[test]
fn a_checkpoint_of_another_log_is_a_note() {
    let filled = Filled::clean();
    overwrite(&filled.path("checkpoint"), 40, &77u64.to_be_bytes());
    finds(&filled, &[(Kind::Checkpoint, 1)]);
}

// Repair.

/// Rebuilds; the log's files stay the same to the byte, and a check finds nothing any more.
fn repairs(filled: &Filled, old: &Old) {
    let log = |filled: &Filled| {
        let of = |path: PathBuf| (std::fs::read(&path).unwrap(), path);
        files(&filled.path("commitlog")).into_iter().map(of).collect::<Vec<_>>()
    };
    let before = log(filled);
    let view = View::open(filled.root(), None, Live::Refuse).unwrap();
    let report = verify(&view, None, &mut |_| {}).unwrap();
    // Their index may be gone, from which its numbers are told.
    let plan = Plan::new(&view, settings(filled.root()), &report);
    drop(view);
    plan.run(old, Arc::default()).unwrap();
    assert!(before == log(filled), "the commit log has changed");
    finds(filled, &[]);
}

#[test]
fn a_repair_puts_everything_right_and_leaves_the_log_as_it_is() {
    let damages: [fn(&Filled); 5] = [
        |it| overwrite(&files(&it.path("consumequeue/topic1/1"))[0], 100, &[0; 40]),
        |it| std::fs::remove_file(&files(&it.path("consumequeue/topic1/1"))[1]).unwrap(),
        |it| std::fs::remove_dir_all(it.path("consumequeue")).unwrap(),
        |it| overwrite(&index_files(it)[0], 40 + 4 * 50, &1u32.to_be_bytes()),
        |it| std::fs::remove_file(&index_files(it)[0]).unwrap(),
    ];
    for damage in damages {
        for old in [Old::Aside("bak".to_owned()), Old::Delete] {
            let filled = Filled::clean();
            damage(&filled);
            repairs(&filled, &old);
            assert_eq!(filled.path("index.bak").exists(), old != Old::Delete);
            assert!(!filled.path("repair.tmp").exists());
            let store = filled.open();
            common::check_served(&store, &filled.sent);
            common::check_goes_on(store, filled.root(), filled.sent.clone());
        }
    }
}

#[test]
fn a_repair_after_a_crash_leaves_the_rest_to_the_next_start() {
    let filled = Filled::killed();
    overwrite(&files(&filled.path("consumequeue/topic1/1"))[0], 100, &[0; 40]);
    assert!(check(filled.root()).findings.has_errors());
    let view = View::open(filled.root(), None, Live::Refuse).unwrap();
    let report = verify(&view, None, &mut |_| {}).unwrap();
    let plan = Plan::new(&view, settings(filled.root()), &report);
    drop(view);
    plan.run(&Old::Delete, Arc::default()).unwrap();
    finds(&filled, &[(Kind::UncleanStop, 1)]);
    common::check_goes_on(filled.open(), filled.root(), filled.sent.clone());
    finds(&Filled { dir: filled.dir, sent: Vec::new() }, &[]);
}

#[test]
fn a_repair_does_not_bring_a_deleted_topic_back() {
    let filled = Filled::clean();
    std::fs::remove_dir_all(filled.path("consumequeue/topic1")).unwrap();
    let view = View::open(filled.root(), None, Live::Refuse).unwrap();
    let topics = ["topic0", "topic2"].map(str::to_owned).into();
    let report = verify(&view, Some(&topics), &mut |_| {}).unwrap();
    let plan = Plan::new(&view, settings(filled.root()), &report);
    drop(view);
    plan.run(&Old::Aside("bak".to_owned()), Arc::default()).unwrap();
    assert!(!filled.path("consumequeue/topic1").exists());
    assert!(filled.path("consumequeue/topic2/1").exists());
}

#[test]
fn a_repair_gets_past_damage_of_the_log() {
    let filled = Filled::clean();
    let broken = [77, COUNT - 2];
    broken.iter().for_each(|at| filled.damage_log(filled.sent[*at].at.0, &[0; 91]));
    std::fs::remove_dir_all(filled.path("consumequeue")).unwrap();
    std::fs::remove_dir_all(filled.path("index")).unwrap();
    let view = View::open(filled.root(), None, Live::Refuse).unwrap();
    let report = verify(&view, None, &mut |_| {}).unwrap();
    assert_eq!(report.last_at, filled.last().at);
    let plan = Plan::new(&view, settings(filled.root()), &report);
    drop(view);
    plan.run(&Old::Delete, Arc::default()).unwrap();
    let report = check(filled.root());
    let kinds: Vec<_> = report.findings.0.keys().collect();
    assert_eq!(kinds, [&Kind::LogDamage, &Kind::LostMessage], "{:#?}", report.findings);
    let store = filled.open();
    for (number, it) in filled.sent.iter().enumerate() {
        let unit = store.unit(&it.topic, it.queue, it.offset).unwrap();
        assert_eq!(unit.is_some(), !broken.contains(&number), "{number}");
    }
}

#[test]
fn a_queue_whose_messages_are_too_old_keeps_its_end_in_a_repair() {
    let dir = tempfile::tempdir().unwrap();
    let store = common::open(dir.path());
    let mut sent: Vec<_> = (0..COUNT).map(|number| send(&store, number)).collect();
    // From here on only topic1 gets messages.
    sent.extend((0..COUNT).map(|number| send(&store, 1 + 3 * number)));
    let last_of = |topic: &str| sent.iter().rfind(|it| it.topic == topic).unwrap();
    let end = last_of("topic0").end.0;
    store.checkpoint_step(&mut |_| {}).unwrap();
    while store.log_min().0 < end {
        assert_eq!(store.delete_older(i64::MAX, 1).unwrap(), 1);
    }
    store.close().unwrap();
    drop(store);
    let bounds = |store: &Store| {
        ["topic0", "topic1", "topic2"].map(|topic| {
            [0, 1]
                .map(|id| store.queue_bounds(topic, apogee_types::QueueId::from_wire(id).unwrap()))
        })
    };
    let store = common::open(dir.path());
    let before = bounds(&store);
    store.close().unwrap();
    drop(store);
    let filled = Filled { dir, sent };
    finds(&filled, &[]);
    repairs(&filled, &Old::Aside("bak".to_owned()));
    assert_eq!(bounds(&filled.open()), before);
}

#[test]
fn a_repair_of_a_store_in_use_is_refused() {
    let filled = Filled::clean();
    let view = View::open(filled.root(), None, Live::Refuse).unwrap();
    let plan = Plan::new(&view, settings(filled.root()), &Report::default());
    drop(view);
    let store = filled.open();
    let refused = plan.run(&Old::Delete, Arc::default());
    assert!(matches!(refused, Err(Error::Locked { .. })));
    common::check_served(&store, &filled.sent);
}

/// Apache deletes index files that are newer than the checkpoint says, when it takes over from a
/// process that was killed.
#[test]
fn while_a_store_runs_its_checkpoint_vouches_for_the_whole_index() {
    let dir = tempfile::tempdir().unwrap();
    let store = common::open(dir.path());
    (0..COUNT).for_each(|number| drop(send(&store, number)));
    store.checkpoint_step(&mut |_| {}).unwrap();
    let last = (0..COUNT).map(|number| send(&store, number)).last().unwrap();
    store.prepare_step().unwrap();
    // As by kill -9.
    drop(store);
    let bytes = std::fs::read(dir.path().join("checkpoint")).unwrap();
    assert_eq!(bytes[16..24], last.stored_ms.to_be_bytes());
}
