//! The JSON form of a header. Spec `remoting.md` 1.1.
//!
//! One object; the order of members is free. Values of `extFields` are texts, but C++ clients
//! send bare numbers there as well. Unknown members are skipped.

use std::ops::Range;

use apogee_types::limits::{HEADER_FIELDS_MAX, JSON_DEPTH_MAX};
use apogee_types::scan;

use super::codes::Language;
use super::fields::{ExtFields, FieldIndex, PutFields, Source, Text, hex_unit};
use super::header::{Head, Header, HeaderError, VERSION};

/// Reads the header; `index` receives where its fields lie.
pub(super) fn parse<'a>(
    text: &'a str,
    index: &'a mut Vec<FieldIndex>,
) -> Result<Header<'a>, HeaderError> {
    parse_with_opaque(text, index).map(|(header, _)| header)
}

/// Says as well where the opaque stands; with its quotes, if it has any.
pub(super) fn parse_with_opaque<'a>(
    text: &'a str,
    index: &'a mut Vec<FieldIndex>,
) -> Result<(Header<'a>, Range<usize>), HeaderError> {
    let mut opaque_at = 0..0;
    let mut reader = Reader { bytes: text.as_bytes(), at: 0 };
    let mut header = Header {
        code: 0,
        language: Language::OTHER,
        version: 0,
        opaque: 0,
        flag: 0,
        remark: None,
        fields: ExtFields::empty(),
    };
    reader.object(|reader, name| {
        match &text[name.start..name.end] {
            "code" => header.code = reader.int()?,
            "flag" => header.flag = reader.int()?,
            "opaque" => {
                let start = reader.at;
                header.opaque = reader.int()?;
                opaque_at = start..reader.at;
            }
            "version" => header.version = reader.int()?,
            "language" => {
                if let Some(value) = reader.scalar()? {
                    header.language = Language::from_text(&text[value.start..value.end]);
                }
            }
            "remark" => header.remark = reader.scalar()?.map(|value| value.text(text)),
            "extFields" => reader.fields(index)?,
            _ => reader.skip(0)?,
        }
        Ok(())
    })?;
    reader.blanks();
    if reader.at < reader.bytes.len() {
        return Err(reader.error("the end"));
    }
    header.fields = ExtFields::new(Source::Json(text), index);
    Ok((header, opaque_at))
}

/// Appends a header in the form and order in which Java writes it.
pub(super) fn write(out: &mut Vec<u8>, head: &Head<'_>, fields: impl FnOnce(&mut JsonFields<'_>)) {
    out.extend_from_slice(b"{\"code\":");
    put_int(out, i64::from(head.code));
    out.extend_from_slice(b",\"extFields\":{");
    let start = out.len();
    fields(&mut JsonFields { out });
    // Behind the last one stands a comma too many.
    if start < out.len() {
        out.pop();
    }
    out.extend_from_slice(b"},\"flag\":");
    put_int(out, i64::from(head.flag));
    out.extend_from_slice(b",\"language\":\"JAVA\",\"opaque\":");
    put_int(out, i64::from(head.opaque));
    if let Some(remark) = head.remark {
        out.extend_from_slice(b",\"remark\":\"");
        put_escaped(out, remark);
        out.push(b'"');
    }
    out.extend_from_slice(TAIL);
}

const TAIL: &[u8] = {
    assert!(VERSION == 513);
    b",\"serializeTypeCurrentRPC\":\"JSON\",\"version\":513}"
};

pub(super) struct JsonFields<'a> {
    out: &'a mut Vec<u8>,
}

impl JsonFields<'_> {
    #[inline(always)]
    fn name(&mut self, name: &str) {
        self.out.push(b'"');
        self.out.extend_from_slice(name.as_bytes());
        self.out.extend_from_slice(b"\":\"");
    }
}

impl PutFields for JsonFields<'_> {
    #[inline(always)]
    fn text(&mut self, name: &str, value: &str) {
        self.name(name);
        put_escaped(self.out, value);
        self.out.extend_from_slice(b"\",");
    }

    #[inline(always)]
    fn int(&mut self, name: &str, value: i64) {
        self.name(name);
        put_int(self.out, value);
        self.out.extend_from_slice(b"\",");
    }
}

/// Appends decimal digits. `write!` goes through `fmt` and costs several times as much.
#[inline]
pub(super) fn put_int(out: &mut Vec<u8>, value: i64) {
    if (0..10).contains(&value) {
        return out.push(b'0' + value as u8);
    }
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

#[inline]
fn put_escaped(out: &mut Vec<u8>, text: &str) {
    if scan::is_plain_json(text.as_bytes()) {
        out.extend_from_slice(text.as_bytes());
    } else {
        put_escapes(out, text.as_bytes());
    }
}

#[cold]
fn put_escapes(out: &mut Vec<u8>, mut rest: &[u8]) {
    let special = |&byte: &u8| byte < 0x20 || byte == b'"' || byte == b'\\';
    while let Some(at) = rest.iter().position(special) {
        out.extend_from_slice(&rest[..at]);
        match rest[at] {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            byte => {
                let hex = |digit: u8| b"0123456789abcdef"[usize::from(digit)];
                out.extend_from_slice(&[b'\\', b'u', b'0', b'0', hex(byte >> 4), hex(byte & 15)]);
            }
        }
        rest = &rest[at + 1..];
    }
    out.extend_from_slice(rest);
}

/// A scalar value: where it lies (inside its quotes, if it has any), and whether it has escapes.
#[derive(Clone, Copy)]
struct Span {
    start: usize,
    end: usize,
    escaped: bool,
}

impl Span {
    fn text(self, text: &str) -> Text<'_> {
        let raw = &text[self.start..self.end];
        if self.escaped { Text::Escaped(raw) } else { Text::Plain(raw) }
    }
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    /// Reads an object, calling `member` for each name with the reader before the value.
    #[inline]
    fn object(
        &mut self,
        mut member: impl FnMut(&mut Self, Span) -> Result<(), HeaderError>,
    ) -> Result<(), HeaderError> {
        self.blanks();
        self.expect(b'{', "an object")?;
        self.blanks();
        if self.peek() == Some(b'}') {
            self.at += 1;
            return Ok(());
        }
        loop {
            self.blanks();
            let name = self.string()?;
            self.blanks();
            self.expect(b':', "`:`")?;
            self.blanks();
            member(self, name)?;
            self.blanks();
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b'}') => break,
                _ => return Err(self.error("`,` or `}`")),
            }
        }
        self.at += 1;
        Ok(())
    }

    fn fields(&mut self, index: &mut Vec<FieldIndex>) -> Result<(), HeaderError> {
        index.clear();
        if self.peek() != Some(b'{') {
            return self.skip(0);
        }
        // In Java's form as long as it lasts; what differs is read again, by the general way.
        let start = self.at;
        if self.plain_fields(index) {
            return Ok(());
        }
        self.at = start;
        index.clear();
        self.object(|reader, name| {
            if matches!(reader.peek(), Some(b'{' | b'[')) {
                return reader.skip(0);
            }
            let Some(value) = reader.scalar()? else { return Ok(()) };
            if index.len() == HEADER_FIELDS_MAX {
                return Err(HeaderError::TooManyFields(HEADER_FIELDS_MAX));
            }
            let (name, place) = (name.start..name.end, value.start..value.end);
            index.push(FieldIndex::new(reader.bytes, name, place, value.escaped));
            Ok(())
        })
    }

    /// Reads `{"name":"value",...}` without blanks; `false`, wherever it stands then, if that is
    /// not what is there.
    fn plain_fields(&mut self, index: &mut Vec<FieldIndex>) -> bool {
        if self.bytes.get(self.at..self.at + 2) != Some(b"{\"") {
            return false;
        }
        while index.len() < HEADER_FIELDS_MAX {
            // Behind `{"` or `,"`.
            let name = self.at + 2;
            let name_len = plain_len(&self.bytes[name..]);
            let colon = name + name_len;
            if self.bytes.get(colon..colon + 3) != Some(b"\":\"") {
                return false;
            }
            let value = colon + 3;
            let mut end = value + plain_len(&self.bytes[value..]);
            let escaped = self.bytes.get(end) == Some(&b'\\');
            if escaped {
                self.at = value - 1;
                let Ok(span) = self.string() else { return false };
                end = span.end;
            }
            index.push(FieldIndex::new(self.bytes, name..colon, value..end, escaped));
            self.at = end + 1;
            match self.bytes.get(end..end + 3) {
                Some(b"\",\"") => {}
                Some([b'"', b'}', _]) => {
                    self.at = end + 2;
                    return true;
                }
                _ => return false,
            }
        }
        false
    }

    /// A text, number or truth value; `None` for `null`.
    #[inline]
    fn scalar(&mut self) -> Result<Option<Span>, HeaderError> {
        if self.peek() == Some(b'"') {
            return self.string().map(Some);
        }
        let start = self.at;
        while let Some(b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'+' | b'.') = self.peek() {
            self.at += 1;
        }
        match &self.bytes[start..self.at] {
            b"" => Err(self.error("a value")),
            b"null" => Ok(None),
            _ => Ok(Some(Span { start, end: self.at, escaped: false })),
        }
    }

    /// An integer, quoted or not; `null` counts as 0.
    #[inline]
    fn int(&mut self) -> Result<i32, HeaderError> {
        let digits = &self.bytes[self.at..];
        let len = digits.iter().take(10).take_while(|byte| byte.is_ascii_digit()).count();
        if (1..10).contains(&len) && matches!(digits.get(len), Some(b',' | b'}')) {
            self.at += len;
            return Ok(digits[..len].iter().fold(0, |int, byte| 10 * int + i32::from(byte - b'0')));
        }
        self.any_int()
    }

    #[cold]
    fn any_int(&mut self) -> Result<i32, HeaderError> {
        let Some(span) = self.scalar()? else { return Ok(0) };
        let digits = std::str::from_utf8(&self.bytes[span.start..span.end]).unwrap_or_default();
        digits.parse().map_err(|_| self.error("an integer"))
    }

    /// A quoted text; the span is what stands between the quotes.
    #[inline]
    fn string(&mut self) -> Result<Span, HeaderError> {
        self.expect(b'"', "`\"`")?;
        let start = self.at;
        let mut escaped = false;
        loop {
            self.at += plain_len(&self.bytes[self.at..]);
            match self.peek() {
                Some(b'"') => break,
                Some(b'\\') => {
                    escaped = true;
                    self.escape()?;
                }
                _ => return Err(self.error("the end of a text")),
            }
        }
        self.at += 1;
        Ok(Span { start, end: self.at - 1, escaped })
    }

    fn escape(&mut self) -> Result<(), HeaderError> {
        match self.bytes.get(self.at + 1) {
            Some(b'u') => {
                let digits = self.bytes.get(self.at + 2..).unwrap_or_default();
                hex_unit(digits).ok_or_else(|| self.error("four hex digits"))?;
                self.at += 6;
            }
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => self.at += 2,
            _ => return Err(self.error("an escape")),
        }
        Ok(())
    }

    /// Skips any value.
    fn skip(&mut self, depth: usize) -> Result<(), HeaderError> {
        if depth == JSON_DEPTH_MAX {
            return Err(self.error("fewer levels"));
        }
        match self.peek() {
            Some(b'{') => self.object(|reader, _| reader.skip(depth + 1)),
            Some(b'[') => self.skip_array(depth),
            _ => self.scalar().map(|_| ()),
        }
    }

    fn skip_array(&mut self, depth: usize) -> Result<(), HeaderError> {
        self.at += 1;
        self.blanks();
        if self.peek() == Some(b']') {
            self.at += 1;
            return Ok(());
        }
        loop {
            self.blanks();
            self.skip(depth + 1)?;
            self.blanks();
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b']') => break,
                _ => return Err(self.error("`,` or `]`")),
            }
        }
        self.at += 1;
        Ok(())
    }

    #[inline]
    fn blanks(&mut self) {
        while self.bytes.get(self.at).is_some_and(|&byte| byte <= b' ')
            && let Some(b' ' | b'\t' | b'\n' | b'\r') = self.peek()
        {
            self.at += 1;
        }
    }

    #[inline]
    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    #[inline]
    fn expect(&mut self, byte: u8, expected: &'static str) -> Result<(), HeaderError> {
        if self.peek() != Some(byte) {
            return Err(self.error(expected));
        }
        self.at += 1;
        Ok(())
    }

    fn error(&self, expected: &'static str) -> HeaderError {
        HeaderError::Json { at: self.at, expected }
    }
}

/// How many bytes stand before the first `"` or `\`.
#[inline]
fn plain_len(bytes: &[u8]) -> usize {
    scan::until(bytes, [b'"', b'\\'])
}

#[cfg(test)]
mod tests {
    use super::super::fields::sorted;
    use super::*;

    /// Code, opaque, fields.
    type Parts = (i32, i32, Vec<(String, String)>);

    fn read(text: &str) -> Result<Parts, HeaderError> {
        let mut index = Vec::new();
        let header = parse(text, &mut index)?;
        Ok((header.code, header.opaque, sorted(&header.fields)))
    }

    #[test]
    fn bare_values_blanks_and_unknown_members_are_read() {
        let text = r#" { "opaque" : -7, "x":[1,{"y":[]},"z"], "extFields":{"n":3,"b":true,
            "s":"a\u0001b","none":null,"o":{"p":1}}, "code":"310", "remark":null }  "#;
        let fields = [("b", "true"), ("n", "3"), ("s", "a\u{1}b")];
        let fields = fields.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
        assert_eq!(read(text), Ok((310, -7, fields)));
    }

    #[test]
    fn malformed_headers_are_errors_that_name_the_place() {
        for text in
            ["", "{", "{\"code\":}", "{\"code\":1", "[]", "{\"a\":\"\\x\"}", "{\"a\":\"\\u12\"}"]
        {
            assert!(matches!(read(text), Err(HeaderError::Json { .. })), "{text}");
        }
        assert_eq!(read("{\"code\":1}x"), Err(HeaderError::Json { at: 10, expected: "the end" }));
        let deep = format!("{{\"x\":{}", "[".repeat(100_000));
        assert!(read(&deep).is_err());
    }

    #[test]
    fn a_written_header_is_legal_json_and_reads_back() {
        let mut out = Vec::new();
        let remark = "line\n\"quoted\" \u{1}é";
        let head = Head { code: 1, flag: 1, opaque: i32::MIN, remark: Some(remark) };
        write(&mut out, &head, |put| {
            put.text("t", "\u{2}\\");
            put.int("i", i64::MIN);
        });
        let text = String::from_utf8(out).unwrap();
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["remark"], remark);
        assert_eq!(value["extFields"]["i"], i64::MIN.to_string());
        assert_eq!(value["opaque"], i32::MIN);
        let mut index = Vec::new();
        let header = parse(&text, &mut index).unwrap();
        assert_eq!(header.remark, Some(Text::Plain(remark)));
        assert_eq!(header.fields.get("t"), Some(Text::Plain("\u{2}\\")));
    }
}
