//! What the coordinator is told and has not looked at yet: merged, so that it stays small and
//! nothing of it is dropped.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use apogee_types::route::MessageQueue;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::notices::Notice;

#[derive(Default)]
pub(super) struct Inbox {
    news: Mutex<News>,
    arrived: Notify,
}

#[derive(Default)]
pub(super) struct News {
    pub has_new_members: bool,
    /// Peers to which the connection ended.
    pub lost: BTreeSet<Arc<str>>,
    /// From where an operator wants queues to be read.
    pub resets: BTreeMap<MessageQueue, i64>,
}

impl Inbox {
    /// Keeps what concerns this group.
    pub fn put(&self, notice: &Notice, own: &str) {
        {
            let mut news = self.news.lock();
            match notice {
                Notice::MembersChanged { group } if group == own => news.has_new_members = true,
                Notice::OffsetsReset { group, offsets, .. } if group == own => {
                    news.resets.extend(offsets.iter().map(|(queue, at)| (queue.clone(), *at)));
                }
                Notice::ConnectionLost { addr } => drop(news.lost.insert(Arc::clone(addr))),
                _ => return,
            }
        }
        self.arrived.notify_one();
    }

    /// Waits for news. For one waiter.
    pub async fn take(&self) -> News {
        self.arrived.notified().await;
        std::mem::take(&mut *self.news.lock())
    }
}
