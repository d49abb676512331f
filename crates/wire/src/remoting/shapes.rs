//! Reads the headers of one connection. A sender's JSON headers differ in a few values and seldom
//! in length: one that looks like an earlier one is compared with it instead of parsed.

use std::ops::Range;

use super::codes::Language;
use super::fields::{ExtFields, FieldIndex, Source};
use super::frame::{FrameRef, HeaderEncoding};
use super::header::{Header, HeaderError};
use super::header_json;

/// Shapes that are remembered, each for headers of other lengths.
const SHAPES: usize = 4;
/// Longer headers are always parsed, so that a connection costs a few KiB at most.
const LEN_MAX: usize = 1024;

/// Reads headers one after the other.
#[derive(Debug, Default)]
pub struct HeaderReader {
    index: Vec<FieldIndex>,
    /// By length modulo [`SHAPES`].
    shapes: [Shape; SHAPES],
}

/// A header that was read, and which of its bytes are free to be others in the next one: those of
/// the values of fields, but for escapes, and the digits of the opaque.
#[derive(Debug, Default)]
struct Shape {
    /// Length of the last header that was no match; the second one in a row is remembered.
    missed_len: usize,
    text: Vec<u8>,
    /// 0 for a free byte, 255 for one that stays.
    fixed: Vec<u8>,
    index: Vec<FieldIndex>,
    letters: u64,
    opaque: Range<usize>,
    code: i32,
    flag: i32,
    version: i32,
    language: Option<Language>,
}

impl HeaderReader {
    /// Reads the header of `frame`: the same as [`Header::parse`], mostly faster.
    pub fn read<'a>(&'a mut self, frame: &FrameRef<'a>) -> Result<Header<'a>, HeaderError> {
        let len = frame.header.len();
        if frame.encoding != HeaderEncoding::Json || LEN_MAX < len {
            return Header::parse(frame, &mut self.index);
        }
        let text = simdutf8::basic::from_utf8(frame.header).map_err(|_| HeaderError::NotUtf8)?;
        let shape = &mut self.shapes[len % SHAPES];
        let Some(opaque) = shape.matches(text.as_bytes()) else {
            return shape.parse(text, &mut self.index);
        };
        Ok(Header {
            code: shape.code,
            language: shape.language.unwrap_or(Language::OTHER),
            version: shape.version,
            opaque,
            flag: shape.flag,
            remark: None,
            fields: ExtFields::with_letters(Source::Json(text), &shape.index, shape.letters),
        })
    }
}

impl Shape {
    /// The opaque of a header of this shape.
    fn matches(&self, text: &[u8]) -> Option<i32> {
        if text.len() != self.text.len() || text.is_empty() {
            return None;
        }
        // Without an early end, so that the compiler makes vector code of it.
        let mut differs = 0;
        for ((byte, known), fixed) in text.iter().zip(&self.text).zip(&self.fixed) {
            let is_special = u8::from(*byte == b'"') | u8::from(*byte == b'\\');
            differs |= (byte ^ known) & fixed | is_special & !fixed;
        }
        if differs != 0 {
            return None;
        }
        let mut opaque = 0_i32;
        for byte in &text[self.opaque.clone()] {
            let digit = byte.wrapping_sub(b'0');
            opaque = opaque.checked_mul(10)?.checked_add(i32::from(digit))?;
            if 9 < digit {
                return None;
            }
        }
        Some(opaque)
    }

    /// Parses a header that is none of this shape, and remembers it if one as long was the last.
    fn parse<'a>(
        &mut self,
        text: &'a str,
        index: &'a mut Vec<FieldIndex>,
    ) -> Result<Header<'a>, HeaderError> {
        index.clear();
        let (header, opaque) = header_json::parse_with_opaque(text, index)?;
        if std::mem::replace(&mut self.missed_len, text.len()) == text.len() {
            self.learn(text, &header, opaque);
        }
        Ok(header)
    }

    fn learn(&mut self, text: &str, header: &Header<'_>, opaque: Range<usize>) {
        self.text.clear();
        let bytes = text.as_bytes();
        let fields = header.fields.index();
        let is_quoted = |field: &FieldIndex| {
            field.value_start.checked_sub(1).map(|at| bytes[at as usize]) == Some(b'"')
        };
        let has_opaque = bytes[opaque.clone()].iter().all(u8::is_ascii_digit) && !opaque.is_empty();
        if header.remark.is_some() || !has_opaque || !fields.iter().all(is_quoted) {
            return;
        }
        self.text.extend_from_slice(bytes);
        self.fixed.clear();
        self.fixed.resize(bytes.len(), 255);
        self.fixed[opaque.clone()].fill(0);
        for field in fields {
            let start = field.value_start as usize;
            let value = start..start + field.value_len as usize;
            self.fixed[value.clone()].fill(0);
            let mut at = value.start;
            while at < value.end {
                let escape_len = match bytes[at..value.end] {
                    [b'\\', b'u', ..] => 6,
                    [b'\\', ..] => 2,
                    _ => 0,
                };
                self.fixed[at..at + escape_len].fill(255);
                at += escape_len.max(1);
            }
        }
        self.index.clear();
        self.index.extend_from_slice(fields);
        self.letters = header.fields.letters();
        self.opaque = opaque;
        self.code = header.code;
        self.flag = header.flag;
        self.version = header.version;
        self.language = Some(header.language);
    }
}

#[cfg(test)]
mod tests {
    use super::super::fields::sorted;
    use super::*;

    fn frame(header: &str) -> FrameRef<'_> {
        let encoding = HeaderEncoding::Json;
        FrameRef { encoding, header: header.as_bytes(), body: b"", len: 0 }
    }

    type Parts = Result<(i32, i32, i32, Vec<(String, String)>), HeaderError>;

    fn parts(header: Result<Header<'_>, HeaderError>) -> Parts {
        let header = header?;
        Ok((header.code, header.opaque, header.flag, sorted(&header.fields)))
    }

    const FIRST: &str = concat!(
        r#"{"code":310,"extFields":{"a":"gr","i":"K\u0001v1\u0002","n":""},"#,
        r#""flag":0,"language":"JAVA","opaque":17,"version":513}"#
    );

    /// Every header that differs from a remembered one in a byte or two is read as it stands.
    #[test]
    fn what_is_remembered_changes_nothing() {
        let mut reader = HeaderReader::default();
        for _ in 0..3 {
            assert!(reader.read(&frame(FIRST)).is_ok());
        }
        assert!(reader.shapes.iter().any(|shape| !shape.text.is_empty()), "it was remembered");
        let mut matched = 0;
        for at in 0..FIRST.len() {
            for byte in [b'"', b'\\', b'0', b'9', b'-', b'x', b'}', b',', b' ', 0x1F, 0xC3] {
                for next in [None, Some(b'"'), Some(0xA9)] {
                    let mut bytes = FIRST.as_bytes().to_vec();
                    bytes[at] = byte;
                    if let (Some(next), Some(place)) = (next, bytes.get_mut(at + 1)) {
                        *place = next;
                    }
                    let frame = FrameRef { header: &bytes, ..frame("") };
                    let expected = parts(Header::parse(&frame, &mut Vec::new()));
                    // The shape of the first one again, then the changed one against it.
                    reader = HeaderReader::default();
                    (0..3).for_each(|_| drop(parts(reader.read(&self::frame(FIRST)))));
                    matched +=
                        usize::from(reader.shapes[bytes.len() % SHAPES].matches(&bytes).is_some());
                    assert_eq!(parts(reader.read(&frame)), expected, "{at}: {byte:#x} {next:?}");
                }
            }
        }
        assert!(10 < matched, "some still match");
    }

    #[test]
    fn bare_values_and_remarks_are_never_remembered() {
        let bare = r#"{"code":1,"extFields":{"a":3},"opaque":1}"#;
        let remark = r#"{"code":1,"remark":"x","opaque":1}"#;
        let negative = r#"{"code":1,"opaque":-1}"#;
        for header in [bare, remark, negative, r#"{"code":1}"#] {
            let mut reader = HeaderReader::default();
            (0..3).for_each(|_| assert!(reader.read(&frame(header)).is_ok()));
            assert!(reader.shapes.iter().all(|shape| shape.text.is_empty()), "{header}");
        }
    }
}
