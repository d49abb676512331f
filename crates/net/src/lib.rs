//! Opens sockets and moves bytes. The only crate that does.
