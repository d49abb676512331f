//! How upstream writes keys: integers bare, objects as objects.

use std::io::{self, Write};

use serde::{Serialize, Serializer};
use serde_json::ser::{CharEscape, Formatter};

/// Stands before a key that is the text of an object. No name that upstream accepts begins so.
const OBJECT_KEY: char = '\u{1}';

/// A map key that [`write`](super::write) is to write as an object.
pub(super) struct ObjectKey<'a, K>(pub &'a K);

impl<K: Serialize> Serialize for ObjectKey<'_, K> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let text = serde_json::to_string(self.0).map_err(serde::ser::Error::custom)?;
        serializer.serialize_str(&format!("{OBJECT_KEY}{text}"))
    }
}

/// A quote is held back until it is known what follows it: a number, an object or a text.
#[derive(Default)]
pub(super) struct Dialect {
    text: TextState,
    in_key: bool,
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
        self.in_key = true;
        if first { Ok(()) } else { writer.write_all(b",") }
    }

    fn end_object_key<W: ?Sized + Write>(&mut self, _: &mut W) -> io::Result<()> {
        self.in_key = false;
        Ok(())
    }

    fn begin_string<W: ?Sized + Write>(&mut self, _: &mut W) -> io::Result<()> {
        self.text = TextState::Opening;
        Ok(())
    }

    fn end_string<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.open_quote(writer)?;
        let is_quoted = std::mem::take(&mut self.text) == TextState::Quoted;
        if is_quoted { writer.write_all(b"\"") } else { Ok(()) }
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
            (TextState::Opening, CharEscape::AsciiControl(byte))
                if self.in_key && *byte == OBJECT_KEY as u8 =>
            {
                self.text = TextState::Bare;
                Ok(())
            }
            (TextState::Bare, CharEscape::Quote) => writer.write_all(b"\""),
            (TextState::Bare, CharEscape::ReverseSolidus) => writer.write_all(b"\\"),
            _ => {
                self.open_quote(writer)?;
                serde_json::ser::CompactFormatter.write_char_escape(writer, escape)
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
