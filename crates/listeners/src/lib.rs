//! The doors: each maps one protocol onto the core and back. No decision of its own.

pub mod remoting;
