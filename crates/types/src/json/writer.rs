//! How upstream writes keys: integers bare, objects as objects.

use std::collections::BTreeMap;
use std::io::{self, Write};

use serde::ser::{Error, SerializeMap};
use serde::{Serialize, Serializer};
use serde_json::ser::{CharEscape, CompactFormatter, Formatter};

/// An object as key takes two entries of a map, told by keys that no other map has: the first
/// has the text of the key as its value, the second the value that belongs to it. A mark within
/// the key's text would not do: a peer's text could hold it.
const KEY_ENTRY: i128 = 0;
const VALUE_ENTRY: i128 = 1;

/// Serializes a map whose keys [`write`](super::write) is to write as objects.
pub(super) fn object_keys<K: Serialize, V: Serialize, S: Serializer>(
    map: &BTreeMap<K, V>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    let mut entries = serializer.serialize_map(Some(2 * map.len()))?;
    for (key, value) in map {
        let text = serde_json::to_string(key).map_err(S::Error::custom)?;
        entries.serialize_entry(&KEY_ENTRY, &text)?;
        entries.serialize_entry(&VALUE_ENTRY, value)?;
    }
    entries.end()
}

/// A quote is held back until it is known what follows it: a number, an object or a text.
#[derive(Default)]
pub(super) struct Dialect {
    text: TextState,
    key: KeyState,
}

#[derive(Default, Clone, Copy, PartialEq)]
enum TextState {
    #[default]
    Outside,
    /// The opening quote has not been written yet.
    Opening,
    Quoted,
    /// A key without quotes: a number, or an object whose own quotes are not escaped.
    Bare,
}

#[derive(Default, Clone, Copy, PartialEq)]
enum KeyState {
    #[default]
    Plain,
    /// Between [`KEY_ENTRY`] and the end of its value: the next text is an object.
    Object,
    /// The object has been written; [`VALUE_ENTRY`] is next.
    Written,
}

impl Dialect {
    fn open_quote<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        if self.text == TextState::Opening {
            self.text = TextState::Quoted;
            writer.write_all(b"\"")?;
        }
        Ok(())
    }

    fn integer<W: ?Sized + Write>(&mut self, writer: &mut W, value: i64) -> io::Result<()> {
        if self.text == TextState::Opening {
            self.text = TextState::Bare;
        }
        write!(writer, "{value}")
    }
}

impl Formatter for Dialect {
    fn begin_object_key<W: ?Sized + Write>(
        &mut self,
        writer: &mut W,
        first: bool,
    ) -> io::Result<()> {
        if first || self.key == KeyState::Written { Ok(()) } else { writer.write_all(b",") }
    }

    fn begin_object_value<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        if self.key == KeyState::Object { Ok(()) } else { writer.write_all(b":") }
    }

    fn write_i128<W: ?Sized + Write>(&mut self, _: &mut W, entry: i128) -> io::Result<()> {
        self.text = TextState::Bare;
        self.key = if entry == KEY_ENTRY { KeyState::Object } else { KeyState::Plain };
        Ok(())
    }

    fn begin_string<W: ?Sized + Write>(&mut self, _: &mut W) -> io::Result<()> {
        let is_object = self.key == KeyState::Object;
        self.text = if is_object { TextState::Bare } else { TextState::Opening };
        Ok(())
    }

    fn end_string<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.open_quote(writer)?;
        let is_quoted = std::mem::take(&mut self.text) == TextState::Quoted;
        if is_quoted { writer.write_all(b"\"") } else { Ok(()) }
    }

    fn end_object_value<W: ?Sized + Write>(&mut self, _: &mut W) -> io::Result<()> {
        if self.key == KeyState::Object {
            self.key = KeyState::Written;
        }
        Ok(())
    }

    fn write_string_fragment<W: ?Sized + Write>(
        &mut self,
        writer: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        self.open_quote(writer)?;
        writer.write_all(fragment.as_bytes())
    }

    fn write_char_escape<W: ?Sized + Write>(
        &mut self,
        writer: &mut W,
        escape: CharEscape,
    ) -> io::Result<()> {
        match (self.text, &escape) {
            (TextState::Bare, CharEscape::Quote) => writer.write_all(b"\""),
            (TextState::Bare, CharEscape::ReverseSolidus) => writer.write_all(b"\\"),
            _ => {
                self.open_quote(writer)?;
                CompactFormatter.write_char_escape(writer, escape)
            }
        }
    }

    fn write_i64<W: ?Sized + Write>(&mut self, writer: &mut W, value: i64) -> io::Result<()> {
        self.integer(writer, value)
    }

    fn write_i32<W: ?Sized + Write>(&mut self, writer: &mut W, value: i32) -> io::Result<()> {
        self.integer(writer, i64::from(value))
    }
}
