//! Frames of the remoting protocol. Bytes in, values out: no socket, no clock.
//!
//! ```text
//!  0         4           5            8            8 + h        4 + length
//!  | length  | encoding  | h (24 bit) | header     | body       |
//! ```
//!
//! All integers are big-endian; `length` counts what follows it. Spec `remoting.md` 1.

use crate::output::Output;

/// How the header of a frame is written; each frame says which.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub enum HeaderEncoding {
    #[default]
    Json = 0,
    /// Upstream calls it `ROCKETMQ`.
    Binary = 1,
}

/// One whole frame, borrowed from the bytes that were read.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FrameRef<'a> {
    pub encoding: HeaderEncoding,
    pub header: &'a [u8],
    pub body: &'a [u8],
    /// Length of the frame with its length field.
    pub len: usize,
}

/// Why the bytes are no frame. The boundaries are lost: close the connection.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    #[error("a frame of {len} bytes is longer than the {max} that are allowed")]
    TooLong { len: usize, max: usize },
    #[error("a header of {header} bytes does not fit its frame of {frame}")]
    HeaderOverrun { header: usize, frame: usize },
    #[error("{0} is no header encoding (0 is JSON, 1 is binary)")]
    UnknownEncoding(u8),
}

/// The frame at the start of `bytes`, or `None` until more have arrived. `len_max` bounds the
/// frame with its length field, and is checked before the frame is complete, so that a hostile
/// length reserves no memory.
pub fn split(bytes: &[u8], len_max: usize) -> Result<Option<FrameRef<'_>>, FrameError> {
    let Some(&[l0, l1, l2, l3, encoding, h0, h1, h2]) = bytes.first_chunk() else {
        return Ok(None);
    };
    let rest_len = u32::from_be_bytes([l0, l1, l2, l3]) as usize;
    let header_len = u32::from_be_bytes([0, h0, h1, h2]) as usize;
    let len = 4 + rest_len;
    if len_max < len {
        return Err(FrameError::TooLong { len, max: len_max });
    }
    if rest_len < 4 || rest_len - 4 < header_len {
        return Err(FrameError::HeaderOverrun { header: header_len, frame: len });
    }
    let encoding = match encoding {
        0 => HeaderEncoding::Json,
        1 => HeaderEncoding::Binary,
        other => return Err(FrameError::UnknownEncoding(other)),
    };
    let Some(frame) = bytes.get(..len) else { return Ok(None) };
    let (header, body) = frame[8..].split_at(header_len);
    Ok(Some(FrameRef { encoding, header, body, len }))
}

/// Length of the frame that starts with `bytes`, as far as it can be known yet.
#[must_use]
pub fn announced_len(bytes: &[u8]) -> Option<usize> {
    bytes.first_chunk().map(|length| 4 + u32::from_be_bytes(*length) as usize)
}

/// Appends a frame: `header` and `body` write their parts. The body may reference pieces.
pub fn write(
    output: &mut Output,
    encoding: HeaderEncoding,
    header: impl FnOnce(&mut Vec<u8>),
    body: impl FnOnce(&mut Output),
) {
    let start = output.bytes.len();
    let len_before = output.len();
    output.bytes.extend_from_slice(&[0; 8]);
    header(&mut output.bytes);
    let header_len = output.bytes.len() - start - 8;
    assert!(header_len < 1 << 24, "a header of {header_len} bytes: its parts are bounded");
    body(output);
    let rest_len = output.len() - len_before - 4;
    let prefix = &mut output.bytes[start..start + 8];
    prefix[..4].copy_from_slice(&(rest_len as u32).to_be_bytes());
    prefix[4..].copy_from_slice(&(header_len as u32).to_be_bytes());
    prefix[4] = encoding as u8;
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRAME: &[u8] = b"\0\0\0\x08\0\0\0\x02{}ab";

    #[test]
    fn a_frame_may_arrive_byte_by_byte() {
        for cut in 0..FRAME.len() {
            assert_eq!(split(&FRAME[..cut], 64), Ok(None), "cut at {cut}");
        }
        let frame = split(FRAME, 64).unwrap().unwrap();
        assert_eq!((frame.header, frame.body, frame.len), (&b"{}"[..], &b"ab"[..], 12));
    }

    #[test]
    fn lengths_that_lie_are_refused_before_the_frame_is_there() {
        let too_long = b"\x7f\xff\xff\xff\0\0\0\x02";
        assert!(matches!(split(too_long, 64), Err(FrameError::TooLong { max: 64, .. })));
        let overrun = b"\0\0\0\x08\0\0\0\x05";
        assert_eq!(split(overrun, 64), Err(FrameError::HeaderOverrun { header: 5, frame: 12 }));
        assert!(split(b"\0\0\0\x03\0\0\0\0", 64).is_err());
        assert_eq!(split(b"\0\0\0\x08\x02\0\0\0", 64), Err(FrameError::UnknownEncoding(2)));
    }

    #[test]
    fn what_is_written_reads_back() {
        let mut output = Output::default();
        output.bytes.extend_from_slice(b"before");
        write(
            &mut output,
            HeaderEncoding::Json,
            |header| header.extend_from_slice(b"{}"),
            |body| {
                body.bytes.extend_from_slice(b"a");
                body.reference(bytes::Bytes::from_static(b"b"));
            },
        );
        assert_eq!(&output.to_vec()[6..], FRAME);
    }
}
