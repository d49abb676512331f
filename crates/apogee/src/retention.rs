//! When files of the log are deleted, and when there is no room for more. Spec `store.md` 10.

use apogee_store::Store;
use apogee_types::settings::StoreSettings;
use apogee_types::{Clock, Millis, SystemClock};

/// Hours, days and the fullness of the disk as they are set, looked at once.
pub fn step(store: &Store, policy: &StoreSettings) -> Result<(), apogee_store::Error> {
    let now = SystemClock.now_ms();
    let time = jiff::Timestamp::from_millisecond(now).unwrap_or_default();
    let hour = jiff::tz::TimeZone::system().to_datetime(time).hour();
    let is_asked = store.take_asked();
    if let Some(before_ms) = delete_before(policy, now, hour, percent(store)?, is_asked) {
        store.delete_older(before_ms, policy.delete_file_batch_max as usize)?;
    }
    store.set_over_limit(is_too_full(policy, percent(store)?));
    Ok(())
}

fn percent(store: &Store) -> Result<u8, apogee_store::Error> {
    Ok((store.fullest_disk_ratio()? * 100.0).round() as u8)
}

/// Messages are deleted that were stored before this time, by whole files; [`Millis::MAX`]: of any
/// time, since the disk is too full.
fn delete_before(
    policy: &StoreSettings,
    now: Millis,
    hour: i8,
    percent: u8,
    is_asked: bool,
) -> Option<Millis> {
    let at_once = policy.disk_space_clean_forcibly_ratio.clamp(30, 85);
    let is_fuller_than = |limit| limit < percent;
    if is_fuller_than(at_once) && policy.clean_file_forcibly_enable {
        return Some(Millis::MAX);
    }
    let is_time = policy.delete_when.0.iter().any(|it| i64::from(*it) == i64::from(hour));
    let is_full = is_fuller_than(policy.disk_max_used_space_ratio.clamp(10, 95).min(at_once));
    (is_time || is_full || is_asked).then(|| now - i64::from(policy.file_reserved_time) * 3_600_000)
}

/// Whether sends are refused.
fn is_too_full(policy: &StoreSettings, percent: u8) -> bool {
    policy.disk_space_warning_level_ratio.clamp(35, 90) < percent
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicI64, Ordering};

    use apogee_store::{RealDisk, Settings};
    use apogee_types::settings::Hours;
    use apogee_types::{Message, QueueId};

    use super::*;

    struct Turned(AtomicI64);

    impl Clock for Turned {
        fn now_ms(&self) -> Millis {
            self.0.load(Ordering::Relaxed)
        }
    }

    const NOW: Millis = 1_000 * HOUR;
    const HOUR: Millis = 3_600_000;

    #[test]
    fn files_go_at_their_hour_or_when_the_disk_is_full() {
        let policy = StoreSettings::default();
        let old = Some(NOW - 72 * HOUR);
        let all = Some(Millis::MAX);
        // Defaults: at 4 o'clock, above 75 %; above 85 % whatever their age.
        let expected = [(3, 10, None), (4, 10, old), (5, 75, None), (5, 76, old), (5, 85, old)];
        for (hour, percent, expected) in expected.into_iter().chain([(5, 86, all), (4, 100, all)]) {
            let found = delete_before(&policy, NOW, hour, percent, false);
            assert_eq!(found, expected, "at {hour} o'clock, {percent} %");
        }
        assert_eq!(delete_before(&policy, NOW, 3, 10, true), old, "an operator wants it");
        let gentle = StoreSettings { clean_file_forcibly_enable: false, ..policy.clone() };
        assert_eq!(delete_before(&gentle, NOW, 5, 99, false), old);
        let short = StoreSettings { file_reserved_time: 1, ..policy };
        assert_eq!(delete_before(&short, NOW, 4, 10, false), Some(NOW - HOUR));
    }

    #[test]
    fn who_asks_has_what_is_old_enough_deleted_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let clock = Arc::new(Turned(AtomicI64::new(SystemClock.now_ms() - 73 * HOUR)));
        let kept = Settings { segment_len: 1 << 16, ..Settings::at(dir.path()) };
        let store = Store::open(Arc::new(RealDisk), clock.clone(), kept).unwrap();
        let send = || {
            let queue = QueueId::from_wire(0).unwrap();
            store.append(&Message::new("t", queue, &[7; 40_000])).unwrap();
            store.flush_all().unwrap();
            store.dispatch(&mut |_| {});
        };
        // Each begins a segment.
        (0..3).for_each(|_| send());
        clock.0.store(SystemClock.now_ms() - HOUR, Ordering::Relaxed);
        (0..3).for_each(|_| send());
        store.checkpoint_step(&mut |_| {}).unwrap();
        let settings = StoreSettings {
            delete_when: Hours(Vec::new()),
            disk_max_used_space_ratio: 95,
            ..StoreSettings::default()
        };
        let log_min = || {
            step(&store, &settings).unwrap();
            store.log_min().0 >> 16
        };
        assert_eq!(log_min(), 0);
        store.ask_to_delete();
        // The next one's first message tells of a segment's last.
        assert_eq!(log_min(), 2);
        assert_eq!(store.queue_bounds("t", QueueId::from_wire(0).unwrap()).start.0, 2);
    }

    #[test]
    fn ratios_have_bounds_as_upstream() {
        let policy = StoreSettings {
            disk_max_used_space_ratio: 99,
            disk_space_clean_forcibly_ratio: 99,
            disk_space_warning_level_ratio: 99,
            ..StoreSettings::default()
        };
        assert_eq!(delete_before(&policy, NOW, 5, 85, false), None);
        assert_eq!(delete_before(&policy, NOW, 5, 86, false), Some(Millis::MAX));
        assert!(!is_too_full(&policy, 90));
        assert!(is_too_full(&policy, 91));
        let low = StoreSettings {
            disk_max_used_space_ratio: 1,
            disk_space_clean_forcibly_ratio: 1,
            disk_space_warning_level_ratio: 1,
            ..StoreSettings::default()
        };
        assert_eq!(delete_before(&low, NOW, 5, 10, false), None);
        assert_eq!(delete_before(&low, NOW, 5, 11, false), Some(NOW - 72 * HOUR));
        assert_eq!(delete_before(&low, NOW, 5, 31, false), Some(Millis::MAX));
        assert!(is_too_full(&low, 36) && !is_too_full(&low, 35));
    }
}
