//! What others want to tell a peer: answers to parked requests, and requests of our own.

use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Waker};

use apogee_wire::output::Output;
use parking_lot::Mutex;

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
    waker: Option<Waker>,
    closed: bool,
}

impl Outbox {
    /// Lets `write` append whole frames, and wakes the pump. `false` if the peer is gone or reads
    /// too slowly: then nothing was written.
    pub fn put(&self, write: impl FnOnce(&mut Output)) -> bool {
        let waker = {
            let mut state = self.state.lock();
            if state.closed || LEN_MAX < state.output.len() {
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
    pub(crate) fn drain(&self, cx: &mut Context<'_>, output: &mut Output) -> bool {
        let mut state = self.state.lock();
        if self.filled.swap(false, Ordering::Acquire) {
            output.append(&mut state.output);
        }
        if !state.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            state.waker = Some(cx.waker().clone());
        }
        !state.closed
    }
}
