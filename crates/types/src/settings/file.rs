//! Text of `java.util.Properties` to keys and values, each with its line. Rules: spec `config.md`
//! 1.1.

use std::iter::Peekable;
use std::str::Chars;

/// One `key=value`, and the line on which it starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub line: usize,
    pub key: String,
    pub value: String,
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: `\\u` must be followed by four hex digits")]
pub struct BadEscape {
    line: usize,
}

/// The entries of a file, in its order; a key may come twice, and then the last one counts.
pub fn parse(bytes: &[u8]) -> Result<Vec<Entry>, BadEscape> {
    let text = decode(bytes);
    let mut lines = text.split('\n').enumerate();
    let mut entries = Vec::new();
    while let Some((index, first)) = lines.next() {
        let mut logical = skip_blanks(first).to_owned();
        if logical.is_empty() || logical.starts_with(['#', '!']) {
            continue;
        }
        while is_continued(&logical) {
            logical.pop();
            let Some((_, next)) = lines.next() else { break };
            logical.push_str(skip_blanks(next));
        }
        let line = index + 1;
        entries.push(entry(line, &logical).ok_or(BadEscape { line })?);
    }
    Ok(entries)
}

/// UTF-8, as people write it, else Latin-1, as Java reads it. Line ends become `\n`.
fn decode(bytes: &[u8]) -> String {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text.to_owned(),
        Err(_) => bytes.iter().map(|byte| char::from(*byte)).collect(),
    };
    text.replace("\r\n", "\n").replace('\r', "\n")
}

fn is_blank(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\x0c')
}

fn skip_blanks(line: &str) -> &str {
    line.trim_start_matches(is_blank)
}

/// Whether a line ends in an odd number of backslashes.
fn is_continued(line: &str) -> bool {
    (line.len() - line.trim_end_matches('\\').len()) % 2 == 1
}

fn entry(line: usize, text: &str) -> Option<Entry> {
    let mut chars = text.chars().peekable();
    let key = unescaped(&mut chars, |c| is_blank(c) || matches!(c, '=' | ':'))?;
    while chars.next_if(|c| is_blank(*c)).is_some() {}
    chars.next_if(|c| matches!(c, '=' | ':'));
    while chars.next_if(|c| is_blank(*c)).is_some() {}
    let value = unescaped(&mut chars, |_| false)?;
    Some(Entry { line, key, value })
}

/// Reads up to an unescaped character for which `ends` holds; `None` after a bad `\u`.
fn unescaped(chars: &mut Peekable<Chars<'_>>, ends: impl Fn(char) -> bool) -> Option<String> {
    // UTF-16, because that is what `\u` escapes are: two of them can make one character.
    let mut units = Vec::new();
    while let Some(c) = chars.next_if(|c| !ends(*c)) {
        let c = match c {
            '\\' => match chars.next() {
                None => break,
                Some('t') => '\t',
                Some('n') => '\n',
                Some('r') => '\r',
                Some('f') => '\x0c',
                Some('u') => {
                    units.push(code_unit(chars)?);
                    continue;
                }
                Some(other) => other,
            },
            other => other,
        };
        units.extend_from_slice(c.encode_utf16(&mut [0; 2]));
    }
    Some(String::from_utf16_lossy(&units))
}

fn code_unit(chars: &mut Peekable<Chars<'_>>) -> Option<u16> {
    let mut digit = |unit: u16| Some(unit << 4 | chars.next()?.to_digit(16)? as u16);
    (0..4).try_fold(0, |unit, _| digit(unit))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(text: &str) -> Vec<(usize, String, String)> {
        let entries = parse(text.as_bytes()).unwrap();
        entries.into_iter().map(|entry| (entry.line, entry.key, entry.value)).collect()
    }

    fn one(text: &str) -> (String, String) {
        let (_, key, value) = pairs(text).remove(0);
        (key, value)
    }

    #[test]
    fn separators_and_white_space_are_java_s() {
        let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        assert_eq!(one("a=b"), pair("a", "b"));
        assert_eq!(one(" a : b "), pair("a", "b "));
        assert_eq!(one("a b=c"), pair("a", "b=c"));
        assert_eq!(one("a==c"), pair("a", "=c"));
        assert_eq!(one("a"), pair("a", ""));
        assert_eq!(one("brokerId=0 # master"), pair("brokerId", "0 # master"));
        assert_eq!(one(r"a\=b=c"), pair("a=b", "c"));
        assert_eq!(one(r"a=C:\rocketmq"), pair("a", "C:\rocketmq"));
        assert_eq!(one(r"a=\u4e2d\ud83d\ude00"), pair("a", "中😀"));
    }

    #[test]
    fn comments_and_continuations_keep_the_line_numbers() {
        let text = "# one\\\n! two\n\na = 1\\\n   2\\\n#3\r\nb=4\\\\\rc=5\\";
        let expected = [(4, "a", "12#3"), (7, "b", "4\\"), (8, "c", "5")];
        let expected = expected.map(|(line, key, value)| (line, key.to_owned(), value.to_owned()));
        assert_eq!(pairs(text), expected);
    }

    #[test]
    fn bytes_that_are_not_utf8_are_latin_1_and_a_byte_order_mark_is_dropped() {
        assert_eq!(parse(b"\xef\xbb\xbfa=\xc3\xa9").unwrap()[0].value, "é");
        assert_eq!(parse(b"\xef\xbb\xbfa=b").unwrap()[0].key, "a");
        assert_eq!(parse(b"a=\xe9").unwrap()[0].value, "é");
    }

    #[test]
    fn a_broken_escape_names_its_line() {
        assert_eq!(parse(b"a=1\nb=\\u12"), Err(BadEscape { line: 2 }));
        assert_eq!(parse(b"b=\\u12g4"), Err(BadEscape { line: 1 }));
    }
}
