//! What a setting can hold: text to value and back. Java's rules (spec `config.md` 1.2), made
//! strict.

use std::net::{IpAddr, SocketAddr};

use super::{Range, SettingError};
use crate::Millis;

/// A type that a setting can have.
pub trait Value: Sized {
    /// Completes the sentence "must be ...", up to the range of a number.
    const ALLOWED: &'static str;

    /// Of a number that has no narrower one of its own.
    const RANGE: Option<Range> = None;

    fn parse(text: &str) -> Option<Self>;

    /// The text from which [`parse`](Self::parse) makes the same value.
    fn text(&self) -> String;
}

/// White space around a value is ignored, where Java would keep the default in silence.
pub(super) fn parse<V: Value>(
    key: &'static str,
    text: &str,
    range: Option<Range>,
) -> Result<V, SettingError> {
    let trimmed = text.trim();
    let is_within = |(low, high)| trimmed.parse().is_ok_and(|it: i64| low <= it && it <= high);
    let value = V::parse(trimmed).filter(|_| range.is_none_or(is_within));
    value.ok_or_else(|| SettingError::Invalid {
        key,
        text: text.into(),
        allowed: match range {
            Some((low, high)) => format!("{}, {low} to {high}", V::ALLOWED),
            None => V::ALLOWED.into(),
        },
    })
}

/// The largest `int` of Java: Apache RocketMQ can be told no larger size or time.
pub(super) const INT_MAX: i64 = i32::MAX as i64;

macro_rules! integers {
    ($($type:ty = $allowed:literal, $low:expr, $high:expr;)+) => { $(
        impl Value for $type {
            const ALLOWED: &'static str = $allowed;
            const RANGE: Option<Range> = Some(($low, $high));

            fn parse(text: &str) -> Option<Self> {
                text.parse().ok()
            }

            fn text(&self) -> String {
                self.to_string()
            }
        }
    )+ };
}

integers! {
    u8 = "a whole number", 0, 255;
    u16 = "a port", 0, 65_535;
    i32 = "a whole number", i32::MIN as i64, INT_MAX;
    u32 = "a whole number", 0, INT_MAX;
    i64 = "a whole number", i64::MIN, i64::MAX;
    u64 = "a whole number", 0, INT_MAX;
}

impl Value for bool {
    const ALLOWED: &'static str = "true or false";

    fn parse(text: &str) -> Option<Self> {
        [true, false].into_iter().find(|value| text.eq_ignore_ascii_case(&value.text()))
    }

    fn text(&self) -> String {
        self.to_string()
    }
}

impl Value for String {
    const ALLOWED: &'static str = "text";

    fn parse(text: &str) -> Option<Self> {
        Some(text.into())
    }

    fn text(&self) -> String {
        self.clone()
    }
}

/// What an acknowledgement of a send survives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FlushMode {
    /// The death of the process; the device has it within half a second.
    Async,
    /// The loss of power: acknowledged once the device has it, and nobody sees it before.
    Sync,
}

/// What a broker is within the brokers of one name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BrokerRole {
    AsyncMaster,
    SyncMaster,
    Slave,
}

macro_rules! words {
    ($type:ident, $allowed:literal: $($text:literal = $variant:ident),+) => {
        impl Value for $type {
            const ALLOWED: &'static str = $allowed;

            fn parse(text: &str) -> Option<Self> {
                match text {
                    $( $text => Some(Self::$variant), )+
                    _ => None,
                }
            }

            fn text(&self) -> String {
                match self { $( Self::$variant => $text.into(), )+ }
            }
        }
    };
}

words!(FlushMode, "ASYNC_FLUSH or SYNC_FLUSH": "ASYNC_FLUSH" = Async, "SYNC_FLUSH" = Sync);
words!(BrokerRole, "ASYNC_MASTER, SYNC_MASTER or SLAVE":
    "ASYNC_MASTER" = AsyncMaster, "SYNC_MASTER" = SyncMaster, "SLAVE" = Slave);

/// An address of this machine.
impl Value for IpAddr {
    const ALLOWED: &'static str = "an IP address";

    fn parse(text: &str) -> Option<Self> {
        text.parse().ok()
    }

    fn text(&self) -> String {
        self.to_string()
    }
}

/// Servers, `host:port;host:port`; none is fine.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Addresses(String);

impl Addresses {
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Value for Addresses {
    const ALLOWED: &'static str = "`host:port`, several separated by `;`";

    fn parse(text: &str) -> Option<Self> {
        let is_address = |text: &str| {
            let Some((host, port)) = text.rsplit_once(':') else { return false };
            // A host with a colon is an IPv6 address, and stands in brackets.
            let is_host = !host.is_empty() && !host.contains(|c: char| c.is_whitespace());
            let is_host = is_host && (!host.contains(':') || text.parse::<SocketAddr>().is_ok());
            is_host && port.parse().is_ok_and(|port: u16| port != 0)
        };
        let mut parts = text.split(';').map(str::trim).filter(|part| !part.is_empty());
        parts.all(is_address).then(|| Self(text.into()))
    }

    fn text(&self) -> String {
        self.0.clone()
    }
}

/// Delays of the levels 1, 2, ..., as `1s 5s 1m 2h 1d`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DelayLevels(String);

/// A hundred years: times that are added to it stay numbers.
const DELAY_MS_MAX: Millis = 36_525 * 86_400_000;

impl DelayLevels {
    /// By level, from 1; at least one.
    #[must_use]
    pub fn delays_ms(&self) -> Vec<Millis> {
        Self::read(&self.0).unwrap_or_default()
    }

    fn read(text: &str) -> Option<Vec<Millis>> {
        let delay = |part: &str| {
            let (number, unit) = part.split_at_checked(part.len().checked_sub(1)?)?;
            let unit_ms = match unit {
                "s" => 1_000,
                "m" => 60_000,
                "h" => 3_600_000,
                "d" => 86_400_000,
                _ => return None,
            };
            let delay_ms = number.parse::<Millis>().ok()?.checked_mul(unit_ms)?;
            (0..=DELAY_MS_MAX).contains(&delay_ms).then_some(delay_ms)
        };
        text.split_whitespace().map(delay).collect()
    }
}

impl Default for DelayLevels {
    fn default() -> Self {
        Self("1s 5s 10s 30s 1m 2m 3m 4m 5m 6m 7m 8m 9m 10m 20m 30m 1h 2h".into())
    }
}

impl Value for DelayLevels {
    const ALLOWED: &'static str = "delays such as `1s 5s 1m 2h 1d`, separated by blanks";

    fn parse(text: &str) -> Option<Self> {
        let delays = Self::read(text)?;
        (!delays.is_empty()).then(|| Self(text.into()))
    }

    fn text(&self) -> String {
        self.0.clone()
    }
}

/// Hours of the day, `04` or `03;04`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hours(pub Vec<u8>);

impl Value for Hours {
    const ALLOWED: &'static str = "hours from 00 to 23, separated by `;`";

    fn parse(text: &str) -> Option<Self> {
        let hour = |text: &str| text.parse().ok().filter(|hour| *hour < 24);
        text.split(';').filter(|part| !part.is_empty()).map(hour).collect::<Option<_>>().map(Self)
    }

    fn text(&self) -> String {
        self.0.iter().map(|hour| format!("{hour:02}")).collect::<Vec<_>>().join(";")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_what_java_accepts_or_an_error() {
        assert_eq!(parse::<u16>("listenPort", " 10911 ", None), Ok(10911));
        assert_eq!(parse::<bool>("k", "TRUE", None), Ok(true));
        assert!(parse::<bool>("k", "yes", None).is_err());
        assert!(parse::<BrokerRole>("k", "sync_master", None).is_err());
        assert_eq!(Hours::parse("03;04"), Some(Hours(vec![3, 4])));
        assert_eq!(Hours::parse("4"), Some(Hours(vec![4])));
        assert_eq!(Hours::parse("04, 05"), None);
    }
    #[test]
    fn addresses_have_a_host_and_a_port() {
        for good in ["", "a:1", " a.b:9876 ; 10.0.0.1:65535;", "[::1]:9876"] {
            assert_eq!(Addresses::parse(good).map(|it| it.text()).as_deref(), Some(good));
        }
        for bad in ["nohost", "127.0.0.1:99999", "a:0", ":1", "a:1,b:1", "::1:1", "a b:1", "a:"] {
            assert_eq!(Addresses::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn delay_levels_have_units() {
        let levels = DelayLevels::parse("1s 2m  3h 4d 0s").unwrap();
        let day_ms = 86_400_000;
        assert_eq!(levels.delays_ms(), [1000, 120_000, day_ms / 8, 4 * day_ms, 0]);
        assert_eq!(DelayLevels::default().delays_ms().len(), 18);
        for bad in ["1x", "1s x", "", "é", "-1s", "s", "999999d", "9223372036854775807s"] {
            assert_eq!(DelayLevels::parse(bad), None, "{bad}");
        }
    }
}
