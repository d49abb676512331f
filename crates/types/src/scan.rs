//! Finds bytes in short texts, eight at a time. A library made for long ones (`memchr`) takes
//! longer to be called than the search takes here.

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
