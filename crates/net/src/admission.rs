//! The memory that connections may fill with bytes that are not yet handled, or not yet written.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// What each buffer of a connection may hold without asking: many whole frames of ordinary size.
pub const FREE_LEN: usize = 64 * 1024;

/// Buffers beyond [`FREE_LEN`], of all connections together.
const EXTRA_LEN_MAX: usize = 1 << 30;

/// A shared budget of bytes. A connection that gets none reads no further until others are done,
/// and writes what it has before it answers more.
#[derive(Debug)]
pub struct Admission {
    left: AtomicUsize,
}

impl Default for Admission {
    fn default() -> Self {
        Self::of(EXTRA_LEN_MAX)
    }
}

impl Admission {
    #[must_use]
    pub fn of(len: usize) -> Self {
        Self { left: AtomicUsize::new(len) }
    }

    /// Takes `len` bytes, all or nothing.
    fn take(&self, len: usize) -> bool {
        let less = |left: usize| left.checked_sub(len);
        self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).is_ok()
    }

    fn give_back(&self, len: usize) {
        self.left.fetch_add(len, Ordering::Relaxed);
    }
}

/// What one buffer has of the budget.
#[derive(Debug, Default)]
pub struct Share {
    admission: Arc<Admission>,
    taken: usize,
}

impl Share {
    pub fn new(admission: &Arc<Admission>) -> Self {
        Self { admission: Arc::clone(admission), taken: 0 }
    }

    /// Whether the buffer may have that length: takes for it what is not taken yet.
    pub fn allows(&mut self, len: usize) -> bool {
        let extra = len.saturating_sub(FREE_LEN + self.taken);
        let is_allowed = extra == 0 || self.admission.take(extra);
        if is_allowed {
            self.taken += extra;
        }
        is_allowed
    }

    /// What the other buffer held is in this one now.
    pub fn take_over(&mut self, other: &mut Self) {
        self.taken += std::mem::take(&mut other.taken);
    }

    /// The buffer is gone.
    pub fn give_back(&mut self) {
        self.admission.give_back(std::mem::take(&mut self.taken));
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.give_back();
    }
}
