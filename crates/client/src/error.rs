//! What can go wrong, by who can act.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use apogee_types::names::NameError;
use apogee_types::subscription::SubscriptionError;
use apogee_wire::remoting::ResponseCode;

#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    // The caller can act.
    #[error(transparent)]
    Name(#[from] NameError),
    #[error(transparent)]
    Subscription(#[from] SubscriptionError),
    #[error("clients may not send to the system topic `{0}`")]
    NoSend(String),
    #[error("the property `{name}` is empty or holds a separator (U+0001, U+0002)")]
    Property { name: String },
    #[error("{what} of {len} bytes is longer than the {max} that are allowed")]
    TooLong { what: &'static str, len: usize, max: usize },
    #[error("this batch cannot be sent: {0}")]
    Batch(&'static str),
    #[error("`{0}` is no message id of a broker (32 or 56 hex digits)")]
    MessageId(String),
    #[error("this client has a consumer of the group `{group}` already")]
    Member { group: String },
    #[error("no name server is configured")]
    NoNameServer,
    #[error("no broker serves the topic `{topic}`; create it or enable autoCreateTopicEnable")]
    NoRoute { topic: String },
    #[error("no broker `{broker}` with the id {id} is known")]
    NoBroker { broker: String, id: i64 },
    #[error("the client is closed")]
    Closed,
    // The caller can try again, or elsewhere.
    #[error("cannot connect to {addr}: {cause}")]
    Unreachable { addr: Arc<str>, cause: Arc<io::Error> },
    #[error("the connection to {addr} ended before {request} was answered")]
    Lost { addr: Arc<str>, request: &'static str },
    #[error("{addr} did not answer {request} within {after:?}")]
    TimedOut { addr: Arc<str>, request: &'static str, after: Duration },
    // The peer refused; who can act depends on the code.
    #[error("{addr} refused {request}: {code}: {remark}")]
    Refused { addr: Arc<str>, request: &'static str, code: ResponseCode, remark: String },
    // The peer is at fault.
    #[error("{addr} answered {request} with {problem}")]
    Malformed { addr: Arc<str>, request: &'static str, problem: String },
}

impl Error {
    /// The peer was not reached or did not answer: another one may.
    #[must_use]
    pub fn is_transport(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::Lost { .. } | Self::TimedOut { .. })
    }

    /// The code with which a peer refused.
    #[must_use]
    pub fn code(&self) -> Option<ResponseCode> {
        match self {
            Self::Refused { code, .. } => Some(*code),
            _ => None,
        }
    }
}
