//! Runs the steps of background services, each on a thread of its own, until the process stops.

use std::io;
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

/// The running steps.
#[derive(Default)]
pub struct Steps {
    stop: Arc<Stop>,
    threads: Vec<JoinHandle<()>>,
}

/// Tells the threads to end. `requested` goes from false to true once.
#[derive(Default)]
struct Stop {
    requested: Mutex<bool>,
    changed: Condvar,
}

impl Stop {
    /// Waits for `pause` to pass; false once the process stops.
    fn pause(&self, pause: Duration) -> bool {
        if pause.is_zero() {
            // Who serves clients goes first; the scheduler would let it wait for milliseconds.
            std::thread::yield_now();
        }
        let mut requested = self.requested.lock();
        if !*requested && !pause.is_zero() {
            self.changed.wait_for(&mut requested, pause);
        }
        !*requested
    }
}

impl Steps {
    /// Calls `step` again and again, each time after the pause that it asks for.
    pub fn run(
        &mut self,
        name: &str,
        mut step: impl FnMut() -> Duration + Send + 'static,
    ) -> io::Result<()> {
        let stop = Arc::clone(&self.stop);
        let work = move || {
            let _guard = EndProcessOnPanic;
            while stop.pause(step()) {}
        };
        self.threads.push(Builder::new().name(name.into()).spawn(work)?);
        Ok(())
    }

    /// Lets every step that is under way finish, and returns when the last one has.
    pub fn stop(self) {
        *self.stop.requested.lock() = true;
        self.stop.changed.notify_all();
        for thread in self.threads {
            thread.join().expect("a step that panics ends the process");
        }
    }
}

/// A server whose flush or dispatch has died would take messages and lose them: it must not go on.
pub struct EndProcessOnPanic;

impl Drop for EndProcessOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            std::process::abort();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[test]
    fn a_step_is_called_until_the_stop_even_in_its_pause() {
        let mut steps = Steps::default();
        let (called, calls) = mpsc::channel();
        steps
            .run("quick", move || {
                let _ = called.send(());
                Duration::ZERO
            })
            .unwrap();
        let (called, first) = mpsc::channel();
        steps
            .run("slow", move || {
                let _ = called.send(());
                Duration::from_secs(3600)
            })
            .unwrap();
        for _ in 0..3 {
            calls.recv().unwrap();
        }
        first.recv().unwrap();
        steps.stop();
        assert!(calls.iter().count() < usize::MAX, "the channel is closed: the thread is gone");
    }
}
