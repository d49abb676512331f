//! Topics and groups that were created, changed or removed, and what their files do not have of it
//! yet. Who caused it is answered once they do, and so is who sends to what was created: of a topic
//! that is not in its file nobody would see the messages after a restart.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker};

use apogee_store::Watermark;
use apogee_types::LogOffset;
use parking_lot::Mutex;

use crate::Map;

/// Creations and changes, numbered from 1. Topics and groups of the same name are not told apart:
/// who waits for both waits for one write.
#[derive(Default)]
pub struct Created {
    state: Mutex<State>,
    /// Mirrors whether there are names, for sends: mostly there are none.
    has_names: AtomicBool,
    /// Up to which number the files have them; not a place in the log, but it grows like one.
    written: Watermark,
}

#[derive(Default)]
struct State {
    /// The number of the last creation or change.
    last: u64,
    /// Names that the files do not have, with the number of their creation.
    names: Map<Arc<str>, u64>,
    writer: Option<Waker>,
}

impl Created {
    /// Notes a creation and returns its number. To be called before others can see it.
    pub(crate) fn note(&self, name: &Arc<str>) -> u64 {
        self.next(|state, number| {
            state.names.insert(Arc::clone(name), number);
            self.has_names.store(true, Ordering::Release);
        })
    }

    /// Notes that what is there was changed or removed, and returns the number of that. Only who
    /// did it waits for the file.
    pub(crate) fn note_change(&self) -> u64 {
        self.next(|_, _| {})
    }

    fn next(&self, note: impl FnOnce(&mut State, u64)) -> u64 {
        let (number, writer) = {
            let mut state = self.state.lock();
            state.last += 1;
            let number = state.last;
            note(&mut state, number);
            (number, state.writer.take())
        };
        if let Some(writer) = writer {
            writer.wake();
        }
        number
    }

    /// Which number must be written before anybody is told of what was done with this name; 0 if
    /// the files know it.
    #[must_use]
    pub fn number(&self, name: &str) -> u64 {
        if !self.has_names.load(Ordering::Acquire) {
            return 0;
        }
        self.state.lock().names.get(name).copied().unwrap_or(0)
    }

    /// The number of the last creation or change.
    pub(crate) fn last(&self) -> u64 {
        self.state.lock().last
    }

    /// The files have everything up to there.
    pub(crate) fn written(&self, number: u64) {
        {
            let mut state = self.state.lock();
            state.names.retain(|_, it| number < *it);
            self.has_names.store(!state.names.is_empty(), Ordering::Release);
        }
        self.written.advance(LogOffset(number));
    }

    /// Ready once the files have what that number stands for; else the task is woken then.
    pub fn poll_written(&self, cx: &mut Context<'_>, number: u64) -> Poll<()> {
        self.written.poll_reached(cx, LogOffset(number)).map(|_| ())
    }

    /// Ready once there is something to write, else the task is woken then; for one task.
    pub fn poll_unwritten(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.state.lock();
        if self.written.get().0 < state.last {
            return Poll::Ready(());
        }
        state.writer = Some(cx.waker().clone());
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_comes_while_the_files_are_written_waits_for_the_next_time() {
        let (created, mut cx) = (Created::default(), Context::from_waker(Waker::noop()));
        assert_eq!(created.number("a"), 0);
        assert!(created.poll_unwritten(&mut cx).is_pending());
        created.note(&"a".into());
        assert!(created.poll_unwritten(&mut cx).is_ready());
        let under_way = created.last();
        created.note(&"b".into());
        let (a, b) = (created.number("a"), created.number("b"));
        created.written(under_way);
        assert!(created.poll_written(&mut cx, a).is_ready());
        assert!(created.poll_written(&mut cx, b).is_pending());
        assert_eq!((created.number("a"), created.number("b")), (0, b));
        created.written(created.last());
        assert!(created.poll_written(&mut cx, b).is_ready());
        assert!(created.poll_unwritten(&mut cx).is_pending());
        let change = created.note_change();
        assert!(created.poll_unwritten(&mut cx).is_ready());
        assert!(created.poll_written(&mut cx, change).is_pending());
        created.written(created.last());
        assert!(created.poll_written(&mut cx, change).is_ready());
    }
}
