//! The binary form of a header, which upstream calls `ROCKETMQ`. Spec `remoting.md` 1.2.
//!
//! ```text
//!  code i16 | language u8 | version i16 | opaque i32 | flag i32
//!  | remark length i32, remark | fields length i32, fields: { i16, name, i32, value } ...
//! ```

use apogee_types::limits::HEADER_FIELDS_MAX;

use super::codes::Language;
use super::fields::{ExtFields, FieldIndex, PutFields, Source, Text};
use super::header::{Head, Header, HeaderError, VERSION};

pub(super) fn parse<'a>(
    bytes: &'a [u8],
    index: &'a mut Vec<FieldIndex>,
) -> Result<Header<'a>, HeaderError> {
    let mut reader = Reader { bytes, at: 0 };
    let code = i32::from(i16::from_be_bytes(reader.array("the code")?));
    let [language] = reader.array("the language")?;
    let version = i32::from(i16::from_be_bytes(reader.array("the version")?));
    let opaque = i32::from_be_bytes(reader.array("the opaque")?);
    let flag = i32::from_be_bytes(reader.array("the flag")?);
    let remark_len = reader.len32("the remark's length")?;
    let remark = std::str::from_utf8(reader.take(remark_len, "the remark")?);
    let remark = remark.map_err(|_| HeaderError::NotUtf8)?;
    let fields_len = reader.len32("the fields' length")?;
    let fields = reader.take(fields_len, "the fields")?;
    parse_fields(fields, index)?;
    Ok(Header {
        code,
        language: Language(language),
        version,
        opaque,
        flag,
        remark: (!remark.is_empty()).then_some(Text::Plain(remark)),
        fields: ExtFields::new(Source::Binary(fields), index),
    })
}

fn parse_fields(bytes: &[u8], index: &mut Vec<FieldIndex>) -> Result<(), HeaderError> {
    let mut reader = Reader { bytes, at: 0 };
    while reader.at < bytes.len() {
        let name_len = u16::from_be_bytes(reader.array("a field's length")?);
        let name_start = reader.at;
        let name = reader.take(usize::from(name_len), "a field's name")?;
        let value_len = reader.len32("a value's length")?;
        let value_start = reader.at;
        let value = reader.take(value_len, "a value")?;
        if std::str::from_utf8(name).is_err() || std::str::from_utf8(value).is_err() {
            return Err(HeaderError::NotUtf8);
        }
        if index.len() == HEADER_FIELDS_MAX {
            return Err(HeaderError::TooManyFields(HEADER_FIELDS_MAX));
        }
        let name = name_start..name_start + name.len();
        index.push(FieldIndex::new(bytes, name, value_start..value_start + value_len, false));
    }
    Ok(())
}

/// Appends a header. A code above 16 bits cannot be written in this form (`remoting.md` 1.2):
/// it is cut, as Java does.
pub(super) fn write(out: &mut Vec<u8>, head: &Head<'_>, fields: impl FnOnce(&mut dyn PutFields)) {
    out.extend_from_slice(&(head.code as i16).to_be_bytes());
    out.push(Language::JAVA.0);
    out.extend_from_slice(&(VERSION as i16).to_be_bytes());
    out.extend_from_slice(&head.opaque.to_be_bytes());
    out.extend_from_slice(&head.flag.to_be_bytes());
    let remark = head.remark.unwrap_or_default();
    out.extend_from_slice(&(remark.len() as u32).to_be_bytes());
    out.extend_from_slice(remark.as_bytes());
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    fields(&mut BinaryFields { out });
    let len = out.len() - start - 4;
    out[start..start + 4].copy_from_slice(&(len as u32).to_be_bytes());
}

struct BinaryFields<'a> {
    out: &'a mut Vec<u8>,
}

impl PutFields for BinaryFields<'_> {
    fn text(&mut self, name: &str, value: &str) {
        self.out.extend_from_slice(&(name.len() as u16).to_be_bytes());
        self.out.extend_from_slice(name.as_bytes());
        self.out.extend_from_slice(&(value.len() as u32).to_be_bytes());
        self.out.extend_from_slice(value.as_bytes());
    }

    fn int(&mut self, name: &str, value: i64) {
        let mut digits = Vec::with_capacity(20);
        super::header_json::put_int(&mut digits, value);
        self.text(name, std::str::from_utf8(&digits).expect("digits are ASCII"));
    }
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize, what: &'static str) -> Result<&'a [u8], HeaderError> {
        let rest = &self.bytes[self.at..];
        let taken = rest.get(..len).ok_or(HeaderError::Truncated(what))?;
        self.at += len;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], HeaderError> {
        let taken = self.take(N, what)?;
        Ok(taken.try_into().expect("as many bytes as were asked for"))
    }

    /// A length of 32 bits; a negative one is larger than any header and fails in `take`.
    fn len32(&mut self, what: &'static str) -> Result<usize, HeaderError> {
        self.array(what).map(|bytes| u32::from_be_bytes(bytes) as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::super::fields::sorted;
    use super::*;

    /// The example of `remoting.md` 1.2, without its frame.
    const HEADER: &[u8] = b"\0\x0a\0\0\0\0\0\0\x09\0\0\0\0\0\0\0\0\0\0\0\x0f\
        \0\x01a\0\0\0\0\0\x01b\0\0\0\x01x";

    #[test]
    fn the_example_of_the_specification_is_read() {
        let mut index = Vec::new();
        let header = parse(HEADER, &mut index).unwrap();
        assert_eq!((header.code, header.opaque, header.flag), (10, 9, 0));
        assert_eq!(
            sorted(&header.fields),
            [("a", ""), ("b", "x")].map(|(n, v)| (n.into(), v.into()))
        );
        for cut in 0..HEADER.len() {
            assert!(parse(&HEADER[..cut], &mut Vec::new()).is_err(), "cut at {cut}");
        }
    }

    #[test]
    fn what_is_written_reads_back() {
        let mut out = Vec::new();
        let head = Head { code: 310, flag: 2, opaque: -1, remark: Some("é") };
        write(&mut out, &head, |put| {
            put.text("a", "\u{1}");
            put.int("b", -5);
            put.bool("c", true);
        });
        let mut index = Vec::new();
        let header = parse(&out, &mut index).unwrap();
        assert_eq!((header.code, header.flag, header.opaque), (310, 2, -1));
        assert_eq!(header.remark, Some(Text::Plain("é")));
        assert_eq!(header.fields.get("b"), Some(Text::Plain("-5")));
    }
}
