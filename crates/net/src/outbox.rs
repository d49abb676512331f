//! What others want to tell a peer: answers to parked requests, and requests of our own.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Waker};

use apogee_wire::output::Output;
use parking_lot::Mutex;

use crate::Admission;
use crate::admission::{FREE_LEN, Share};

/// Bytes that may wait for one connection. A peer that reads nothing while this much piles up
/// loses what comes after; it will ask again.
const LEN_MAX: usize = 8 * 1024 * 1024;

/// Frames for one connection, put in by anyone, taken out by its pump.
#[derive(Debug, Default)]
pub struct Outbox {
    state: Mutex<State>,
    /// Mirrors whether `state.output` holds something, so that the pump need not lock to look.
    filled: AtomicBool,
}

#[derive(Debug, Default)]
struct State {
    output: Output,
    share: Share,
    waker: Option<Waker>,
    closed: bool,
}

impl Outbox {
    /// One whose bytes count for the budget of all connections.
    #[must_use]
    pub fn new(admission: &Arc<Admission>) -> Self {
        let state = State { share: Share::new(admission), ..State::default() };
        Self { state: Mutex::new(state), ..Self::default() }
    }

    /// Lets `write` append whole frames, and wakes the pump. `false` if the peer is gone or reads
    /// too slowly: then nothing was written.
    pub fn put(&self, write: impl FnOnce(&mut Output)) -> bool {
        let waker = {
            let mut state = self.state.lock();
            let held = state.output.bytes.capacity();
            if state.closed || LEN_MAX < state.output.len() || !state.share.allows(held) {
                return false;
            }
            write(&mut state.output);
            self.filled.store(true, Ordering::Release);
            state.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
        true
    }

    /// Asks the pump to close the connection, after what was put before.
    pub fn close(&self) {
        let waker = {
            let mut state = self.state.lock();
            state.closed = true;
            state.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.state.lock().closed
    }

    /// Moves what waits to the end of `output`; `false` once the outbox was closed. Registers the
    /// pump's waker.
    pub(crate) fn drain(
        &self,
        cx: &mut Context<'_>,
        output: &mut Output,
        share: &mut Share,
    ) -> bool {
        let mut state = self.state.lock();
        let state = &mut *state;
        if self.filled.swap(false, Ordering::Acquire) {
            if output.is_empty() {
                std::mem::swap(output, &mut state.output);
                std::mem::swap(share, &mut state.share);
            } else {
                output.append(&mut state.output);
            }
            if FREE_LEN < state.output.bytes.capacity() {
                state.output = Output::default();
                share.take_over(&mut state.share);
            }
        }
        if !state.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            state.waker = Some(cx.waker().clone());
        }
        !state.closed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(outbox: &Outbox) -> bool {
        outbox.put(|output| output.bytes.extend_from_slice(&[0; 32 * 1024]))
    }

    #[test]
    fn who_reads_nothing_takes_no_more_of_the_common_memory_than_there_is() {
        let admission = Arc::new(Admission::of(1024 * 1024));
        let greedy: Vec<_> = (0..4).map(|_| Outbox::new(&admission)).collect();
        let count = greedy.iter().flat_map(|outbox| (0..500).filter(|_| put(outbox))).count();
        assert!((32..64).contains(&count), "{count} answers of 32 KiB");
        let honest = Outbox::new(&admission);
        let (mut output, mut share) = (Output::default(), Share::new(&admission));
        for _ in 0..100 {
            assert!(put(&honest), "who reads is served");
            honest.drain(&mut Context::from_waker(Waker::noop()), &mut output, &mut share);
            output.clear();
        }
        drop(greedy);
        assert_eq!((0..20).filter(|_| put(&honest)).count(), 20, "all was given back");
    }
}
