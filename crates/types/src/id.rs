//! Message ids. Spec `messages.md` 6.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::LogOffset;

/// The id that a broker gives: where it can be reached, and where the record lies.
/// As text: upper-case hex of ip (4 or 16 bytes), port (4), log offset (8).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OffsetMessageId {
    pub store_host: SocketAddr,
    pub at: LogOffset,
}

/// Longest text of an [`OffsetMessageId`]: an IPv6 address.
pub const OFFSET_ID_LEN_MAX: usize = 56;

impl OffsetMessageId {
    /// Writes the text into `buffer` and returns it.
    pub fn write<'b>(&self, buffer: &'b mut [u8; OFFSET_ID_LEN_MAX]) -> &'b str {
        let mut len = 0;
        let mut put = |number: u32| {
            buffer[len..len + 8].copy_from_slice(&hex_digits(number));
            len += 8;
        };
        match self.store_host.ip() {
            IpAddr::V4(ip) => put(ip.to_bits()),
            IpAddr::V6(ip) => {
                (0..4).rev().for_each(|word| put((ip.to_bits() >> (32 * word)) as u32))
            }
        }
        put(u32::from(self.store_host.port()));
        put((self.at.0 >> 32) as u32);
        put(self.at.0 as u32);
        std::str::from_utf8(&buffer[..len]).expect("hex digits are ASCII")
    }

    /// Reads the text form; `None` if it is not one.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if !text.is_ascii() {
            return None;
        }
        let number = |text: &str| u64::from_str_radix(text, 16).ok();
        let (ip, rest): (IpAddr, &str) = match text.len() {
            32 => (Ipv4Addr::from(number(&text[..8])? as u32).into(), &text[8..]),
            56 => (Ipv6Addr::from(u128::from_str_radix(&text[..32], 16).ok()?).into(), &text[32..]),
            _ => return None,
        };
        let port = u16::try_from(number(&rest[..8])?).ok()?;
        Some(Self { store_host: SocketAddr::new(ip, port), at: LogOffset(number(&rest[8..])?) })
    }
}

/// Eight upper-case digits: a step for all of them instead of two for each.
fn hex_digits(number: u32) -> [u8; 8] {
    const ONES: u64 = u64::from_le_bytes([1; 8]);
    // Each half into a half, each byte into two, each digit into a byte.
    let halves = u64::from(number);
    let bytes = (halves | halves << 16) & 0x0000_FFFF_0000_FFFF;
    let pairs = (bytes | bytes << 8) & 0x00FF_00FF_00FF_00FF;
    let digits = (pairs | pairs << 4) & 0x0F0F_0F0F_0F0F_0F0F;
    let is_letter = ((digits + ONES * 6) >> 4) & ONES;
    (digits + ONES * u64::from(b'0') + is_letter * u64::from(b'A' - b'9' - 1)).to_be_bytes()
}

impl fmt::Display for OffsetMessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.write(&mut [0; OFFSET_ID_LEN_MAX]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_is_that_of_upstream_and_reads_back() {
        let id =
            OffsetMessageId { store_host: "10.0.0.1:10911".parse().unwrap(), at: LogOffset(100) };
        assert_eq!(id.to_string(), "0A00000100002A9F0000000000000064");
        assert_eq!(OffsetMessageId::parse(&id.to_string()), Some(id));
        let v6 = OffsetMessageId { store_host: "[::1]:1".parse().unwrap(), at: LogOffset(7) };
        assert_eq!(OffsetMessageId::parse(&v6.to_string()), Some(v6));
        assert_eq!(OffsetMessageId::parse("0A00"), None);
        assert_eq!(OffsetMessageId::parse(&"é".repeat(16)), None);
    }
}
