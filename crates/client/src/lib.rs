//! Talks to a cluster: producer, consumers, admin.
//!
//! [`Client`] finds brokers and calls them; everything else stands on it and owns no sockets.
//! Tasks run on the caller's tokio runtime, belong to whoever started them and end with it.

mod admin;
mod client;
mod connection;
mod error;
mod link;
mod message;
mod notices;
mod producer;
mod pull;
mod push;
mod routes;
mod unique_key;

pub use client::{Client, Options};
pub use connection::Answer;
pub use error::Error;
pub use link::Link;
pub use message::{Message, ReceivedMessage, inflate};
pub use notices::Notice;
pub use producer::{Producer, ProducerBuilder, SendReceipt, SendStatus};
pub use pull::{PullConsumer, PullStatus, Pulled};
pub use push::{Outcome, PushConsumer, PushConsumerBuilder, StartFrom, share};
pub use routes::Route;
