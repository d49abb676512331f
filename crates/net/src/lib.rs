//! Opens sockets and moves bytes. The only crate that does.

pub mod admission;
pub mod connection;
pub mod lane;
pub mod outbox;
pub mod transport;

pub use admission::Admission;
pub use connection::{Closed, Session, pump};
pub use lane::Lane;
pub use outbox::Outbox;
pub use transport::{Listener, Stream, Tcp, Transport};
