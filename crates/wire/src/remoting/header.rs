//! The header of a frame, whichever way it is written.

use super::codes::{Language, ResponseCode};
use super::fields::{ExtFields, FieldIndex, Fields, PutFields, Text};
use super::frame::{FrameRef, HeaderEncoding};
use super::{header_binary, header_json};
use crate::output::Output;

/// What `version` we send: 5.5.0, so that every feature of a client is enabled (`since-5.3.md`).
pub const VERSION: i32 = 513;

const RESPONSE_FLAG: i32 = 1;
const ONEWAY_FLAG: i32 = 2;

/// The header of a received frame.
#[derive(Debug, Clone)]
pub struct Header<'a> {
    /// A request's code, or a response's, see [`is_response`](Self::is_response).
    pub code: i32,
    pub language: Language,
    pub version: i32,
    /// Pairs a response with its request; the two directions of a connection count apart.
    pub opaque: i32,
    pub flag: i32,
    pub remark: Option<Text<'a>>,
    pub fields: ExtFields<'a>,
}

/// Why a header cannot be read. Upstream closes the connection, and so must we: nothing says
/// which request to answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    #[error("the header is not UTF-8")]
    NotUtf8,
    #[error("the JSON header is malformed at byte {at}: expected {expected}")]
    Json { at: usize, expected: &'static str },
    #[error("the binary header ends within {0}")]
    Truncated(&'static str),
    #[error("the header has more than {0} fields")]
    TooManyFields(usize),
}

impl<'a> Header<'a> {
    /// Reads the header of `frame`. `index` is scratch space, overwritten.
    pub fn parse(
        frame: &FrameRef<'a>,
        index: &'a mut Vec<FieldIndex>,
    ) -> Result<Self, HeaderError> {
        index.clear();
        match frame.encoding {
            HeaderEncoding::Json => {
                let text = std::str::from_utf8(frame.header).map_err(|_| HeaderError::NotUtf8)?;
                header_json::parse(text, index)
            }
            HeaderEncoding::Binary => header_binary::parse(frame.header, index),
        }
    }

    #[must_use]
    pub fn is_response(&self) -> bool {
        self.flag & RESPONSE_FLAG != 0
    }

    /// The sender wants no answer, whatever happens.
    #[must_use]
    pub fn is_oneway(&self) -> bool {
        self.flag & ONEWAY_FLAG != 0
    }
}

/// What stands in a request's header beside its fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestHead {
    pub encoding: HeaderEncoding,
    pub code: i32,
    pub opaque: i32,
    pub oneway: bool,
}

/// What stands in a response's header beside its fields.
#[derive(Debug, Clone, Copy)]
pub struct ResponseHead<'a> {
    pub encoding: HeaderEncoding,
    pub code: ResponseCode,
    pub opaque: i32,
    pub remark: Option<&'a str>,
}

/// The parts common to both kinds, for the two writers.
pub(super) struct Head<'a> {
    pub code: i32,
    pub flag: i32,
    pub opaque: i32,
    pub remark: Option<&'a str>,
}

impl RequestHead {
    /// Appends the frame of a request.
    pub fn write(
        &self,
        output: &mut Output,
        fields: impl FnOnce(&mut dyn PutFields),
        body: impl FnOnce(&mut Output),
    ) {
        let flag = if self.oneway { ONEWAY_FLAG } else { 0 };
        let head = Head { code: self.code, flag, opaque: self.opaque, remark: None };
        write(output, self.encoding, &head, fields, body);
    }
}

impl ResponseHead<'_> {
    /// Appends the frame of a response.
    pub fn write(
        &self,
        output: &mut Output,
        fields: impl FnOnce(&mut dyn PutFields),
        body: impl FnOnce(&mut Output),
    ) {
        write(output, self.encoding, &self.head(), fields, body);
    }

    /// [`write`](Self::write) with fields whose names the compiler knows: in half the time.
    pub fn write_fields<'a>(
        &self,
        output: &mut Output,
        fields: &impl Fields<'a>,
        body: impl FnOnce(&mut Output),
    ) {
        let head = self.head();
        match self.encoding {
            HeaderEncoding::Json => super::frame::write(
                output,
                self.encoding,
                |bytes| header_json::write(bytes, &head, |put| fields.encode(put)),
                body,
            ),
            HeaderEncoding::Binary => {
                write(output, self.encoding, &head, |put| fields.encode(put), body);
            }
        }
    }

    fn head(&self) -> Head<'_> {
        let (code, flag) = (self.code.0, RESPONSE_FLAG);
        Head { code, flag, opaque: self.opaque, remark: self.remark }
    }
}

/// Appends the encoded response `frame`, which says that all went well, with another code.
pub fn recode(frame: &[u8], code: ResponseCode, bytes: &mut Vec<u8>) {
    const JSON: &[u8] = b"{\"code\":0";
    let start = bytes.len();
    bytes.extend_from_slice(frame);
    match frame[8..].strip_prefix(JSON) {
        Some(rest) => {
            bytes.truncate(start + 8);
            bytes.extend_from_slice(format!("{{\"code\":{}", code.0).as_bytes());
            bytes.extend_from_slice(rest);
            let grown = (bytes.len() - start - frame.len()) as u32;
            for at in [start, start + 4] {
                let length = &mut bytes[at..at + 4];
                let old = u32::from_be_bytes(length.try_into().expect("four bytes"));
                length.copy_from_slice(&(old + grown).to_be_bytes());
            }
        }
        None => bytes[start + 8..start + 10].copy_from_slice(&(code.0 as i16).to_be_bytes()),
    }
}

fn write(
    output: &mut Output,
    encoding: HeaderEncoding,
    head: &Head<'_>,
    fields: impl FnOnce(&mut dyn PutFields),
    body: impl FnOnce(&mut Output),
) {
    super::frame::write(
        output,
        encoding,
        |bytes| match encoding {
            HeaderEncoding::Json => header_json::write(bytes, head, |put| fields(put)),
            HeaderEncoding::Binary => header_binary::write(bytes, head, fields),
        },
        body,
    );
}
