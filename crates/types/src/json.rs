//! The dialect of JSON that upstream's library writes and accepts. Spec `json-quirks.md` 1.
//!
//! Legal JSON is read by `serde_json`. Only what that refuses goes through the lenient
//! [`parser`] (bare, integer and object keys, single quotes, comments, `$ref`) and [`coerce`]
//! (numbers as texts and texts as numbers).

mod coerce;
mod parser;
mod writer;

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Why a text is no value of the wanted type.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JsonError {
    #[error("not UTF-8")]
    NotUtf8,
    #[error("malformed at byte {at}: expected {expected}")]
    Malformed { at: usize, expected: &'static str },
    #[error("nests deeper than {0}")]
    TooDeep(usize),
    #[error("its references unfold to more than {0} values")]
    TooLarge(usize),
    #[error("{0}")]
    Mismatch(String),
}

/// Reads a value, strictly if possible.
pub fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, JsonError> {
    let text = std::str::from_utf8(body).map_err(|_| JsonError::NotUtf8)?;
    // A reference is legal JSON, but of another meaning than it seems.
    if !text.contains("$ref")
        && let Ok(value) = serde_json::from_str(text)
    {
        return Ok(value);
    }
    coerce::from_value(parser::parse(text)?)
}

/// Writes upstream's form: integer keys bare, those of [`object_keys`] as objects.
#[must_use]
pub fn write<T: Serialize>(value: &T) -> Vec<u8> {
    let mut out = Vec::new();
    let mut serializer =
        serde_json::Serializer::with_formatter(&mut out, writer::Dialect::default());
    value.serialize(&mut serializer).expect("our types have keys that are texts or numbers");
    out
}

/// Writes legal JSON: all keys quoted.
#[must_use]
pub fn write_standard<T: Serialize>(value: &T) -> Vec<u8> {
    serde_json::to_vec(value).expect("our types have keys that are texts or numbers")
}

/// For `#[serde(with = "json::object_keys")]`: a map whose keys are objects, such as queues.
/// Only [`write`] writes it.
pub mod object_keys {
    use std::collections::BTreeMap;

    use serde::de::{DeserializeOwned, Error as _};
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::writer;

    pub fn serialize<K, V, S>(map: &BTreeMap<K, V>, serializer: S) -> Result<S::Ok, S::Error>
    where
        K: Serialize,
        V: Serialize,
        S: Serializer,
    {
        writer::object_keys(map, serializer)
    }

    pub fn deserialize<'de, K, V, D>(deserializer: D) -> Result<BTreeMap<K, V>, D::Error>
    where
        K: DeserializeOwned + Ord,
        V: Deserialize<'de>,
        D: Deserializer<'de>,
    {
        let map = BTreeMap::<String, V>::deserialize(deserializer)?;
        let key = |text: &str| super::read(text.as_bytes()).map_err(D::Error::custom);
        map.into_iter().map(|(text, value)| Ok((key(&text)?, value))).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::{Value, json};

    use super::*;

    fn lenient(text: &str) -> Value {
        coerce::from_value(parser::parse(text).unwrap()).unwrap()
    }

    #[test]
    fn what_fastjson_accepts_is_read() {
        let text = r#" /* c */ { a : 'x\'"y', 1:[1,-2.5e1,true,null,], "d":1, // line
            "d":2 , _b$:{}, } "#;
        let expected = json!({"a": "x'\"y", "1": [1, -25.0, true, null], "d": 2, "_b$": {}});
        assert_eq!(lenient(text), expected);
    }

    #[test]
    fn object_keys_become_texts() {
        let value = lenient(r#"{{"queueId":0,"topic":"T"}:5,{}:6}"#);
        assert_eq!(value, json!({r#"{"queueId":0,"topic":"T"}"#: 5, "{}": 6}));
    }

    #[test]
    fn references_are_replaced_by_what_they_mean() {
        let text = r#"{"a":[{"b":1},{"$ref":"$.a[0]"}],"c":{"$ref":"$.a[1]"},"d":{"$ref":".."}}"#;
        assert_eq!(lenient(text), json!({"a":[{"b":1},{"b":1}],"c":{"b":1},"d":null}));
    }

    #[test]
    fn references_cannot_unfold_without_end() {
        assert!(parser::parse(r#"{"a":{"$ref":"$"}}"#).is_err());
        let bomb: Vec<String> = (0..40)
            .map(|i| format!(r#""a{i}":[{{"$ref":"$.a{n}"}},{{"$ref":"$.a{n}"}}]"#, n = i + 1))
            .collect();
        assert!(parser::parse(&format!("{{{},\"a40\":1}}", bomb.join(","))).is_err());
    }

    #[test]
    fn malformed_and_deep_texts_are_errors() {
        for text in
            ["", "{", "[1", "{a}", "{a:}", "'x", "{\"a\":1}x", "tru", "/*", "\"\\u12\"", "-"]
        {
            assert!(parser::parse(text).is_err(), "{text}");
        }
        for open in ["[", "{a:", "{"] {
            assert!(parser::parse(&open.repeat(100_000)).is_err(), "{open}");
        }
    }

    #[test]
    fn numbers_and_texts_stand_for_each_other() {
        assert_eq!(read::<Vec<i64>>(b"[\"12\",3,4.0,null]"), Ok(vec![12, 3, 4, 0]));
        assert_eq!(read::<Vec<String>>(b"[1,true,\"x\"]").unwrap(), ["1", "true", "x"]);
        assert_eq!(read::<Vec<bool>>(b"[\"TRUE\",1,\"no\"]"), Ok(vec![true, true, false]));
        assert_eq!(read::<BTreeMap<i64, f64>>(b"{0:\"1.5\"}"), Ok([(0, 1.5)].into()));
        assert!(read::<Vec<i64>>(b"[\"x\"]").is_err());
    }

    #[test]
    fn object_keys_are_written_as_objects_and_no_text_passes_for_one() {
        #[derive(serde::Serialize)]
        struct Table(#[serde(with = "object_keys")] BTreeMap<BTreeMap<String, i32>, Vec<i64>>);
        let key = |name: &str| BTreeMap::from([(name.to_owned(), 1)]);
        let table = Table([(key("a"), vec![1, 2]), (key("\"\\\n"), vec![])].into());
        assert_eq!(write(&table), br#"{{"\"\\\n":1}:[],{"a":1}:[1,2]}"#);
        assert_eq!(write(&Table(BTreeMap::new())), b"{}");
        let forged = json!({"\u{1}{\"a\"": "\u{1}"});
        assert_eq!(read(&write(&forged)), Ok(forged));
    }

    #[test]
    fn numbers_beyond_an_integer_are_the_same_after_each_reading() {
        let text = "5".repeat(60);
        let value: Value = read(text.as_bytes()).unwrap();
        let again: Value = read(&write(&value)).unwrap();
        assert_eq!(value, again);
    }

    #[test]
    fn integer_keys_are_written_bare_and_texts_are_not() {
        let map = BTreeMap::from([(1, "a\"b"), (2, "")]);
        assert_eq!(write(&map), br#"{1:"a\"b",2:""}"#);
        assert_eq!(write_standard(&map), br#"{"1":"a\"b","2":""}"#);
        assert_eq!(write(&json!({"": {"7": 7, "{x": [1.5]}})), br#"{"":{"7":7,"{x":[1.5]}}"#);
    }
}
