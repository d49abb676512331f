//! Finds and compares bytes of short texts, eight at a time. A library made for long ones
//! (`memchr`) takes longer to be called than the search takes here.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use hashbrown::Equivalent;

/// As many bytes are looked at together.
pub const WORD: usize = 8;
const ONES: u64 = u64::from_le_bytes([1; 8]);
const HIGHS: u64 = ONES << 7;

/// How many bytes stand before the first that is one of `any`: all, if none is.
#[inline]
#[must_use]
pub fn until<const N: usize>(bytes: &[u8], any: [u8; N]) -> usize {
    let (words, rest) = bytes.as_chunks::<WORD>();
    let mut at = 0;
    for word in words {
        let word = u64::from_le_bytes(*word);
        let zeros = |byte: u8| zero_bytes(word ^ (ONES * u64::from(byte)));
        let found = any.iter().fold(0, |found, byte| found | zeros(*byte));
        if found != 0 {
            return at + (found.trailing_zeros() / 8) as usize;
        }
        at += WORD;
    }
    at + rest.iter().position(|byte| any.contains(byte)).unwrap_or(rest.len())
}

/// Looks for a name in a map of names. The C library's `memcmp` reads short texts with masked
/// loads, and where such a load reaches into a page that may not be read, recent processors need
/// 160 ns for it (measured; else 3): a name that happens to lie there would cost that with every
/// message.
#[derive(Debug, Clone, Copy)]
pub struct Name<'a>(pub &'a str);

impl Hash for Name<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

impl Equivalent<Arc<str>> for Name<'_> {
    fn equivalent(&self, name: &Arc<str>) -> bool {
        is_same(self.0.as_bytes(), name.as_bytes())
    }
}

/// Whether they are the same; without `memcmp`, as [`Name`].
#[inline]
#[must_use]
pub fn is_same(one: &[u8], other: &[u8]) -> bool {
    if one.len() != other.len() {
        return false;
    }
    let ((words, rest), (other_words, other_rest)) = (one.as_chunks::<WORD>(), other.as_chunks());
    let differs = |(one, other): (&[u8; WORD], &[u8; WORD])| {
        u64::from_le_bytes(*one) != u64::from_le_bytes(*other)
    };
    // Not as slices: that would be a call of `memcmp` again.
    !words.iter().zip(other_words).any(differs)
        && !rest.iter().zip(other_rest).any(|(one, other)| one != other)
}

/// Copies the bytes before the first `end` to the start of `out`, which is longer than `bytes` by
/// at least a [`WORD`]; what was there beyond them may change. Returns how many they are.
#[inline]
pub fn copy_until(bytes: &[u8], end: u8, out: &mut [u8]) -> usize {
    let (words, rest) = bytes.as_chunks::<WORD>();
    let mut at = 0;
    for word in words {
        out[at..at + WORD].copy_from_slice(word);
        let found = zero_bytes(u64::from_le_bytes(*word) ^ (ONES * u64::from(end)));
        if found != 0 {
            return at + (found.trailing_zeros() / 8) as usize;
        }
        at += WORD;
    }
    for &byte in rest {
        if byte == end {
            break;
        }
        out[at] = byte;
        at += 1;
    }
    at
}

/// Whether a JSON text may hold these bytes as they are: no quote, backslash or control byte.
#[inline]
#[must_use]
pub fn is_plain_json(bytes: &[u8]) -> bool {
    let (words, rest) = bytes.as_chunks::<WORD>();
    // A borrow falsifies only what stands above a byte that was found.
    let found = words.iter().fold(0, |found, word| {
        let word = u64::from_le_bytes(*word);
        let controls = word.wrapping_sub(ONES * 0x20) & !word & HIGHS;
        let marks = zero_bytes(word ^ (ONES * u64::from(b'"')))
            | zero_bytes(word ^ (ONES * u64::from(b'\\')));
        found | controls | marks
    });
    found == 0 && !rest.iter().any(|&byte| byte < 0x20 || byte == b'"' || byte == b'\\')
}

/// The high bit of each byte that is zero. A higher byte may be set falsely, the lowest never is.
#[inline]
fn zero_bytes(word: u64) -> u64 {
    word.wrapping_sub(ONES) & !word & HIGHS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_byte_is_found_wherever_it_stands() {
        for len in 0..40 {
            for mark in [b'"', b'\\'] {
                let mut bytes = vec![0xC3; len];
                bytes.push(mark);
                bytes.extend_from_slice(b"\"\\tail tail");
                assert_eq!(until(&bytes, [b'"', b'\\']), len);
            }
            assert_eq!(until(&vec![b'!'; len], [b'"', b'\\']), len);
            // Below and above the byte that is looked for, where a borrow could mislead.
            let near = [0x00, 0x02, 0x80, 0x81, 0xFF].repeat(len);
            assert_eq!(until(&near, [0x01]), near.len());
        }
    }

    #[test]
    fn a_name_is_found_and_no_other() {
        let names = ["", "a", "12345678", "123456789", "123456780", "1234567890123456"];
        let map: hashbrown::HashMap<Arc<str>, usize, std::hash::RandomState> =
            names.iter().enumerate().map(|(number, name)| ((*name).into(), number)).collect();
        for (number, name) in names.iter().enumerate() {
            assert_eq!(map.get(&Name(name)), Some(&number));
        }
        assert_eq!(map.get(&Name("123456781")), None);
        assert!(!is_same(b"123456789", b"123456780") && !is_same(b"x2345678", b"12345678"));
    }

    #[test]
    fn a_text_is_plain_unless_it_needs_an_escape() {
        for byte in 0..=255_u8 {
            for len in 0..20 {
                let mut bytes = vec![b'a'; 20];
                bytes[len] = byte;
                let is_plain = 0x20 <= byte && byte != b'"' && byte != b'\\';
                assert_eq!(is_plain_json(&bytes), is_plain, "{byte:#x} at {len}");
            }
        }
    }
}
