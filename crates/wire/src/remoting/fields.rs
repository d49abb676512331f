//! The fields of a header: name-value text pairs, and how typed values are read from them.

use std::borrow::Cow;
use std::cell::Cell;
use std::ops::Range;

use apogee_types::scan;

use super::table::FieldInfo;

/// Where one field lies in its header's text. Kept apart from the text, so that one list serves
/// every frame of a connection.
#[derive(Debug, Clone, Copy)]
pub struct FieldIndex {
    /// The name's [`word`], which mostly is all of it.
    name_word: u64,
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
    /// With what their names begin, a bit for each letter: most fields that may be absent are, and
    /// this tells it without a search.
    letters: u64,
}

/// What [`FieldIndex`] points into.
#[derive(Debug, Clone, Copy)]
pub(super) enum Source<'a> {
    Json(&'a str),
    /// Lengths stand between the texts, so the whole is no text; each part was checked to be one.
    Binary(&'a [u8]),
}

/// A field's value where it lies in its header. Numbers are read from its bytes; only who wants
/// a text has the cost of one.
#[derive(Debug, Clone, Copy)]
pub struct Value<'f, 'a> {
    source: &'f Source<'a>,
    field: &'f FieldIndex,
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
    fn encode(&self, put: &mut (impl PutFields + ?Sized));
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
    fn decode(name: &'static str, value: Option<Value<'_, 'a>>) -> Result<Self, FieldError>;
    fn encode(&self, name: &'static str, put: &mut (impl PutFields + ?Sized));
}

impl FieldIndex {
    /// A field whose name and value lie there in `bytes`.
    #[inline]
    pub(super) fn new(
        bytes: &[u8],
        name: Range<usize>,
        value: Range<usize>,
        escaped: bool,
    ) -> Self {
        Self {
            name_word: word(&bytes[name.clone()]),
            name_start: name.start as u32,
            name_len: name.len() as u32,
            value_start: value.start as u32,
            value_len: value.len() as u32,
            escaped,
        }
    }
}

/// The first eight bytes of a name, in any order; as a number, since a call that compares bytes
/// costs more than most names do.
#[inline(always)]
fn word(name: &[u8]) -> u64 {
    name.iter().take(scan::WORD).fold(0, |word, byte| word << 8 | u64::from(*byte))
}

impl<'a> ExtFields<'a> {
    pub(super) fn new(source: Source<'a>, index: &'a [FieldIndex]) -> Self {
        let first = |field: &FieldIndex| source.bytes(field.name_start, field.name_len).first();
        let letters = index.iter().fold(0, |letters, field| letters | letter(first(field)));
        Self::with_letters(source, index, letters)
    }

    /// [`new`](Self::new) for names that are known.
    pub(super) fn with_letters(source: Source<'a>, index: &'a [FieldIndex], letters: u64) -> Self {
        Self { source, index, cursor: Cell::new(0), letters }
    }

    pub(super) fn index(&self) -> &'a [FieldIndex] {
        self.index
    }

    pub(super) fn letters(&self) -> u64 {
        self.letters
    }

    /// No fields at all.
    #[must_use]
    pub fn empty() -> Self {
        Self::new(Source::Json(""), &[])
    }

    /// The text of `name`; of a repeated name the one that is met first.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<Text<'a>> {
        self.value(name).map(Value::text)
    }

    /// [`get`](Self::get), not yet read.
    #[inline(always)]
    #[must_use]
    pub fn value(&self, name: &str) -> Option<Value<'_, 'a>> {
        let next = self.cursor.get();
        let at = match self.index.get(next) {
            Some(field) if self.is_named(field, name) => next,
            _ if self.letters & letter(name.as_bytes().first()) == 0 => return None,
            _ => self.find(name, next)?,
        };
        self.cursor.set(at + 1);
        Some(self.at(&self.index[at]))
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
        let name = name.as_bytes();
        field.name_word == word(name)
            && field.name_len as usize == name.len()
            && (name.len() <= scan::WORD
                || self.source.bytes(field.name_start, field.name_len) == name)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&'a str, Text<'a>)> + '_ {
        self.index.iter().map(|field| (self.name(field), self.at(field).text()))
    }

    fn name(&self, field: &FieldIndex) -> &'a str {
        self.source.part(field.name_start, field.name_len)
    }

    #[inline(always)]
    fn at<'f>(&'f self, field: &'f FieldIndex) -> Value<'f, 'a> {
        Value { source: &self.source, field }
    }
}

/// The bit of a name's first byte.
fn letter(first: Option<&u8>) -> u64 {
    first.map_or(0, |byte| 1 << (byte & 63))
}

impl<'a> Value<'_, 'a> {
    #[inline]
    fn text(self) -> Text<'a> {
        let raw = self.source.part(self.field.value_start, self.field.value_len);
        if self.field.escaped { Text::Escaped(raw) } else { Text::Plain(raw) }
    }

    /// As they stand there, with escapes if there are any.
    #[inline(always)]
    fn bytes(self) -> &'a [u8] {
        self.source.bytes(self.field.value_start, self.field.value_len)
    }
}

impl<'a> Source<'a> {
    #[inline(always)]
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
    let start = out.len();
    // No escape is shorter than what it stands for; whole words are written, so one more.
    out.resize(start + raw.len() + scan::WORD, 0);
    let mut rest = raw.as_bytes();
    let mut to = start;
    loop {
        let plain = scan::copy_until(rest, b'\\', &mut out[to..]);
        to += plain;
        // What stands between the names and values of properties.
        if let [_, b'u', b'0', b'0', b'0', separator @ (b'1' | b'2'), tail @ ..] = &rest[plain..] {
            out[to] = separator - b'0';
            to += 1;
            rest = tail;
            continue;
        }
        let Some(kind) = rest.get(plain + 1) else { break };
        rest = &rest[plain + 2..];
        let unescaped = match kind {
            b'u' => {
                let (len, tail) = unescape_unit(rest, &mut out[to..]);
                to += len;
                rest = tail;
                continue;
            }
            b'b' => 0x08,
            b'f' => 0x0C,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            other => *other,
        };
        out[to] = unescaped;
        to += 1;
    }
    out.truncate(to);
}

/// Resolves the four digits after `\u`, and a second escape if the two form a surrogate pair; how
/// many bytes that made, and what follows.
#[inline]
fn unescape_unit<'r>(rest: &'r [u8], out: &mut [u8]) -> (usize, &'r [u8]) {
    let Some(unit) = hex_unit(rest) else { return (0, rest) };
    let mut rest = &rest[4..];
    if unit < 0x80 {
        out[0] = unit as u8;
        return (1, rest);
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
    (scalar.encode_utf8(out).len(), rest)
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
    #[inline(always)]
    fn decode(name: &'static str, value: Option<Value<'_, 'a>>) -> Result<Self, FieldError> {
        value.map(Value::text).ok_or(FieldError::Missing(name))
    }

    #[inline(always)]
    fn encode(&self, name: &'static str, put: &mut (impl PutFields + ?Sized)) {
        match self {
            Self::Plain(text) => put.text(name, text),
            Self::Escaped(_) => put.text(name, &self.to_cow()),
        }
    }
}

impl<'a> FieldType<'a> for String {
    #[inline(always)]
    fn decode(name: &'static str, value: Option<Value<'_, 'a>>) -> Result<Self, FieldError> {
        Ok(Text::decode(name, value)?.to_cow().into_owned())
    }

    #[inline(always)]
    fn encode(&self, name: &'static str, put: &mut (impl PutFields + ?Sized)) {
        put.text(name, self);
    }
}

impl<'a> FieldType<'a> for bool {
    /// As upstream: `true` in any case, anything else is false.
    #[inline(always)]
    fn decode(name: &'static str, value: Option<Value<'_, 'a>>) -> Result<Self, FieldError> {
        let value = value.ok_or(FieldError::Missing(name))?;
        Ok(value.bytes().eq_ignore_ascii_case(b"true"))
    }

    #[inline(always)]
    fn encode(&self, name: &'static str, put: &mut (impl PutFields + ?Sized)) {
        put.bool(name, *self);
    }
}

impl<'a> FieldType<'a> for f64 {
    #[inline(always)]
    fn decode(name: &'static str, value: Option<Value<'_, 'a>>) -> Result<Self, FieldError> {
        number(name, value, "number")
    }

    #[inline(always)]
    fn encode(&self, name: &'static str, put: &mut (impl PutFields + ?Sized)) {
        put.text(name, &self.to_string());
    }
}

macro_rules! integer_fields {
    ($($type:ty)*) => { $(
        impl<'a> FieldType<'a> for $type {
            #[inline(always)]
    fn decode(name: &'static str, value: Option<Value<'_, 'a>>) -> Result<Self, FieldError> {
                let digits = value.and_then(|value| digits(value.bytes()));
                match digits.and_then(|int| Self::try_from(int).ok()) {
                    Some(int) => Ok(int),
                    None => number(name, value, stringify!($type)),
                }
            }

            #[inline(always)]
    fn encode(&self, name: &'static str, put: &mut (impl PutFields + ?Sized)) {
                put.int(name, i64::from(*self));
            }
        }
    )* };
}
integer_fields!(i32 i64);

/// The number of up to 18 digits, as nearly all are, sooner than by `parse`.
#[inline]
fn digits(bytes: &[u8]) -> Option<i64> {
    if !(1..=18).contains(&bytes.len()) {
        return None;
    }
    bytes.iter().try_fold(0, |int, byte| {
        let digit = byte.wrapping_sub(b'0');
        (digit < 10).then(|| 10 * int + i64::from(digit))
    })
}

#[cold]
fn number<T: std::str::FromStr>(
    name: &'static str,
    value: Option<Value<'_, '_>>,
    expected: &'static str,
) -> Result<T, FieldError> {
    let value = Text::decode(name, value)?;
    value.plain().and_then(|text| text.parse().ok()).ok_or_else(|| FieldError::Invalid {
        name,
        value: value.to_cow().into_owned(),
        expected,
    })
}

/// An absent field is `None`; so is an empty one, which the binary header cannot tell from it.
impl<'a, T: FieldType<'a>> FieldType<'a> for Option<T> {
    const OPTIONAL: bool = true;

    #[inline(always)]
    fn decode(name: &'static str, value: Option<Value<'_, 'a>>) -> Result<Self, FieldError> {
        match value.filter(|value| 0 < value.field.value_len) {
            None => Ok(None),
            value => T::decode(name, value).map(Some),
        }
    }

    #[inline(always)]
    fn encode(&self, name: &'static str, put: &mut (impl PutFields + ?Sized)) {
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
