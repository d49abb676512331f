//! Virtual wall time: tokio's clock, which a simulation pauses, counted from a fixed date.

use apogee_types::{Clock, Millis};
use tokio::time::Instant;

/// 2026-01-01 00:00:00 UTC, so that times in a history look like times.
const EPOCH_MS: Millis = 1_767_225_600_000;

/// A wall clock that goes as tokio's clock does, off by `skew_ms`.
#[derive(Debug, Clone, Copy)]
pub struct SimClock {
    start: Instant,
    skew_ms: Millis,
}

impl SimClock {
    /// Starts at the epoch of the simulation. To be called within a runtime.
    #[must_use]
    pub fn start(skew_ms: Millis) -> Self {
        Self { start: Instant::now(), skew_ms }
    }

    /// The same clock as another machine shows it.
    #[must_use]
    pub fn with_skew(self, skew_ms: Millis) -> Self {
        Self { skew_ms, ..self }
    }
}

impl Clock for SimClock {
    fn now_ms(&self) -> Millis {
        EPOCH_MS + self.skew_ms + self.start.elapsed().as_millis() as Millis
    }
}
