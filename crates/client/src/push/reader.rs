//! Reads a queue from one offset on: a task that pulls and a task that hands to the handler.

use std::future::{Future, pending, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use apogee_types::route::{BrokerData, MessageQueue};
use apogee_types::subscription::SubscriptionData;
use apogee_wire::remoting::ResponseCode;
use tokio::sync::{OwnedSemaphorePermit, mpsc, watch};
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, sleep, timeout};

use super::send_back::Mark;
use super::window::Window;
use super::{Member, Outcome};
use crate::Error;
use crate::message::ReceivedMessage;
use crate::pull::{Pull, PullStatus};

/// How long a broker may hold a pull; upstream's `brokerSuspendMaxTimeMillis`.
const HOLD: Duration = Duration::from_secs(15);
/// Upstream's `pullTimeDelayMillsWhenException` since 4.6.1.
const ERROR_PAUSE: Duration = Duration::from_secs(1);
/// Upstream's pause when a broker asks for less.
const FLOW_PAUSE: Duration = Duration::from_millis(20);
/// After which a call of the handler is worth a word, since it holds the group's offset and one of
/// its permits; upstream's `consumeTimeout`.
const LONG_CALL: Duration = Duration::from_secs(15 * 60);
/// Upstream's `suspendCurrentQueueTimeMillis`.
const ORDERED_RETRY_PAUSE: Duration = Duration::from_secs(1);
/// Pulls that were not handed on yet; the window bounds their messages.
const PULLED_MAX: usize = 64;

/// A queue that is being read.
pub(super) struct Reading {
    pub window: Arc<Window>,
    stop: watch::Sender<bool>,
    /// Each gives where to read on if the broker says elsewhere.
    tasks: JoinSet<Option<i64>>,
}

impl Reading {
    pub fn start(
        member: &Arc<Member>,
        queue: &MessageQueue,
        offset: i64,
        leased: watch::Receiver<Instant>,
    ) -> Self {
        let window = Arc::new(Window::starting_at(offset));
        let (stop, stopped) = watch::channel(false);
        let reader = Arc::new(Reader {
            member: Arc::clone(member),
            queue: queue.clone(),
            subscription: member.subscriptions[&queue.topic].clone(),
            window: Arc::clone(&window),
            leased,
            stopped,
        });
        let (pulled, to_handle) = mpsc::channel(PULLED_MAX);
        let mut tasks = JoinSet::new();
        tasks.spawn(pull_often(Arc::clone(&reader), pulled));
        if member.settings.is_ordered {
            tasks.spawn(hand_on_in_order(reader, to_handle));
        } else {
            tasks.spawn(hand_on(reader, to_handle));
        }
        Self { window, stop, tasks }
    }

    /// Begins to stop: nothing more is pulled or handed on.
    pub fn stop(&self) {
        self.stop.send_replace(true);
    }

    /// Waits until the broker says that we are to read on elsewhere.
    pub async fn moved(&mut self) -> i64 {
        while let Some(ended) = self.tasks.join_next().await {
            if let Some(offset) = note_failure(ended) {
                return offset;
            }
        }
        pending().await
    }

    /// Waits until the calls of the handler that are under way have ended.
    pub async fn ended(&mut self) {
        while let Some(ended) = self.tasks.join_next().await {
            note_failure(ended);
        }
    }
}

fn note_failure(ended: Result<Option<i64>, JoinError>) -> Option<i64> {
    ended.unwrap_or_else(|error| {
        tracing::error!(%error, "the task of a queue failed");
        None
    })
}

/// What the two tasks share.
pub(super) struct Reader {
    pub member: Arc<Member>,
    pub queue: MessageQueue,
    subscription: SubscriptionData,
    pub window: Arc<Window>,
    leased: watch::Receiver<Instant>,
    stopped: watch::Receiver<bool>,
}

impl Reader {
    /// What `work` gives, or `None` if the queue stops first.
    pub async fn unless_stopped<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        let mut stopped = self.stopped.clone();
        tokio::select! {
            biased;
            _ = stopped.wait_for(|stopped| *stopped) => None,
            result = work => Some(result),
        }
    }

    /// Waits until the lock counts.
    async fn leased(&self) {
        if !self.member.is_locking() {
            return;
        }
        let mut leased = self.leased.clone();
        // Fails only when the queue is gone; then the task is stopped anyway.
        let _ = leased.wait_for(|until| Instant::now() < *until).await;
    }

    /// Calls the handler; a panic counts as [`Outcome::Retry`].
    pub async fn call(&self, messages: Vec<ReceivedMessage>) -> Outcome {
        let mut call = match catch_unwind(AssertUnwindSafe(|| (self.member.handler)(messages))) {
            Ok(call) => call,
            Err(_) => return self.panicked(),
        };
        let mut outcome = poll_fn(|cx| {
            let poll = catch_unwind(AssertUnwindSafe(|| call.as_mut().poll(cx)));
            poll.unwrap_or_else(|_| Poll::Ready(self.panicked()))
        });
        let mut runs_for = Duration::ZERO;
        loop {
            // Registers no timer for a handler that is done at once.
            match timeout(LONG_CALL, &mut outcome).await {
                Ok(outcome) => return outcome,
                Err(_) => runs_for += LONG_CALL,
            }
            let MessageQueue { topic, broker_name, queue_id } = &self.queue;
            let group = &self.member.group;
            tracing::warn!(%group, %topic, broker = %broker_name, queue_id, ?runs_for,
                "the handler is not done yet");
        }
    }

    fn panicked(&self) -> Outcome {
        let (group, topic) = (&self.member.group, &self.queue.topic);
        tracing::error!(%group, %topic, "the handler panicked; its messages will come again");
        Outcome::Retry
    }

    pub async fn permit(&self) -> OwnedSemaphorePermit {
        let permits = Arc::clone(&self.member.handler_permits);
        permits.acquire_owned().await.expect("the semaphore is never closed")
    }
}

/// Pulls until the queue stops, or the broker does not have the offset: then gives where to go on.
async fn pull_often(
    reader: Arc<Reader>,
    pulled: mpsc::Sender<Vec<ReceivedMessage>>,
) -> Option<i64> {
    let mut broker_id = BrokerData::MASTER_ID;
    loop {
        let pull = pull_once(&reader, &mut broker_id);
        let messages = match reader.unless_stopped(pull).await? {
            Ok(Reach::Found(messages)) => messages,
            Ok(Reach::Elsewhere(offset)) => return Some(offset),
            Err(error) => {
                let pause = match error.code() {
                    Some(ResponseCode::FLOW_CONTROL) => FLOW_PAUSE,
                    _ => {
                        warn_of_pull(&reader, &error);
                        ERROR_PAUSE
                    }
                };
                reader.unless_stopped(sleep(pause)).await?;
                continue;
            }
        };
        if !messages.is_empty() {
            reader.unless_stopped(pulled.send(messages)).await?.ok()?;
        }
    }
}

fn warn_of_pull(reader: &Reader, error: &Error) {
    let MessageQueue { topic, broker_name, queue_id } = &reader.queue;
    let group = &reader.member.group;
    tracing::warn!(%group, %topic, broker = %broker_name, queue_id, %error, "pull failed");
}

/// Where a pull led.
enum Reach {
    Found(Vec<ReceivedMessage>),
    /// The queue does not have the offset, or an operator wants another.
    Elsewhere(i64),
}

/// Waits for room, pulls, and moves the window.
async fn pull_once(reader: &Reader, broker_id: &mut i64) -> Result<Reach, Error> {
    reader.window.room().await;
    reader.leased().await;
    let member = &reader.member;
    let done_below = reader.window.done_below();
    let pull = Pull {
        group: &member.group,
        queue: &reader.queue,
        subscription: &reader.subscription,
        offset: reader.window.next(),
        max_count: member.settings.pull_count,
        commit: Some(done_below).filter(|offset| member.is_clustering() && 0 < *offset),
        hold: HOLD,
        broker_id: *broker_id,
    };
    let pulled = match member.client.pull(&pull).await {
        Ok(pulled) => pulled,
        Err(error) => {
            *broker_id = BrokerData::MASTER_ID;
            return Err(error);
        }
    };
    *broker_id = pulled.suggested_broker_id;
    if pulled.status == PullStatus::OffsetMoved {
        let (group, topic) = (&member.group, &reader.queue.topic);
        tracing::warn!(%group, %topic, queue_id = reader.queue.queue_id, asked = pull.offset,
            now = pulled.next_offset, "the queue does not have the offset");
        return Ok(Reach::Elsewhere(pulled.next_offset));
    }
    reader.window.pulled(&pulled.messages, pulled.next_offset);
    Ok(Reach::Found(pulled.messages))
}

/// Hands messages on as there are permits, several at a time.
async fn hand_on(
    reader: Arc<Reader>,
    mut pulled: mpsc::Receiver<Vec<ReceivedMessage>>,
) -> Option<i64> {
    let mut calls = JoinSet::new();
    while let Some(Some(messages)) = reader.unless_stopped(pulled.recv()).await {
        for batch in batches(messages, reader.member.settings.batch_len) {
            let Some(permit) = reader.unless_stopped(reader.permit()).await else { break };
            calls.spawn(handle(Arc::clone(&reader), batch, permit));
            while calls.try_join_next().is_some() {}
        }
    }
    while calls.join_next().await.is_some() {}
    None
}

async fn handle(reader: Arc<Reader>, messages: Vec<ReceivedMessage>, permit: OwnedSemaphorePermit) {
    let marks: Vec<Mark> = messages.iter().map(Mark::of).collect();
    let outcome = reader.call(messages).await;
    drop(permit);
    let delay_level = match outcome {
        Outcome::Leave => return,
        Outcome::Done => None,
        Outcome::Retry => Some(0),
        Outcome::RetryAt { delay_level } => Some(delay_level.into()),
    };
    for mark in &marks {
        match delay_level {
            Some(level) if reader.member.is_clustering() => {
                reader.retry(mark, level).await;
            }
            Some(_) => {
                let group = &reader.member.group;
                tracing::warn!(%group, id = mark.id, "not handled, and does not come again");
                reader.window.done(mark.offset.0 as i64);
            }
            None => reader.window.done(mark.offset.0 as i64),
        }
    }
}

/// Hands messages on one batch after the other.
async fn hand_on_in_order(
    reader: Arc<Reader>,
    mut pulled: mpsc::Receiver<Vec<ReceivedMessage>>,
) -> Option<i64> {
    while let Some(Some(messages)) = reader.unless_stopped(pulled.recv()).await {
        for batch in batches(messages, reader.member.settings.batch_len) {
            if !handle_in_order(&reader, batch).await {
                return None;
            }
        }
    }
    None
}

/// Calls the handler until it is done with the batch; `false` if the queue stopped before.
async fn handle_in_order(reader: &Reader, mut messages: Vec<ReceivedMessage>) -> bool {
    loop {
        let ready = async {
            reader.leased().await;
            reader.permit().await
        };
        let Some(permit) = reader.unless_stopped(ready).await else { return false };
        let outcome = reader.call(messages.clone()).await;
        drop(permit);
        if outcome == Outcome::Leave {
            // What follows would overtake them.
            return false;
        }
        if outcome == Outcome::Done {
            for message in &messages {
                reader.window.done(message.queue_offset.0 as i64);
            }
            return true;
        }
        let max = reader.member.settings.max_reconsume_times;
        let exhausted = |message: &ReceivedMessage| 0 <= max && max <= message.reconsume_times;
        let mut left = Vec::new();
        for message in messages {
            if exhausted(&message) && reader.bury(&message).await {
                reader.window.done(message.queue_offset.0 as i64);
            } else {
                left.push(message);
            }
        }
        messages = left;
        if messages.is_empty() {
            return true;
        }
        for message in &mut messages {
            message.reconsume_times += 1;
        }
        if reader.unless_stopped(sleep(ORDERED_RETRY_PAUSE)).await.is_none() {
            return false;
        }
    }
}

fn batches(
    messages: Vec<ReceivedMessage>,
    len: usize,
) -> impl Iterator<Item = Vec<ReceivedMessage>> {
    let mut messages = messages.into_iter();
    std::iter::from_fn(move || {
        let batch: Vec<_> = messages.by_ref().take(len).collect();
        Some(batch).filter(|batch| !batch.is_empty())
    })
}
