//! The life of a queue that is a member's, in a task of its own: takes its lock and holds it, finds
//! where to begin, commits how far it is. What ails one queue or its broker delays no other.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use apogee_types::json;
use apogee_types::route::MessageQueue;
use apogee_wire::remoting::bodies::{LockBatchRequestBody, LockBatchResponseBody};
use apogee_wire::remoting::requests::{LockBatchMq, UnlockBatchMq, UpdateConsumerOffset};
use bytes::Bytes;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};

use super::reader::Reading;
use super::window::Window;
use super::{Member, offsets};
use crate::Error;

/// Upstream's `persistConsumerOffsetInterval`.
const COMMIT_PERIOD: Duration = Duration::from_secs(5);
/// Upstream's `rebalanceLockInterval`.
const LOCK_PERIOD: Duration = Duration::from_secs(20);
/// Half of what the broker gives, so that ours ends first; upstream's `rebalanceLockMaxLiveTime`.
const LEASE: Duration = Duration::from_secs(30);
/// Before what a broker refused is tried again.
const PAUSE: Duration = Duration::from_secs(1);

/// Why a queue is no longer read, or not as before.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum End {
    /// Another member reads on.
    GivenUp,
    /// The member leaves its group.
    Leaving,
    /// The topic is gone: how far the group was means nothing any more.
    Forgotten,
    /// Not the last end: it is read from here on.
    Moved(i64),
    /// Not the last end: another has the lock, or had it and read on.
    LockLost,
}

/// Reads a queue, from `place` on if there is one, until `ends` says so for good. Gives where it
/// stopped, if only we know that.
pub(super) async fn read(
    member: Arc<Member>,
    queue: MessageQueue,
    mut place: Option<i64>,
    mut ends: watch::Receiver<Option<End>>,
) -> Option<i64> {
    let keeper = Keeper { member, queue, lease: watch::channel(Instant::now()).0 };
    let mut pause = Duration::ZERO;
    loop {
        let begun = tokio::select! {
            biased;
            end = next(&mut ends) => Err(end),
            begun = keeper.begin(place, pause) => Ok(begun),
        };
        let (offset, committed) = match begun {
            Ok(begun) => begun,
            Err(End::Moved(offset)) => {
                place = Some(offset);
                continue;
            }
            Err(_) => break,
        };
        let leased = keeper.lease.subscribe();
        let mut reading = Reading::start(&keeper.member, &keeper.queue, offset, leased);
        let window = Arc::clone(&reading.window);
        let end = tokio::select! {
            biased;
            end = next(&mut ends) => end,
            moved = reading.moved() => End::Moved(moved),
            () = keeper.hold_lock(&window) => End::LockLost,
            () = keeper.commit_often(&window, committed) => unreachable!("it never ends"),
        };
        keeper.finish(&mut reading, end, committed).await;
        place = match end {
            End::Moved(offset) => Some(offset),
            _ => Some(window.done_below()).filter(|_| !keeper.member.is_clustering()),
        };
        if matches!(end, End::GivenUp | End::Leaving | End::Forgotten) {
            break;
        }
        // A broker that moves us again and again is not asked as fast as it answers.
        pause = PAUSE;
    }
    keeper.unlock().await;
    place
}

/// The end that was said last, once it was not seen yet.
async fn next(ends: &mut watch::Receiver<Option<End>>) -> End {
    // Fails only when the coordinator is gone, and with it this task.
    let _ = ends.changed().await;
    ends.borrow_and_update().unwrap_or(End::Forgotten)
}

struct Keeper {
    member: Arc<Member>,
    queue: MessageQueue,
    /// Until when our lock on the broker counts.
    lease: watch::Sender<Instant>,
}

impl Keeper {
    /// Waits until the queue may be read. The first offset to pull, and what the group has
    /// committed.
    async fn begin(&self, mut place: Option<i64>, mut pause: Duration) -> (i64, Option<i64>) {
        loop {
            if !pause.is_zero() {
                sleep(pause).await;
            }
            pause = PAUSE;
            match self.try_begin(&mut place).await {
                Ok(Some(first)) => {
                    let MessageQueue { topic, broker_name, queue_id } = &self.queue;
                    tracing::info!(group = %self.member.group, %topic, broker = %broker_name,
                        queue_id, offset = first.0, "reads a queue");
                    return first;
                }
                Ok(None) => {}
                Err(error) => self.warn(&error, "the queue is not begun"),
            }
        }
    }

    /// `None` if another holds the lock.
    async fn try_begin(
        &self,
        place: &mut Option<i64>,
    ) -> Result<Option<(i64, Option<i64>)>, Error> {
        if self.member.is_locking() {
            let Some(until) = self.lock().await? else {
                // It may read on from there.
                *place = None;
                return Ok(None);
            };
            self.lease.send_replace(until);
        }
        match *place {
            Some(offset) => Ok(Some((offset, None))),
            None => offsets::first(&self.member, &self.queue).await.map(Some),
        }
    }

    /// Stops reading, and commits: at once, whatever the handler takes its time for, and once more
    /// when it is done if nobody else reads before.
    async fn finish(&self, reading: &mut Reading, end: End, committed: Option<i64>) {
        reading.stop();
        let window = Arc::clone(&reading.window);
        let last = || match end {
            End::GivenUp | End::Leaving => Some(window.done_below()),
            End::Moved(offset) => Some(offset),
            End::Forgotten | End::LockLost => None,
        };
        let at_once = last();
        let is_news = at_once != committed || matches!(end, End::Moved(_));
        self.commit_last(at_once.filter(|_| is_news)).await;
        tokio::select! {
            biased;
            () = reading.ended() => {}
            () = self.hold_lock(&window) => reading.ended().await,
        }
        if self.member.is_locking() || end == End::Leaving {
            self.commit_last(last().filter(|_| last() != at_once)).await;
        }
    }

    /// Commits every few seconds how far the queue is, where that is news.
    async fn commit_often(&self, window: &Window, mut committed: Option<i64>) {
        if !self.member.is_clustering() {
            return pending().await;
        }
        loop {
            sleep(COMMIT_PERIOD).await;
            let offset = window.done_below();
            if committed == Some(offset) {
                continue;
            }
            match self.commit_oneway(offset).await {
                Ok(()) => committed = Some(offset),
                Err(error) => self.warn(&error, "not committed"),
            }
        }
    }

    async fn commit_oneway(&self, offset: i64) -> Result<(), Error> {
        let Member { client, group, .. } = &*self.member;
        let addr = client.master_of(&self.queue).await?;
        let request = UpdateConsumerOffset {
            consumer_group: group.to_string(),
            topic: self.queue.topic.to_string(),
            queue_id: self.queue.queue_id,
            commit_offset: offset,
        };
        client.oneway::<UpdateConsumerOffset>(&addr, &request, Bytes::new()).await
    }

    /// Commits and waits for the broker to say so.
    async fn commit_last(&self, offset: Option<i64>) {
        let Member { client, group, .. } = &*self.member;
        if let Some(offset) = offset.filter(|_| self.member.is_clustering())
            && let Err(error) = client.commit_offset(group, &self.queue, offset).await
        {
            self.warn(&error, "not committed");
        }
    }

    /// Holds the lock, if there is one, until it is lost.
    async fn hold_lock(&self, window: &Window) {
        if !self.member.is_locking() {
            return pending().await;
        }
        loop {
            let renewal = *self.lease.borrow() - (LEASE - LOCK_PERIOD);
            sleep_until(renewal).await;
            match self.renew_lock(window).await {
                Ok(true) => {}
                Ok(false) => {
                    let (group, topic) = (&self.member.group, &self.queue.topic);
                    tracing::warn!(%group, %topic, queue_id = self.queue.queue_id,
                        "another holds the lock, or did and read on");
                    return;
                }
                Err(error) => {
                    self.warn(&error, "the lock is not renewed");
                    sleep(PAUSE).await;
                }
            }
        }
    }

    /// `false` if another has the lock, or had it after our lease had ended, and read on.
    async fn renew_lock(&self, window: &Window) -> Result<bool, Error> {
        let Some(until) = self.lock().await? else { return Ok(false) };
        let has_lapsed = *self.lease.borrow() <= Instant::now();
        if has_lapsed {
            let Member { client, group, .. } = &*self.member;
            let committed = client.committed_offset(group, &self.queue, false).await?;
            if committed.is_some_and(|offset| window.done_below() < offset) {
                return Ok(false);
            }
        }
        self.lease.send_replace(until);
        Ok(true)
    }

    /// Takes or renews the lock: until when it counts, or `None` if another holds it.
    async fn lock(&self) -> Result<Option<Instant>, Error> {
        let until = Instant::now() + LEASE;
        let client = &self.member.client;
        let addr = client.master_of(&self.queue).await?;
        let answer = client.call::<LockBatchMq>(&addr, &LockBatchMq {}, self.lock_body()).await?;
        let locked = answer.json::<LockBatchResponseBody>()?.lock_ok_mq_set;
        Ok(locked.contains(&self.queue).then_some(until))
    }

    async fn unlock(&self) {
        if !self.member.is_locking() {
            return;
        }
        let client = &self.member.client;
        let Ok(addr) = client.master_of(&self.queue).await else { return };
        let body = self.lock_body();
        if let Err(error) = client.call::<UnlockBatchMq>(&addr, &UnlockBatchMq {}, body).await {
            tracing::debug!(group = %self.member.group, %addr, %error, "not unlocked");
        }
    }

    fn lock_body(&self) -> Bytes {
        let body = LockBatchRequestBody {
            client_id: self.member.client.id().to_string(),
            consumer_group: self.member.group.to_string(),
            mq_set: vec![self.queue.clone()],
            only_this_broker: false,
        };
        json::write(&body).into()
    }

    fn warn(&self, error: &Error, what: &str) {
        let MessageQueue { topic, broker_name, queue_id } = &self.queue;
        let group = &self.member.group;
        tracing::warn!(%group, %topic, broker = %broker_name, queue_id, %error, "{what}");
    }
}
