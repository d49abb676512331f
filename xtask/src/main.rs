//! Tasks of this workspace: tests with foreign clients, benchmarks against Apache RocketMQ.

fn main() {}
