//! A thousand histories keep the promises; a history is its seed.

use std::sync::atomic::{AtomicU64, Ordering};

use apogee_sim::history;

const HISTORIES: u64 = 1000;
const THREADS: usize = 2;

#[test]
fn what_was_acknowledged_outlives_stops_kills_and_power_cuts() {
    let next = AtomicU64::new(1);
    let work = || {
        let mut complaints = Vec::new();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if HISTORIES < seed {
                return complaints;
            }
            complaints.extend(history::run(seed).complaint());
        }
    };
    let complaints: Vec<String> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(work)).collect();
        threads.into_iter().flat_map(|it| it.join().expect("no history panics")).collect()
    });
    assert!(complaints.is_empty(), "{} histories:\n{}", complaints.len(), complaints.join("\n"));
}

#[test]
fn a_seed_gives_the_same_history_again() {
    for seed in 1..=20 {
        let [first, second] = [history::run(seed), history::run(seed)];
        let differs = first.entries.iter().zip(&second.entries).find(|(one, other)| one != other);
        if let Some((one, other)) = differs {
            panic!("seed {seed}:\n{one}\n{other}");
        }
        assert_eq!(first.digest(), second.digest(), "seed {seed}");
    }
}
