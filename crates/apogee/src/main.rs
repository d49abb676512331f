//! One binary that can be a name server, a broker, or both.

fn main() {}
