//! Message properties: `name 0x01 value 0x02 name 0x01 value 0x02 ...`. Spec `messages.md` 2.

use crate::scan;

/// Names that the broker itself reads or writes.
pub mod name {
    pub const KEYS: &str = "KEYS";
    pub const TAGS: &str = "TAGS";
    pub const WAIT: &str = "WAIT";
    pub const DELAY: &str = "DELAY";
    pub const RETRY_TOPIC: &str = "RETRY_TOPIC";
    pub const REAL_TOPIC: &str = "REAL_TOPIC";
    pub const REAL_QID: &str = "REAL_QID";
    pub const TRAN_MSG: &str = "TRAN_MSG";
    pub const PGROUP: &str = "PGROUP";
    pub const ORIGIN_MESSAGE_ID: &str = "ORIGIN_MESSAGE_ID";
    pub const RECONSUME_TIME: &str = "RECONSUME_TIME";
    pub const MAX_RECONSUME_TIMES: &str = "MAX_RECONSUME_TIMES";
    pub const MSG_REGION: &str = "MSG_REGION";
    pub const TRACE_ON: &str = "TRACE_ON";
    pub const UNIQ_KEY: &str = "UNIQ_KEY";
    pub const INNER_NUM: &str = "INNER_NUM";
    pub const TRANSACTION_ID: &str = "__transactionId__";
    pub const CORRELATION_ID: &str = "CORRELATION_ID";
    pub const REPLY_TO_CLIENT: &str = "REPLY_TO_CLIENT";
    pub const TTL: &str = "TTL";
    pub const PUSH_REPLY_TIME: &str = "PUSH_REPLY_TIME";
    pub const CLUSTER: &str = "CLUSTER";
    pub const MSG_TYPE: &str = "MSG_TYPE";
    pub const POP_CK: &str = "POP_CK";
    pub const SHARDING_KEY: &str = "__SHARDINGKEY";
    pub const TIMER_DELAY_SEC: &str = "TIMER_DELAY_SEC";
    pub const TIMER_DELAY_MS: &str = "TIMER_DELAY_MS";
    pub const TIMER_DELIVER_MS: &str = "TIMER_DELIVER_MS";
    pub const TIMER_OUT_MS: &str = "TIMER_OUT_MS";
}

pub const NAME_END: u8 = 0x01;
pub const PAIR_END: u8 = 0x02;

/// The length field of a record is a signed 16-bit number.
pub const LEN_MAX: usize = i16::MAX as usize;

/// The pairs of an encoded property text, in order. Pairs without a name or a value are left out,
/// as upstream's reader does; a missing last `0x02` is fine. Values that are not UTF-8 are left
/// out as well: no Java client can have written them.
pub fn pairs(encoded: &[u8]) -> impl Iterator<Item = (&str, &str)> {
    raw_pairs(encoded).filter_map(|(name, value)| {
        Some((std::str::from_utf8(name).ok()?, std::str::from_utf8(value).ok()?))
    })
}

/// [`pairs`] as bytes: what costs least where most values are not looked at.
pub fn raw_pairs(encoded: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    let mut rest = encoded;
    std::iter::from_fn(move || {
        loop {
            if rest.is_empty() {
                return None;
            }
            let (name, tail) = rest.split_at(scan::until(rest, [NAME_END, PAIR_END]));
            if tail.first() != Some(&NAME_END) {
                rest = tail.get(1..).unwrap_or_default();
                continue;
            }
            let (value, tail) = tail[1..].split_at(scan::until(&tail[1..], [PAIR_END]));
            rest = tail.get(1..).unwrap_or_default();
            if !name.is_empty() && !value.is_empty() {
                return Some((name, value));
            }
        }
    })
}

/// Where a value stands in an encoded property text; empty if it is not there.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    start: u32,
    len: u32,
}

impl Place {
    /// The place of `value`, which is a part of `encoded`.
    #[must_use]
    pub fn within(encoded: &[u8], value: &[u8]) -> Self {
        let start = value.as_ptr() as usize - encoded.as_ptr() as usize;
        Self { start: start as u32, len: value.len() as u32 }
    }

    /// The value that stands there.
    #[must_use]
    pub fn of(self, encoded: &[u8]) -> Option<&[u8]> {
        let start = self.start as usize;
        let value = encoded.get(start..start + self.len as usize)?;
        (0 < self.len).then_some(value)
    }
}

/// Where the values stand by which a message is looked for.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct KeyPlaces {
    pub unique_key: Place,
    pub keys: Place,
    pub tags: Place,
}

impl KeyPlaces {
    /// Looks for them; of a repeated name the last one counts, as in upstream's map.
    #[must_use]
    pub fn find(encoded: &[u8]) -> Self {
        let mut places = Self::default();
        raw_pairs(encoded).for_each(|(name, value)| places.note(encoded, name, value));
        places
    }

    /// Takes note of a pair of `encoded`.
    #[inline]
    pub fn note(&mut self, encoded: &[u8], name: &[u8], value: &[u8]) {
        let place = match name {
            b"UNIQ_KEY" => &mut self.unique_key,
            b"KEYS" => &mut self.keys,
            b"TAGS" => &mut self.tags,
            _ => return,
        };
        *place = Place::within(encoded, value);
    }
}

/// The value of `name`; of a repeated name the last one, as in upstream's map.
#[must_use]
pub fn find<'a>(encoded: &'a [u8], name: &str) -> Option<&'a str> {
    let name = name.as_bytes();
    let values = raw_pairs(encoded).filter(|(found, _)| *found == name);
    values.filter_map(|(_, value)| std::str::from_utf8(value).ok()).last()
}

/// Appends a pair, closing an unclosed last one first.
pub fn push(encoded: &mut Vec<u8>, name: &str, value: &str) {
    if encoded.last().is_some_and(|&last| last != PAIR_END) {
        encoded.push(PAIR_END);
    }
    encoded.extend_from_slice(name.as_bytes());
    encoded.push(NAME_END);
    encoded.extend_from_slice(value.as_bytes());
    encoded.push(PAIR_END);
}

/// Drops every pair called `name`.
pub fn remove(encoded: &mut Vec<u8>, name: &str) {
    if find(encoded, name).is_none() {
        return;
    }
    let kept: Vec<u8> = encoded
        .split_inclusive(|&byte| byte == PAIR_END)
        .filter(|pair| {
            !(pair.starts_with(name.as_bytes()) && pair.get(name.len()) == Some(&NAME_END))
        })
        .flatten()
        .copied()
        .collect();
    *encoded = kept;
}

/// Replaces every pair called `name` by one.
pub fn set(encoded: &mut Vec<u8>, name: &str, value: &str) {
    remove(encoded, name);
    push(encoded, name, value);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_last_separator_is_read_and_repaired() {
        let mut text = b"WAIT\x01true\x02TAGS\x01a".to_vec();
        assert_eq!(find(&text, "TAGS"), Some("a"));
        push(&mut text, "CLUSTER", "c");
        assert_eq!(text, b"WAIT\x01true\x02TAGS\x01a\x02CLUSTER\x01c\x02");
    }

    #[test]
    fn set_replaces_and_remove_leaves_the_rest() {
        let mut text = b"A\x011\x02AB\x012\x02A\x013\x02".to_vec();
        assert_eq!(find(&text, "A"), Some("3"));
        set(&mut text, "A", "4");
        assert_eq!(text, b"AB\x012\x02A\x014\x02");
        remove(&mut text, "A");
        assert_eq!(text, b"AB\x012\x02");
    }

    #[test]
    fn broken_pairs_are_left_out() {
        let text = b"\x02\x01v\x02n\x01\x02novalue\x02ok\x01yes";
        assert_eq!(pairs(text).collect::<Vec<_>>(), [("ok", "yes")]);
    }
}
