//! Opens sockets and moves bytes. The only crate that does.

pub mod admission;
pub mod connection;
pub mod outbox;
pub mod transport;

pub use admission::Admission;
pub use connection::{Closed, Session, pump};
pub use outbox::Outbox;
pub use transport::{Listener, Stream, Tcp, Transport};
