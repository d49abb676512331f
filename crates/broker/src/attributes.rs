//! The attributes of topics: which there are, what they may be, and how a request changes them.
//! Rules: spec `broker.md` 8, `messages.md` 8.1.

use std::collections::BTreeMap;

use crate::error::Error;

type Attributes = BTreeMap<String, String>;

struct Attribute {
    name: &'static str,
    /// Otherwise it stays as the topic was created with.
    is_changeable: bool,
    values: Values,
    /// Values that upstream has, and this server would take without effect.
    unsupported: &'static [&'static str],
}

enum Values {
    OneOf(&'static [&'static str]),
    UpTo(i64),
}

/// What a number of an attribute is that says nothing.
const NO_NUMBER: i64 = -1;

const ATTRIBUTES: &[Attribute] = &[
    Attribute {
        name: "queue.type",
        is_changeable: false,
        values: Values::OneOf(&["SimpleCQ"]),
        unsupported: &["BatchCQ"],
    },
    Attribute {
        name: "cleanup.policy",
        is_changeable: false,
        values: Values::OneOf(&["DELETE"]),
        unsupported: &["COMPACTION"],
    },
    Attribute {
        name: "message.type",
        is_changeable: true,
        values: Values::OneOf(&[
            "UNSPECIFIED",
            "NORMAL",
            "FIFO",
            "DELAY",
            "TRANSACTION",
            "PRIORITY",
            "LITE",
        ]),
        unsupported: &["MIXED"],
    },
    Attribute {
        name: "reserve.time",
        is_changeable: true,
        values: Values::UpTo(i64::MAX),
        unsupported: &[],
    },
    Attribute {
        name: "lite.topic.expiration",
        is_changeable: true,
        values: Values::UpTo(30),
        unsupported: &[],
    },
];

impl Attribute {
    fn find(name: &str) -> Result<&'static Self, String> {
        let found = ATTRIBUTES.iter().find(|it| it.name == name);
        found.ok_or_else(|| format!("unsupported key: {name}"))
    }

    fn check(&self, value: &str) -> Result<(), String> {
        let name = self.name;
        if self.unsupported.contains(&value) {
            return Err(format!("{name}={value} is not supported by this server"));
        }
        match self.values {
            Values::OneOf(values) if !values.contains(&value) => {
                Err(format!("{name}={value}: it can be one of {}", values.join(", ")))
            }
            Values::UpTo(max)
                if !value.parse().is_ok_and(|it: i64| (NO_NUMBER..=max).contains(&it)) =>
            {
                Err(format!("{name}={value}: it can be {NO_NUMBER} to {max}"))
            }
            _ => Ok(()),
        }
    }
}

/// The attributes of a topic after a request. `known` are those that it has, `None` if it is new;
/// the keys of `changes` say with a sign what to do: `+key` sets, `-key` removes.
pub fn change(known: Option<&Attributes>, changes: &Attributes) -> Result<Attributes, Error> {
    let mut changed = known.cloned().unwrap_or_default();
    for (key, value) in changes {
        change_one(&mut changed, known.is_none(), key, value).map_err(Error::InvalidState)?;
    }
    Ok(changed)
}

fn change_one(
    attributes: &mut Attributes,
    is_new: bool,
    key: &str,
    value: &str,
) -> Result<(), String> {
    let fixed = |name: &str| format!("attempt to update an unchangeable attribute. key: {name}");
    if let Some(name) = key.strip_prefix('+') {
        let attribute = Attribute::find(name)?;
        if attributes.contains_key(name) && !attribute.is_changeable {
            return Err(fixed(name));
        }
        attribute.check(value)?;
        attributes.insert(name.to_owned(), value.to_owned());
        return Ok(());
    }
    let Some(name) = key.strip_prefix('-') else {
        return Err(format!("attribute `{key}` is neither +key=value nor -key"));
    };
    if is_new {
        return Err(format!("a new topic has no attribute to remove. key: {name}"));
    }
    if !attributes.contains_key(name) {
        return Err(format!("the topic does not have the attribute. key: {name}"));
    }
    if !Attribute::find(name)?.is_changeable {
        return Err(fixed(name));
    }
    attributes.remove(name);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&str, &str)]) -> Attributes {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[track_caller]
    fn is(known: Option<&[(&str, &str)]>, change: (&str, &str), after: &[(&str, &str)]) {
        let known = known.map(map);
        assert_eq!(super::change(known.as_ref(), &map(&[change])).unwrap(), map(after));
    }

    #[track_caller]
    fn is_refused(known: Option<&[(&str, &str)]>, change: (&str, &str), words: &str) {
        let known = known.map(map);
        let refused = super::change(known.as_ref(), &map(&[change])).unwrap_err().to_string();
        assert!(refused.contains(words), "{refused}");
    }

    #[test]
    fn attributes_are_set_and_removed_by_their_sign() {
        let has: &[(&str, &str)] = &[("message.type", "FIFO"), ("queue.type", "SimpleCQ")];
        is(None, ("+message.type", "DELAY"), &[("message.type", "DELAY")]);
        is(Some(has), ("+message.type", "DELAY"), &[("message.type", "DELAY"), has[1]]);
        is(Some(has), ("-message.type", ""), &has[1..]);
        is(Some(has), ("+reserve.time", "-1"), &[has[0], has[1], ("reserve.time", "-1")]);
        is(Some(&[]), ("+cleanup.policy", "DELETE"), &[("cleanup.policy", "DELETE")]);
        is_refused(Some(has), ("-queue.type", ""), "unchangeable");
        is_refused(Some(has), ("+queue.type", "SimpleCQ"), "unchangeable");
        is_refused(Some(has), ("-reserve.time", ""), "does not have");
        is_refused(None, ("-message.type", ""), "new topic");
        is_refused(None, ("message.type", "FIFO"), "neither");
    }

    #[test]
    fn what_is_not_known_or_would_have_no_effect_is_refused_by_its_name() {
        is_refused(None, ("+foo", "bar"), "unsupported key: foo");
        is_refused(None, ("+cleanup.policy", "COMPACTION"), "COMPACTION is not supported");
        is_refused(None, ("+queue.type", "BatchCQ"), "BatchCQ is not supported");
        is_refused(None, ("+message.type", "fifo"), "one of UNSPECIFIED, ");
        is_refused(None, ("+lite.topic.expiration", "31"), "-1 to 30");
        is_refused(None, ("+reserve.time", "long"), "-1 to");
    }
}
