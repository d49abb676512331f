//! What a broker tells a client unasked.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use apogee_types::json;
use apogee_types::route::MessageQueue;
use apogee_wire::remoting::bodies::ResetOffsetBody;
use apogee_wire::remoting::requests::{NotifyConsumerIdsChanged, ResetConsumerClientOffset};
use apogee_wire::remoting::{Fields, Request};
use parking_lot::Mutex;

use crate::connection::PeerRequest;

/// What a client learns unasked.
#[derive(Debug, Clone, PartialEq)]
pub enum Notice {
    /// Members joined or left this group, or subscribed to other topics.
    MembersChanged { group: String },
    /// An operator wants the group to go on from here.
    OffsetsReset { group: String, topic: String, offsets: BTreeMap<MessageQueue, i64> },
    /// The connection to this peer ended: it no longer knows of us.
    ConnectionLost { addr: Arc<str> },
}

impl Notice {
    /// `None` for what we do not know or cannot read.
    pub(crate) fn read(request: &PeerRequest<'_>) -> Option<Self> {
        const MEMBERS_CHANGED: i32 = NotifyConsumerIdsChanged::INFO.code;
        const OFFSETS_RESET: i32 = ResetConsumerClientOffset::INFO.code;
        match request.code {
            MEMBERS_CHANGED => {
                let it = NotifyConsumerIdsChanged::decode(request.fields).ok()?;
                Some(Self::MembersChanged { group: it.consumer_group })
            }
            OFFSETS_RESET => {
                let it = ResetConsumerClientOffset::decode(request.fields).ok()?;
                let offsets = json::read::<ResetOffsetBody>(request.body).ok()?.offset_table;
                Some(Self::OffsetsReset { group: it.group, topic: it.topic, offsets })
            }
            _ => None,
        }
    }
}

/// Takes a notice; must not block.
pub(crate) type Listener = dyn Fn(&Notice) + Send + Sync;

/// Those who want notices, as long as they live.
#[derive(Default)]
pub(crate) struct Listeners(Mutex<Vec<Weak<Listener>>>);

impl Listeners {
    pub fn add(&self, listener: &Arc<Listener>) {
        let mut listeners = self.0.lock();
        listeners.retain(|listener| listener.strong_count() != 0);
        listeners.push(Arc::downgrade(listener));
    }

    pub fn pass_on(&self, request: &PeerRequest<'_>) {
        match Notice::read(request) {
            Some(notice) => self.tell(&notice),
            None => tracing::debug!(code = request.code, "a request that this client knows not"),
        }
    }

    pub fn tell(&self, notice: &Notice) {
        let listeners: Vec<_> = self.0.lock().iter().filter_map(Weak::upgrade).collect();
        for listener in listeners {
            listener(notice);
        }
    }
}
