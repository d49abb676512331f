//! Every format that crosses a socket: pure, sans-IO codecs.

pub mod output;
pub mod remoting;
