//! What of a queue was pulled and is not done: decides how far the group may commit, and when to
//! stop pulling.

use std::collections::BTreeMap;

use tokio::sync::Notify;

use crate::message::ReceivedMessage;
use parking_lot::Mutex;

/// Upstream's `pullThresholdForQueue`.
const COUNT_MAX: usize = 1000;
/// Upstream's `pullThresholdSizeForQueue`.
const LEN_MAX: usize = 100 * 1024 * 1024;
/// Upstream's `consumeConcurrentlyMaxSpan`: one slow message must not make a crash repeat more.
const SPAN_MAX: i64 = 2000;

/// The messages between the committed offset and the pulled one.
pub(super) struct Window {
    state: Mutex<State>,
    /// Something was done: there may be room.
    room: Notify,
}

struct State {
    /// Length of each body that is not done, by offset.
    open: BTreeMap<i64, usize>,
    open_len: usize,
    /// Everything below was pulled.
    next: i64,
}

impl Window {
    pub fn starting_at(next: i64) -> Self {
        let state = State { open: BTreeMap::new(), open_len: 0, next };
        Self { state: Mutex::new(state), room: Notify::new() }
    }

    /// Everything below is done.
    pub fn done_below(&self) -> i64 {
        let state = self.state.lock();
        state.open.keys().next().copied().unwrap_or(state.next)
    }

    /// Where to pull next.
    pub fn next(&self) -> i64 {
        self.state.lock().next
    }

    /// These messages came, and the next pull starts at `next`.
    pub fn pulled(&self, messages: &[ReceivedMessage], next: i64) {
        let mut state = self.state.lock();
        for message in messages {
            state.open.insert(message.queue_offset.0 as i64, message.body.len());
            state.open_len += message.body.len();
        }
        state.next = next;
    }

    pub fn done(&self, offset: i64) {
        let mut state = self.state.lock();
        if let Some(len) = state.open.remove(&offset) {
            state.open_len -= len;
        }
        self.room.notify_one();
    }

    /// Waits until another pull is in order. For one waiter.
    pub async fn room(&self) {
        while self.is_full() {
            self.room.notified().await;
        }
    }

    fn is_full(&self) -> bool {
        let state = self.state.lock();
        let oldest = state.open.keys().next().copied().unwrap_or(state.next);
        COUNT_MAX <= state.open.len()
            || LEN_MAX <= state.open_len
            || SPAN_MAX <= state.next - oldest
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Waker};

    use apogee_types::QueueOffset;

    use super::*;
    use crate::message::tests::received;

    fn messages(offsets: std::ops::Range<u64>) -> Vec<ReceivedMessage> {
        let at = |offset| ReceivedMessage { queue_offset: QueueOffset(offset), ..received("T") };
        offsets.map(at).collect()
    }

    fn has_room(window: &Window) -> bool {
        let mut room = pin!(window.room());
        room.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready()
    }

    #[test]
    fn the_oldest_open_message_holds_the_offset() {
        let window = Window::starting_at(5);
        assert_eq!(window.done_below(), 5);
        window.pulled(&messages(5..8), 10);
        window.done(6);
        assert_eq!((window.done_below(), window.next()), (5, 10));
        window.done(5);
        assert_eq!(window.done_below(), 7);
        window.done(7);
        assert_eq!(window.done_below(), 10);
    }

    #[test]
    fn a_thousand_open_messages_or_a_wide_span_stop_the_pulling() {
        let window = Window::starting_at(0);
        window.pulled(&messages(0..999), 999);
        assert!(has_room(&window));
        window.pulled(&messages(999..1000), 1000);
        assert!(!has_room(&window));
        window.done(500);
        assert!(has_room(&window));
        window.pulled(&[], 2000);
        assert!(!has_room(&window), "the oldest is 2000 behind");
        window.done(0);
        assert!(has_room(&window));
    }
}
