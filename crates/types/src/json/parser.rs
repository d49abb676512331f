//! The lenient parser: text to [`Value`], by recursive descent. Spec `json-quirks.md` 1.2.

use serde_json::{Map, Number, Value};

use super::JsonError;
use crate::limits::{JSON_DEPTH_MAX, JSON_REFERENCED_MAX};

/// Reads one value. A key that is an object becomes its own text.
pub(super) fn parse(text: &str) -> Result<Value, JsonError> {
    let mut parser = Parser { text, at: 0, has_refs: false };
    let value = parser.value(0)?;
    parser.blanks()?;
    if parser.at < text.len() {
        return Err(parser.expected("the end"));
    }
    if !parser.has_refs {
        return Ok(value);
    }
    let mut budget = JSON_REFERENCED_MAX;
    unfold(&value, &value, 0, &mut budget)
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
    has_refs: bool,
}

impl Parser<'_> {
    fn value(&mut self, depth: usize) -> Result<Value, JsonError> {
        if depth == JSON_DEPTH_MAX {
            return Err(JsonError::TooDeep(JSON_DEPTH_MAX));
        }
        self.blanks()?;
        match self.peek() {
            Some(b'{') => self.object(depth).map(Value::Object),
            Some(b'[') => self.array(depth),
            Some(quote @ (b'"' | b'\'')) => self.string(quote).map(Value::String),
            Some(b'-' | b'+' | b'.' | b'0'..=b'9') => self.number(),
            _ => self.word(),
        }
    }

    fn object(&mut self, depth: usize) -> Result<Map<String, Value>, JsonError> {
        let mut members = Map::new();
        self.at += 1;
        loop {
            self.blanks()?;
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b'}') => break,
                _ => {
                    let key = self.key(depth)?;
                    self.blanks()?;
                    if self.peek() != Some(b':') {
                        return Err(self.expected("`:`"));
                    }
                    self.at += 1;
                    self.has_refs |= key == "$ref";
                    let value = self.value(depth + 1)?;
                    members.insert(key, value);
                    self.after_item(b'}')?;
                }
            }
        }
        self.at += 1;
        Ok(members)
    }

    fn array(&mut self, depth: usize) -> Result<Value, JsonError> {
        let mut items = Vec::new();
        self.at += 1;
        loop {
            self.blanks()?;
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b']') => break,
                _ => {
                    items.push(self.value(depth + 1)?);
                    self.after_item(b']')?;
                }
            }
        }
        self.at += 1;
        Ok(Value::Array(items))
    }

    fn after_item(&mut self, close: u8) -> Result<(), JsonError> {
        self.blanks()?;
        match self.peek() {
            Some(byte) if byte == b',' || byte == close => Ok(()),
            _ => Err(self.expected("`,` or the end of the list")),
        }
    }

    fn key(&mut self, depth: usize) -> Result<String, JsonError> {
        match self.peek() {
            Some(quote @ (b'"' | b'\'')) => self.string(quote),
            // An object as key of an object as key: each level doubles the escapes of its text.
            Some(b'{') => Ok(self.value(depth.max(JSON_DEPTH_MAX - 4) + 1)?.to_string()),
            _ => Ok(self.bare("a key")?.to_owned()),
        }
    }

    /// A run of letters, digits, `_`, `$`, `-`, `.` and `+`.
    fn bare(&mut self, expected: &'static str) -> Result<&str, JsonError> {
        let rest = &self.text[self.at..];
        let is_part = |c: char| c.is_alphanumeric() || matches!(c, '_' | '$' | '-' | '.' | '+');
        let len = rest.find(|c| !is_part(c)).unwrap_or(rest.len());
        if len == 0 {
            return Err(self.expected(expected));
        }
        self.at += len;
        Ok(&rest[..len])
    }

    fn word(&mut self) -> Result<Value, JsonError> {
        let start = self.at;
        match self.bare("a value")? {
            "true" => Ok(Value::Bool(true)),
            "false" => Ok(Value::Bool(false)),
            "null" | "undefined" | "NaN" => Ok(Value::Null),
            _ => Err(JsonError::Malformed { at: start, expected: "a value" }),
        }
    }

    fn number(&mut self) -> Result<Value, JsonError> {
        let start = self.at;
        let digits = self.bare("a number")?;
        let number = match (digits.parse::<i64>(), digits.parse::<u64>()) {
            (Ok(number), _) => Some(Number::from(number)),
            (_, Ok(number)) => Some(Number::from(number)),
            _ => digits.parse().ok().and_then(Number::from_f64),
        };
        number.map(Value::Number).ok_or(JsonError::Malformed { at: start, expected: "a number" })
    }

    fn string(&mut self, quote: u8) -> Result<String, JsonError> {
        let mut value = String::new();
        self.at += 1;
        loop {
            let rest = &self.text[self.at..];
            let is_end = |c: char| c == char::from(quote) || c == '\\';
            let len = rest.find(is_end).ok_or_else(|| self.expected("the closing quote"))?;
            value.push_str(&rest[..len]);
            self.at += len + 1;
            if rest.as_bytes()[len] == quote {
                return Ok(value);
            }
            value.push(self.escape()?);
        }
    }

    /// What stands after a backslash.
    fn escape(&mut self) -> Result<char, JsonError> {
        let kind = self.text[self.at..].chars().next();
        let kind = kind.ok_or_else(|| self.expected("an escape"))?;
        self.at += kind.len_utf8();
        Ok(match kind {
            'b' => '\u{8}',
            'f' => '\u{c}',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'x' => char::from(self.hex(2)? as u8),
            'u' => self.unicode()?,
            other => other,
        })
    }

    /// A UTF-16 unit, or two that form a pair; a lone surrogate becomes U+FFFD.
    fn unicode(&mut self) -> Result<char, JsonError> {
        let high = self.hex(4)?;
        if !(0xD800..0xDC00).contains(&high) || !self.text[self.at..].starts_with("\\u") {
            return Ok(char::from_u32(high).unwrap_or(char::REPLACEMENT_CHARACTER));
        }
        let back = self.at;
        self.at += 2;
        let low = self.hex(4)?;
        if (0xDC00..0xE000).contains(&low) {
            let scalar = 0x10000 + ((high - 0xD800) << 10) + (low - 0xDC00);
            return Ok(char::from_u32(scalar).expect("a surrogate pair is a scalar"));
        }
        self.at = back;
        Ok(char::REPLACEMENT_CHARACTER)
    }

    fn hex(&mut self, len: usize) -> Result<u32, JsonError> {
        let digits = self.text.get(self.at..self.at + len);
        let digits = digits.filter(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()));
        let number = digits.and_then(|digits| u32::from_str_radix(digits, 16).ok());
        self.at += len;
        number.ok_or(JsonError::Malformed { at: self.at - len, expected: "hex digits" })
    }

    /// Skips white space and comments.
    fn blanks(&mut self) -> Result<(), JsonError> {
        loop {
            let rest = &self.text[self.at..];
            let trimmed = rest.trim_start_matches([' ', '\t', '\r', '\n', '\u{feff}']);
            self.at += rest.len() - trimmed.len();
            self.at += if trimmed.starts_with("/*") {
                trimmed.find("*/").ok_or_else(|| self.expected("the comment's end"))? + 2
            } else if trimmed.starts_with("//") {
                trimmed.find('\n').unwrap_or(trimmed.len())
            } else {
                return Ok(());
            };
        }
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn expected(&self, expected: &'static str) -> JsonError {
        JsonError::Malformed { at: self.at, expected }
    }
}

/// A copy of `value` with every `{"$ref": path}` replaced by what `path` leads to in `root`.
/// References to oneself (`@`) or a parent (`..`) would never end and become null.
fn unfold(
    value: &Value,
    root: &Value,
    depth: usize,
    budget: &mut usize,
) -> Result<Value, JsonError> {
    if depth == JSON_DEPTH_MAX {
        return Err(JsonError::TooDeep(JSON_DEPTH_MAX));
    }
    *budget = budget.checked_sub(1).ok_or(JsonError::TooLarge(JSON_REFERENCED_MAX))?;
    match value {
        Value::Array(items) => {
            let items = items.iter().map(|item| unfold(item, root, depth + 1, budget));
            Ok(Value::Array(items.collect::<Result<_, _>>()?))
        }
        Value::Object(members) => {
            if let Some(Value::String(path)) = members.get("$ref") {
                let target = follow(path, root).unwrap_or(&Value::Null);
                return unfold(target, root, depth + 1, budget);
            }
            let members = members
                .iter()
                .map(|(key, value)| Ok((key.clone(), unfold(value, root, depth + 1, budget)?)));
            Ok(Value::Object(members.collect::<Result<_, _>>()?))
        }
        plain => Ok(plain.clone()),
    }
}

/// Follows `$.a.b[0]`.
fn follow<'v>(path: &str, root: &'v Value) -> Option<&'v Value> {
    let steps = path.strip_prefix('$')?.split(['.', '[', ']']).filter(|step| !step.is_empty());
    steps.into_iter().try_fold(root, |value, step| match value {
        Value::Array(items) => items.get(step.parse::<usize>().ok()?),
        value => value.get(step),
    })
}
