//! How many messages had come and gone at the last midnights: tools tell of yesterday by it.

use apogee_types::Millis;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use parking_lot::Mutex;

/// Counts since the start of the process.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    pub put: u64,
    pub got: u64,
}

/// The counts when today began, and when yesterday did; 0 before the start.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Mornings {
    pub today: Counts,
    pub yesterday: Counts,
}

/// Mornings, and the day that is today.
#[derive(Default)]
pub struct Days {
    state: Mutex<(Option<Date>, Mornings)>,
}

impl Days {
    /// To be told every few seconds.
    pub fn note(&self, now: Millis, counts: Counts) {
        let time = jiff::Timestamp::from_millisecond(now).unwrap_or_default();
        let day = TimeZone::system().to_datetime(time).date();
        let (today, mornings) = &mut *self.state.lock();
        if today.replace(day).is_some_and(|before| before < day) {
            *mornings = Mornings { today: counts, yesterday: mornings.today };
        }
    }

    #[must_use]
    pub fn mornings(&self) -> Mornings {
        self.state.lock().1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_morning_is_the_first_look_of_a_day() {
        const DAY: Millis = 24 * 3_600_000;
        let noon = 1_767_225_600_000 + DAY / 2;
        let days = Days::default();
        let counts = |put| Counts { put, got: put / 2 };
        let mornings =
            |today, yesterday| Mornings { today: counts(today), yesterday: counts(yesterday) };
        for (now, put, expected) in [
            (noon, 10, mornings(0, 0)),
            (noon + 10, 20, mornings(0, 0)),
            (noon + DAY, 30, mornings(30, 0)),
            (noon + DAY + 10, 40, mornings(30, 0)),
            // The clock was set back.
            (noon, 50, mornings(30, 0)),
            (noon + 2 * DAY, 60, mornings(60, 30)),
        ] {
            days.note(now, counts(put));
            assert_eq!(days.mornings(), expected, "{now}");
        }
    }
}
