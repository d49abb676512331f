//! What connections share: the memory that they may fill with bytes that are not yet handled, and
//! the turns of those that are sent much.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// What a connection may buffer without asking: many whole frames of ordinary size.
pub const FREE_LEN: usize = 64 * 1024;

/// Buffers beyond [`FREE_LEN`], of all connections together.
const EXTRA_LEN_MAX: usize = 1 << 30;

/// A shared budget of bytes, and of turns.
#[derive(Debug)]
pub struct Admission {
    /// Bytes. A connection that gets none reads no further until others are done.
    used: AtomicUsize,
    /// Of the connections that are sent much, one for each thread has its turn; the others wait
    /// here, where small requests do not stand behind them.
    bulky: Arc<Semaphore>,
    /// Turns that were taken.
    bulky_count: AtomicUsize,
}

/// After so many turns of connections that are sent much, all others have theirs; at 20 to 30 us
/// each, that is a hundred microseconds.
const BULKY_TURNS: usize = 4;

/// For the connections of the runtime that we are in.
impl Default for Admission {
    fn default() -> Self {
        let runtime = tokio::runtime::Handle::try_current();
        let thread_count = runtime.map_or(1, |runtime| runtime.metrics().num_workers());
        let (used, bulky_count) = Default::default();
        Self { used, bulky: Arc::new(Semaphore::new(thread_count)), bulky_count }
    }
}

impl Admission {
    /// Takes `len` bytes, all or nothing.
    pub fn take(&self, len: usize) -> bool {
        let grown = |used: usize| used.checked_add(len).filter(|sum| *sum <= EXTRA_LEN_MAX);
        self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, grown).is_ok()
    }

    /// The turn of a connection that is sent much, and whether others are to be let go first.
    pub(crate) async fn bulky_turn(&self) -> (OwnedSemaphorePermit, bool) {
        let turn = Arc::clone(&self.bulky).acquire_owned().await.expect("it is never closed");
        let count = self.bulky_count.fetch_add(1, Ordering::Relaxed);
        (turn, count.is_multiple_of(BULKY_TURNS))
    }

    pub fn give_back(&self, len: usize) {
        self.used.fetch_sub(len, Ordering::Relaxed);
    }
}
