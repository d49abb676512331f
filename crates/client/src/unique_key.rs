//! The id that a producer gives each message. Spec `messages.md` 6.2.
//!
//! ```text
//!  ip 4 or 16 | process id 2 | random 4 | ms since the month began 4 | counter 2      as upper hex
//! ```

use std::fmt::Write;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU16, Ordering};

use apogee_types::Millis;

/// Makes unique keys. Two in the same millisecond differ in the counter, two processes of one
/// machine in the process id and the random part.
pub(crate) struct UniqueKeys {
    prefix: String,
    counter: AtomicU16,
}

impl UniqueKeys {
    pub fn new(ip: IpAddr, process_id: u32, random: u32) -> Self {
        let mut prefix = String::with_capacity(44);
        match ip {
            IpAddr::V4(ip) => push_hex(&mut prefix, &ip.octets()),
            IpAddr::V6(ip) => push_hex(&mut prefix, &ip.octets()),
        }
        push_hex(&mut prefix, &(process_id as u16).to_be_bytes());
        push_hex(&mut prefix, &random.to_be_bytes());
        Self { prefix, counter: AtomicU16::new(0) }
    }

    pub fn next(&self, now: Millis) -> String {
        let counter = self.counter.fetch_add(1, Ordering::Relaxed);
        let mut key = self.prefix.clone();
        push_hex(&mut key, &(ms_of_month(now) as u32).to_be_bytes());
        push_hex(&mut key, &counter.to_be_bytes());
        key
    }
}

fn push_hex(text: &mut String, bytes: &[u8]) {
    for byte in bytes {
        write!(text, "{byte:02X}").expect("a String takes everything");
    }
}

/// Milliseconds since the first day of the current month (UTC).
fn ms_of_month(now: Millis) -> i64 {
    const DAY: i64 = 86_400_000;
    let days = now.div_euclid(DAY);
    (day_of_month(days) - 1) * DAY + now.rem_euclid(DAY)
}

/// The day of its month, from 1, of a day counted from 1970-01-01. The year is taken to begin in
/// March, so that the leap day is its last.
fn day_of_month(days: i64) -> i64 {
    let era_day = (days + 719_468).rem_euclid(146_097);
    let era_year = (era_day - era_day / 1460 + era_day / 36_524 - era_day / 146_096) / 365;
    let year_day = era_day - (365 * era_year + era_year / 4 - era_year / 100);
    let month = (5 * year_day + 2) / 153;
    year_day - (153 * month + 2) / 5 + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_has_upstreams_layout() {
        let keys = UniqueKeys::new("10.0.0.1".parse().unwrap(), 0x1_2345, 0xA1B2_C3D4);
        // 2024-02-29 00:00:00.005 UTC: 28 days into the month.
        let now = 1_709_164_800_005;
        let ms: u32 = 28 * 86_400_000 + 5;
        assert_eq!(keys.next(now), format!("0A0000012345A1B2C3D4{ms:08X}0000"));
        assert!(keys.next(now).ends_with("0001"));
        let keys = UniqueKeys::new("::1".parse().unwrap(), 1, 2);
        assert_eq!(keys.next(0).len(), 56);
    }

    #[test]
    fn days_of_the_month() {
        for (days, expected) in [(0, 1), (30, 31), (31, 1), (59, 1), (11_016, 29), (20_454, 1)] {
            assert_eq!(day_of_month(days), expected, "{days}");
        }
    }
}
