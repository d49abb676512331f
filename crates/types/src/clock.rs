//! Wall time, a seam: the system's in production, virtual in the simulator.

/// Milliseconds since 1970-01-01 UTC, as every timestamp of RocketMQ is counted.
pub type Millis = i64;

/// Tells wall time. Monotonic time is tokio's clock, which a test can pause.
pub trait Clock: Send + Sync {
    fn now_ms(&self) -> Millis;
}

/// The clock of the operating system.
#[derive(Debug, Default, Clone, Copy)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[allow(clippy::disallowed_methods, reason = "this is the seam")]
    fn now_ms(&self) -> Millis {
        let since_epoch = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        // A clock before 1970 is a machine without a battery; 0 keeps timestamps legal.
        since_epoch.map_or(0, |elapsed| elapsed.as_millis() as Millis)
    }
}
