//! When the next message is due.

/// Times are nanoseconds since the load began.
pub enum Pace {
    /// At once, as far as the windows allow.
    Unbounded,
    /// On a schedule, whatever the server does.
    Rate { interval_ns: f64, taken: u64 },
    /// Some time after the one before has arrived.
    Alone { pause_ns: u64, due: Option<u64> },
}

impl Pace {
    pub fn rate(per_second: f64) -> Self {
        Self::Rate { interval_ns: 1e9 / per_second, taken: 0 }
    }

    pub fn alone(pause_ns: u64) -> Self {
        Self::Alone { pause_ns, due: Some(0) }
    }

    /// When the next message is due; `None` as long as something else must happen first.
    pub fn next(&self) -> Option<u64> {
        match *self {
            Self::Unbounded => Some(0),
            Self::Rate { interval_ns, taken } => Some((taken as f64 * interval_ns) as u64),
            Self::Alone { due, .. } => due,
        }
    }

    /// Takes the next message, if it is due; says since when it is, or `now` without a schedule.
    pub fn take(&mut self, now: u64) -> Option<u64> {
        let since = self.next().filter(|due| *due <= now)?;
        match self {
            Self::Unbounded => return Some(now),
            Self::Rate { taken, .. } => *taken += 1,
            Self::Alone { due, .. } => {
                *due = None;
                return Some(now);
            }
        }
        Some(since)
    }

    /// A message has arrived, or will not.
    pub fn arrived(&mut self, now: u64) {
        if let Self::Alone { pause_ns, due } = self {
            *due = Some(now + *pause_ns);
        }
    }

    pub fn is_scheduled(&self) -> bool {
        matches!(self, Self::Rate { .. })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stall_does_not_stop_the_schedule() {
        let mut pace = Pace::rate(1000.0);
        assert_eq!(pace.take(0), Some(0));
        assert_eq!(pace.take(999_999), None);
        // Three milliseconds later three messages are due, each since its own time.
        let due: Vec<_> = std::iter::from_fn(|| pace.take(3_000_000)).collect();
        assert_eq!(due, [1_000_000, 2_000_000, 3_000_000]);
    }

    #[test]
    fn one_at_a_time_waits_for_the_arrival() {
        let mut pace = Pace::alone(500);
        assert_eq!(pace.take(10), Some(10));
        assert_eq!(pace.take(10_000), None);
        pace.arrived(20_000);
        assert_eq!(pace.take(20_400), None);
        assert_eq!(pace.take(20_600), Some(20_600));
    }
}
