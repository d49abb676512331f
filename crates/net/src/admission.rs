//! The memory that connections may fill with bytes that are not yet handled.

use std::sync::atomic::{AtomicUsize, Ordering};

/// What a connection may buffer without asking: many whole frames of ordinary size.
pub const FREE_LEN: usize = 64 * 1024;

/// Buffers beyond [`FREE_LEN`], of all connections together.
const EXTRA_LEN_MAX: usize = 1 << 30;

/// A shared budget of bytes. A connection that gets none reads no further until others are done.
#[derive(Debug, Default)]
pub struct Admission {
    used: AtomicUsize,
}

impl Admission {
    /// Takes `len` bytes, all or nothing.
    pub fn take(&self, len: usize) -> bool {
        let grown = |used: usize| used.checked_add(len).filter(|sum| *sum <= EXTRA_LEN_MAX);
        self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, grown).is_ok()
    }

    pub fn give_back(&self, len: usize) {
        self.used.fetch_sub(len, Ordering::Relaxed);
    }
}
