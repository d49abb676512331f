//! A log offset that only grows and can be awaited, by tasks of any runtime.

use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};

use apogee_types::LogOffset;
use parking_lot::Mutex;

/// The offset will not be reached any more, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Failed(pub String);

/// Moves forward only; once failed it never moves again.
#[derive(Default)]
pub struct Watermark {
    reached: AtomicU64,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    failed: Option<Failed>,
    /// Who waits, for which offset. Each task once, so bounded by the number of tasks.
    waiting: Vec<(LogOffset, Waker)>,
}

impl Watermark {
    #[must_use]
    pub fn at(offset: LogOffset) -> Self {
        Self { reached: AtomicU64::new(offset.0), state: Mutex::default() }
    }

    #[must_use]
    pub fn get(&self) -> LogOffset {
        LogOffset(self.reached.load(Ordering::Acquire))
    }

    #[must_use]
    pub fn failure(&self) -> Option<Failed> {
        self.state.lock().failed.clone()
    }

    /// Moves to `offset`, if that is forward, and wakes who waited for it.
    pub fn advance(&self, offset: LogOffset) {
        let woken: Vec<Waker> = {
            let mut state = self.state.lock();
            if state.failed.is_some() || offset <= self.get() {
                return;
            }
            self.reached.store(offset.0, Ordering::Release);
            let is_reached = |it: &mut (LogOffset, Waker)| it.0 <= offset;
            state.waiting.extract_if(.., is_reached).map(|(_, waker)| waker).collect()
        };
        woken.into_iter().for_each(Waker::wake);
    }

    /// Nothing further will be reached; everyone who waits is told so.
    pub fn fail(&self, reason: String) {
        let woken: Vec<Waker> = {
            let mut state = self.state.lock();
            state.failed.get_or_insert(Failed(reason));
            state.waiting.drain(..).map(|(_, waker)| waker).collect()
        };
        woken.into_iter().for_each(Waker::wake);
    }

    /// Ready once `offset` is reached or cannot be any more; else the task is woken then.
    pub fn poll_reached(
        &self,
        cx: &mut Context<'_>,
        offset: LogOffset,
    ) -> Poll<Result<(), Failed>> {
        if offset <= self.get() {
            return Poll::Ready(Ok(()));
        }
        let mut state = self.state.lock();
        // Looked at again under the lock: `advance` may have come between.
        if offset <= self.get() {
            return Poll::Ready(Ok(()));
        }
        if let Some(failed) = &state.failed {
            return Poll::Ready(Err(failed.clone()));
        }
        match state.waiting.iter_mut().find(|(_, waker)| waker.will_wake(cx.waker())) {
            Some(waiting) => waiting.0 = waiting.0.min(offset),
            None => state.waiting.push((offset, cx.waker().clone())),
        }
        Poll::Pending
    }
}
