//! What is counted while a load runs.

use std::collections::BTreeMap;

use apogee_wire::remoting::ResponseCode;
use hdrhistogram::Histogram;

/// Times above are counted as this.
const TIME_MAX_NS: u64 = 600 * 1_000_000_000;

/// Times in nanoseconds, to three digits.
pub struct Times(Histogram<u32>);

/// One direction of a load.
#[derive(Default)]
pub struct Flow {
    pub messages: u64,
    pub bytes: u64,
    /// Of a send until its answer, of a pull until its answer, or of a message until a consumer
    /// has it.
    pub times: Times,
}

#[derive(Default)]
pub struct Tally {
    pub sent: Flow,
    pub received: Flow,
    /// How late messages left, compared with their schedule: our own part of what is measured.
    pub late: Times,
    /// Answers other than success.
    pub errors: BTreeMap<i32, u64>,
    /// Requests that were never answered, messages that never arrived.
    pub lost: u64,
}

impl Tally {
    pub fn error(&mut self, code: ResponseCode) {
        *self.errors.entry(code.0).or_default() += 1;
    }
}

impl Default for Times {
    fn default() -> Self {
        let histogram = Histogram::new_with_bounds(1, TIME_MAX_NS, 3);
        Self(histogram.expect("the bounds are in order"))
    }
}

impl Times {
    #[inline]
    pub fn record(&mut self, ns: u64) {
        self.0.saturating_record(ns);
    }

    /// `percent` of the times are not longer.
    pub fn percentile(&self, percent: f64) -> u64 {
        self.0.value_at_percentile(percent)
    }

    pub fn max(&self) -> u64 {
        self.0.max()
    }

    pub fn mean(&self) -> f64 {
        self.0.mean()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
