//! Where a connection is served: at the doors with all others, or, while it reads a backlog, by
//! threads of their own, which may wait for the disk and do not hold up a send.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;

use tokio::runtime::Handle;
use tokio::task::JoinSet;

/// Says where a connection's task is, and where it wants to be. Only the task and who polls it look
/// at it, one after the other.
#[derive(Debug, Default)]
pub struct Lane {
    has_backlog: bool,
    is_backlog: AtomicBool,
    wants_backlog: AtomicBool,
}

impl Lane {
    /// Goes on with the backlogs or at the doors; whether that is another runtime than before.
    pub(crate) async fn change(&self, to_backlog: bool) -> bool {
        let is_there = || self.is_backlog.load(Ordering::Relaxed) == to_backlog;
        if !self.has_backlog || is_there() {
            return false;
        }
        self.wants_backlog.store(to_backlog, Ordering::Relaxed);
        // Who polls us sees it, and does so next where we want to be.
        poll_fn(|_| if is_there() { Poll::Ready(()) } else { Poll::Pending }).await;
        true
    }
}

/// Runs the task of a connection, now here and now in the runtime `backlog`, if there is one. It
/// ends when what this returns is dropped, at the latest.
pub async fn run<T>(backlog: Option<Handle>, task: impl FnOnce(Arc<Lane>) -> T)
where
    T: Future<Output = ()> + Send + 'static,
{
    let lane = Arc::new(Lane { has_backlog: backlog.is_some(), ..Lane::default() });
    let mut task = Box::pin(task(Arc::clone(&lane)));
    let Some(backlog) = backlog else { return task.await };
    while !poll_in(&mut task, &lane, false).await {
        // When the set is dropped, so is the task.
        let mut there = JoinSet::new();
        let lane = Arc::clone(&lane);
        let work = async move {
            let is_over = poll_in(&mut task, &lane, true).await;
            (task, is_over)
        };
        there.spawn_on(work, &backlog);
        match there.join_next().await {
            Some(Ok((back, false))) => task = back,
            // It is over, has panicked and said so, or the process ends.
            _ => return,
        }
    }
}

/// Polls the task until it is over (`true`) or wants to be elsewhere.
async fn poll_in<T>(task: &mut Pin<Box<T>>, lane: &Lane, is_backlog: bool) -> bool
where
    T: Future<Output = ()>,
{
    lane.is_backlog.store(is_backlog, Ordering::Relaxed);
    poll_fn(|cx| {
        if task.as_mut().poll(cx).is_ready() {
            return Poll::Ready(true);
        }
        if is_backlog {
            // However low our priority, the scheduler may let the doors wait for its next tick,
            // which is milliseconds.
            std::thread::yield_now();
        }
        if lane.wants_backlog.load(Ordering::Relaxed) != is_backlog {
            return Poll::Ready(false);
        }
        Poll::Pending
    })
    .await
}
