//! The fields of a header: name-value text pairs, and how typed values are read from them.

use std::borrow::Cow;
use std::cell::Cell;

use super::table::FieldInfo;

/// Where one field lies in its header's text. Kept apart from the text, so that one list serves
/// every frame of a connection.
#[derive(Debug, Clone, Copy)]
pub struct FieldIndex {
    pub(super) name_start: u32,
    pub(super) name_len: u32,
    pub(super) value_start: u32,
    pub(super) value_len: u32,
    /// The value holds JSON escapes.
    pub(super) escaped: bool,
}

/// The fields of one header, borrowed.
#[derive(Debug, Clone)]
pub struct ExtFields<'a> {
    source: Source<'a>,
    index: &'a [FieldIndex],
    /// Where the last look-up hit: senders write fields in one order and we read in the same.
    cursor: Cell<usize>,
}

/// What [`FieldIndex`] points into.
#[derive(Debug, Clone, Copy)]
pub(super) enum Source<'a> {
    Json(&'a str),
    /// Lengths stand between the texts, so the whole is no text; each part was checked to be one.
    Binary(&'a [u8]),
}

/// A text value as it stands in a header: perhaps with JSON escapes.
#[derive(Debug, Clone, Copy)]
pub enum Text<'a> {
    Plain(&'a str),
    /// The text between the quotes, escapes and all; checked to be well-formed.
    Escaped(&'a str),
}

/// A field that is missing or does not hold what it should.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FieldError {
    #[error("the request lacks the field `{0}`")]
    Missing(&'static str),
    #[error("the field `{name}` is `{value}`, which is not a {expected}")]
    Invalid { name: &'static str, value: String, expected: &'static str },
}

/// Typed header fields of a request or response.
pub trait Fields<'a>: Sized {
    /// Their names and types, for the manual.
    const LIST: &'static [FieldInfo];
    fn decode(fields: &ExtFields<'a>) -> Result<Self, FieldError>;
    fn encode(&self, put: &mut dyn PutFields);
}

/// Takes the fields of a header one by one; one implementation for each header encoding.
pub trait PutFields {
    fn text(&mut self, name: &str, value: &str);
    fn int(&mut self, name: &str, value: i64);
    fn bool(&mut self, name: &str, value: bool) {
        self.text(name, if value { "true" } else { "false" });
    }
}

/// A type that a field can have.
pub trait FieldType<'a>: Sized {
    /// A field of this type may be absent.
    const OPTIONAL: bool = false;
    fn decode(name: &'static str, value: Option<Text<'a>>) -> Result<Self, FieldError>;
    fn encode(&self, name: &'static str, put: &mut dyn PutFields);
}

impl<'a> ExtFields<'a> {
    pub(super) fn new(source: Source<'a>, index: &'a [FieldIndex]) -> Self {
        Self { source, index, cursor: Cell::new(0) }
    }

    pub(super) fn index(&self) -> &'a [FieldIndex] {
        self.index
    }

    /// No fields at all.
    #[must_use]
    pub fn empty() -> Self {
        Self::new(Source::Json(""), &[])
    }

    /// The value of `name`; of a repeated name the one that is met first.
    #[inline(always)]
    #[must_use]
    pub fn get(&self, name: &str) -> Option<Text<'a>> {
        let next = self.cursor.get();
        let at = match self.index.get(next) {
            Some(field) if self.is_named(field, name) => next,
            _ => self.find(name, next)?,
        };
        self.cursor.set(at + 1);
        Some(self.value(&self.index[at]))
    }

    /// Looks from `start` to the end, then from the beginning.
    #[cold]
    fn find(&self, name: &str, start: usize) -> Option<usize> {
        let (head, tail) = self.index.split_at(start.min(self.index.len()));
        let hit = |field: &FieldIndex| self.is_named(field, name);
        let in_tail = tail.iter().position(hit).map(|at| start + at);
        in_tail.or_else(|| head.iter().position(hit))
    }

    #[inline(always)]
    fn is_named(&self, field: &FieldIndex, name: &str) -> bool {
        // Names of one letter are the most frequent, and a call costs more than they do.
        let (found, name) = (self.source.bytes(field.name_start, field.name_len), name.as_bytes());
        found.len() == name.len() && found.first() == name.first() && found[1..] == name[1..]
    }

    pub fn iter(&self) -> impl Iterator<Item = (&'a str, Text<'a>)> + '_ {
        self.index.iter().map(|field| (self.name(field), self.value(field)))
    }

    fn name(&self, field: &FieldIndex) -> &'a str {
        self.source.part(field.name_start, field.name_len)
    }

    #[inline]
    fn value(&self, field: &FieldIndex) -> Text<'a> {
        let raw = self.source.part(field.value_start, field.value_len);
        if field.escaped { Text::Escaped(raw) } else { Text::Plain(raw) }
    }
}

impl<'a> Source<'a> {
    #[inline]
    fn bytes(self, start: u32, len: u32) -> &'a [u8] {
        let bytes = match self {
            Self::Json(text) => text.as_bytes(),
            Self::Binary(bytes) => bytes,
        };
        &bytes[start as usize..start as usize + len as usize]
    }

    #[inline]
    fn part(self, start: u32, len: u32) -> &'a str {
        let range = start as usize..start as usize + len as usize;
        match self {
            Self::Json(text) => &text[range],
            Self::Binary(bytes) => {
                std::str::from_utf8(&bytes[range]).expect("checked when the header was read")
            }
        }
    }
}

impl<'a> Text<'a> {
    /// The text without escapes; allocates only if there are any.
    #[must_use]
    pub fn to_cow(self) -> Cow<'a, str> {
        match self {
            Self::Plain(text) => Cow::Borrowed(text),
            Self::Escaped(raw) => {
                let mut bytes = Vec::with_capacity(raw.len());
                unescape(raw, &mut bytes);
                Cow::Owned(String::from_utf8_lossy(&bytes).into_owned())
            }
        }
    }

    /// Appends the text without escapes.
    pub fn append_to(self, out: &mut Vec<u8>) {
        match self {
            Self::Plain(text) => out.extend_from_slice(text.as_bytes()),
            Self::Escaped(raw) => unescape(raw, out),
        }
    }

    #[must_use]
    pub fn is_empty(self) -> bool {
        let (Self::Plain(text) | Self::Escaped(text)) = self;
        text.is_empty()
    }

    /// The text, if it holds no escapes. Names of topics and groups never do.
    #[must_use]
    pub fn plain(self) -> Option<&'a str> {
        match self {
            Self::Plain(text) => Some(text),
            Self::Escaped(_) => None,
        }
    }
}

impl<'a> From<&'a str> for Text<'a> {
    fn from(text: &'a str) -> Self {
        Self::Plain(text)
    }
}

impl PartialEq for Text<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.to_cow() == other.to_cow()
    }
}

/// Appends `raw` with its JSON escapes resolved. A lone surrogate becomes U+FFFD.
fn unescape(raw: &str, out: &mut Vec<u8>) {
    let mut rest = raw.as_bytes();
    while let Some(at) = memchr::memchr(b'\\', rest) {
        out.extend_from_slice(&rest[..at]);
        let kind = rest.get(at + 1).copied().unwrap_or(b'\\');
        rest = rest.get(at + 2..).unwrap_or_default();
        let plain = match kind {
            b'u' => {
                rest = unescape_unit(rest, out);
                continue;
            }
            b'b' => 0x08,
            b'f' => 0x0C,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            other => other,
        };
        out.push(plain);
    }
    out.extend_from_slice(rest);
}

/// Resolves the four digits after `\u`, and a second escape if the two form a surrogate pair.
fn unescape_unit<'r>(rest: &'r [u8], out: &mut Vec<u8>) -> &'r [u8] {
    let Some(unit) = hex_unit(rest) else { return rest };
    let mut rest = &rest[4..];
    if unit < 0x80 {
        out.push(unit as u8);
        return rest;
    }
    let mut scalar = char::from_u32(unit);
    if (0xD800..0xDC00).contains(&unit)
        && let Some(low) = rest.strip_prefix(b"\\u").and_then(hex_unit)
        && (0xDC00..0xE000).contains(&low)
    {
        scalar = char::from_u32(0x10000 + ((unit - 0xD800) << 10) + (low - 0xDC00));
        rest = &rest[6..];
    }
    let scalar = scalar.unwrap_or(char::REPLACEMENT_CHARACTER);
    out.extend_from_slice(scalar.encode_utf8(&mut [0; 4]).as_bytes());
    rest
}

/// The number of four hex digits at the start.
pub(super) fn hex_unit(digits: &[u8]) -> Option<u32> {
    let [a, b, c, d] = digits.first_chunk()?.map(|digit| HEX_VALUE[usize::from(digit)]);
    let is_hex = (a | b | c | d) < 16;
    is_hex.then(|| u32::from(a) << 12 | u32::from(b) << 8 | u32::from(c) << 4 | u32::from(d))
}

/// What a hex digit counts; 255 for any other byte.
const HEX_VALUE: [u8; 256] = {
    let mut values = [255; 256];
    let mut value = 0;
    while value < 16 {
        values[b"0123456789ABCDEF"[value as usize] as usize] = value;
        values[b"0123456789abcdef"[value as usize] as usize] = value;
        value += 1;
    }
    values
};

impl<'a> FieldType<'a> for Text<'a> {
    fn decode(name: &'static str, value: Option<Text<'a>>) -> Result<Self, FieldError> {
        value.ok_or(FieldError::Missing(name))
    }

    fn encode(&self, name: &'static str, put: &mut dyn PutFields) {
        put.text(name, &self.to_cow());
    }
}

impl<'a> FieldType<'a> for String {
    fn decode(name: &'static str, value: Option<Text<'a>>) -> Result<Self, FieldError> {
        Ok(value.ok_or(FieldError::Missing(name))?.to_cow().into_owned())
    }

    fn encode(&self, name: &'static str, put: &mut dyn PutFields) {
        put.text(name, self);
    }
}

impl<'a> FieldType<'a> for bool {
    /// As upstream: `true` in any case, anything else is false.
    fn decode(name: &'static str, value: Option<Text<'a>>) -> Result<Self, FieldError> {
        let value = value.ok_or(FieldError::Missing(name))?;
        Ok(value.plain().is_some_and(|text| text.eq_ignore_ascii_case("true")))
    }

    fn encode(&self, name: &'static str, put: &mut dyn PutFields) {
        put.bool(name, *self);
    }
}

impl<'a> FieldType<'a> for f64 {
    fn decode(name: &'static str, value: Option<Text<'a>>) -> Result<Self, FieldError> {
        number(name, value, "number")
    }

    fn encode(&self, name: &'static str, put: &mut dyn PutFields) {
        put.text(name, &self.to_string());
    }
}

macro_rules! integer_fields {
    ($($type:ty)*) => { $(
        impl<'a> FieldType<'a> for $type {
            #[inline]
            fn decode(name: &'static str, value: Option<Text<'a>>) -> Result<Self, FieldError> {
                let digits = value.and_then(Text::plain).and_then(digits);
                match digits.and_then(|int| Self::try_from(int).ok()) {
                    Some(int) => Ok(int),
                    None => number(name, value, stringify!($type)),
                }
            }

            fn encode(&self, name: &'static str, put: &mut dyn PutFields) {
                put.int(name, i64::from(*self));
            }
        }
    )* };
}
integer_fields!(i32 i64);

/// The number of up to 18 digits, as nearly all are, sooner than by `parse`.
#[inline]
fn digits(text: &str) -> Option<i64> {
    if !(1..=18).contains(&text.len()) {
        return None;
    }
    text.bytes().try_fold(0, |int, byte| {
        let digit = byte.wrapping_sub(b'0');
        (digit < 10).then(|| 10 * int + i64::from(digit))
    })
}

#[cold]
fn number<T: std::str::FromStr>(
    name: &'static str,
    value: Option<Text<'_>>,
    expected: &'static str,
) -> Result<T, FieldError> {
    let value = value.ok_or(FieldError::Missing(name))?;
    value.plain().and_then(|text| text.parse().ok()).ok_or_else(|| FieldError::Invalid {
        name,
        value: value.to_cow().into_owned(),
        expected,
    })
}

/// An absent field is `None`; so is an empty one, which the binary header cannot tell from it.
impl<'a, T: FieldType<'a>> FieldType<'a> for Option<T> {
    const OPTIONAL: bool = true;

    fn decode(name: &'static str, value: Option<Text<'a>>) -> Result<Self, FieldError> {
        match value.filter(|text| !text.is_empty()) {
            None => Ok(None),
            value => T::decode(name, value).map(Some),
        }
    }

    fn encode(&self, name: &'static str, put: &mut dyn PutFields) {
        if let Some(value) = self {
            value.encode(name, put);
        }
    }
}

/// Fields whose values are all equal after decoding: what two headers must share to be the same.
#[cfg(test)]
pub(super) fn sorted(fields: &ExtFields<'_>) -> Vec<(String, String)> {
    let mut all: Vec<_> =
        fields.iter().map(|(name, value)| (name.to_owned(), value.to_cow().into_owned())).collect();
    all.sort();
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_are_resolved() {
        let raw = r#"a\u0001\"\\\n\u00e9\ud83d\ude00\ud83dx"#;
        assert_eq!(Text::Escaped(raw).to_cow(), "a\u{1}\"\\\né😀\u{fffd}x");
    }
}
