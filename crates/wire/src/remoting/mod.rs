//! The protocol that RocketMQ's own clients, tools and servers speak. Spec `remoting.md`.

pub mod batch;
pub mod bodies;
pub mod codes;
pub mod fields;
pub mod frame;
pub mod header;
mod header_binary;
mod header_json;
pub mod requests;
pub mod shapes;
pub mod table;

pub use codes::{Language, ResponseCode};
pub use fields::{ExtFields, FieldError, FieldIndex, Fields, PutFields, Text};
pub use frame::{FrameError, FrameRef, HeaderEncoding};
pub use header::{Header, HeaderError, RequestHead, ResponseHead};
pub use shapes::HeaderReader;
pub use table::{Permission, Request, RequestInfo};
