//! What an operator is told of peers that send what no client should: a few lines, and how many
//! were left out. Who sends it as fast as it can must not fill the disk with lines.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// Lines of all peers together in each [`PERIOD`].
const COUNT_MAX: u32 = 20;
const PERIOD: Duration = Duration::from_secs(10);

/// The lines of the current period, which begins with the first.
pub struct Complaints {
    state: Mutex<State>,
}

struct State {
    began: Instant,
    count: u32,
    left_out: u64,
}

impl Default for Complaints {
    fn default() -> Self {
        let state = State { began: Instant::now(), count: 0, left_out: 0 };
        Self { state: Mutex::new(state) }
    }
}

impl Complaints {
    /// Tells by `line`, if there may be one more.
    pub fn tell(&self, line: impl FnOnce()) {
        self.sum_up();
        let mut state = self.state.lock();
        if state.count == 0 {
            state.began = Instant::now();
        }
        if state.count < COUNT_MAX {
            state.count += 1;
            drop(state);
            line();
        } else {
            state.left_out += 1;
        }
    }

    /// At the end of a period, tells how much was left out in it.
    pub fn sum_up(&self) {
        let mut state = self.state.lock();
        if state.count == 0 || state.began.elapsed() < PERIOD {
            return;
        }
        let left_out = state.left_out;
        *state = State { began: Instant::now(), count: 0, left_out: 0 };
        drop(state);
        if 0 < left_out {
            tracing::warn!(left_out, "more requests were refused, or connections cut off");
        }
    }
}
