//! What a client wants of a topic, and how its group reads.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::tags;

/// Everything.
pub const SUB_ALL: &str = "*";
/// The expression is a list of tags.
pub const TAG: &str = "TAG";
/// The expression is one of SQL.
pub const SQL92: &str = "SQL92";

/// A subscription of a group to a topic. Upstream: `SubscriptionData`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SubscriptionData {
    pub class_filter_mode: bool,
    /// Hashes of `tags_set`.
    pub code_set: BTreeSet<i32>,
    /// [`TAG`] (also when a client leaves it out) or [`SQL92`].
    pub expression_type: Arc<str>,
    /// `*`, tags joined by `||`, or SQL.
    pub sub_string: Arc<str>,
    /// Grows with each change; clients take the time.
    pub sub_version: i64,
    pub tags_set: BTreeSet<Arc<str>>,
    pub topic: Arc<str>,
}

/// An expression that names no tag at all, such as `||`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the tag expression `{0}` names no tag")]
pub struct SubscriptionError(String);

impl SubscriptionData {
    /// Reads `*` or `A || B`; an empty expression means everything.
    pub fn of_tags(topic: &str, expression: &str) -> Result<Self, SubscriptionError> {
        let mut subscription = Self { topic: topic.into(), ..Self::default() };
        if expression.is_empty() || expression == SUB_ALL {
            return Ok(subscription);
        }
        if expression.bytes().all(|byte| byte == b'|') && expression.len().is_multiple_of(2) {
            return Err(SubscriptionError(expression.to_owned()));
        }
        subscription.sub_string = expression.into();
        for tag in expression.split("||").map(str::trim).filter(|tag| !tag.is_empty()) {
            subscription.code_set.insert(tags::java_hash(tag));
            subscription.tags_set.insert(tag.into());
        }
        Ok(subscription)
    }

    #[must_use]
    pub fn is_tag_type(&self) -> bool {
        self.expression_type.is_empty() || &*self.expression_type == TAG
    }

    /// Whether a message may be wanted, judged by its tag code alone: hashes may collide, and the
    /// client compares the tags themselves. Not for SQL.
    #[must_use]
    pub fn matches(&self, tags_code: i64) -> bool {
        // Upstream compares the low half, as Java's `Long.intValue`.
        self.class_filter_mode
            || &*self.sub_string == SUB_ALL
            || self.code_set.contains(&(tags_code as i32))
    }
}

/// Everything of a topic without a name.
impl Default for SubscriptionData {
    fn default() -> Self {
        Self {
            class_filter_mode: false,
            code_set: BTreeSet::new(),
            expression_type: TAG.into(),
            sub_string: SUB_ALL.into(),
            sub_version: 0,
            tags_set: BTreeSet::new(),
            topic: "".into(),
        }
    }
}

/// An enum of upstream's: written by name; read by name in any case, or by ordinal, as C++ clients
/// send it. An unknown value becomes the default.
macro_rules! named_enum {
    ($(#[$doc:meta])* $type:ident { $first:ident $first_name:literal,
        $( $variant:ident $name:literal, )* } default $default:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $type { $first, $( $variant, )* }

        impl $type {
            const ALL: &'static [Self] = &[Self::$first, $( Self::$variant, )*];

            /// As upstream writes it.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { Self::$first => $first_name, $( Self::$variant => $name, )* }
            }

            /// By name in any case, or by ordinal in digits.
            #[must_use]
            pub fn from_text(text: &str) -> Option<Self> {
                if let Ok(ordinal) = text.parse::<usize>() {
                    return Self::ALL.get(ordinal).copied();
                }
                Self::ALL.iter().copied().find(|it| it.name().eq_ignore_ascii_case(text))
            }
        }

        impl Default for $type {
            fn default() -> Self {
                Self::$default
            }
        }

        impl Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.name())
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let value = serde_json::Value::deserialize(deserializer)?;
                let text = match value {
                    serde_json::Value::String(text) => text,
                    other => other.to_string(),
                };
                Ok(Self::from_text(&text).unwrap_or_default())
            }
        }
    };
}

named_enum! {
    /// How a group divides what it reads.
    MessageModel {
        Broadcasting "BROADCASTING",
        Clustering "CLUSTERING",
        LiteSelective "LITE_SELECTIVE",
    } default Clustering
}

named_enum! {
    /// How a client gets messages: it pulls, it is pushed to (by pulling itself), it pops.
    ConsumeType {
        Actively "CONSUME_ACTIVELY",
        Passively "CONSUME_PASSIVELY",
        Pop "CONSUME_POP",
    } default Passively
}

named_enum! {
    /// Where a group without offsets starts.
    ConsumeFromWhere {
        LastOffset "CONSUME_FROM_LAST_OFFSET",
        LastOffsetAndFromMinWhenBootFirst "CONSUME_FROM_LAST_OFFSET_AND_FROM_MIN_WHEN_BOOT_FIRST",
        MinOffset "CONSUME_FROM_MIN_OFFSET",
        MaxOffset "CONSUME_FROM_MAX_OFFSET",
        FirstOffset "CONSUME_FROM_FIRST_OFFSET",
        Timestamp "CONSUME_FROM_TIMESTAMP",
    } default LastOffset
}

named_enum! {
    /// How a client is to read a queue.
    RequestMode {
        Pull "PULL",
        Pop "POP",
    } default Pull
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json;

    #[test]
    fn a_list_of_tags_matches_by_code() {
        let subscription = SubscriptionData::of_tags("T", " TagA || TagB ||").unwrap();
        assert_eq!(subscription.code_set, BTreeSet::from([2_598_919, 2_598_920]));
        assert!(subscription.matches(2_598_919) && !subscription.matches(0));
        let all = SubscriptionData::of_tags("T", "").unwrap();
        assert!(all.matches(0) && all.matches(7));
        assert!(SubscriptionData::of_tags("T", "||").is_err());
    }

    #[test]
    fn enums_are_read_by_name_and_by_ordinal() {
        let read = |text: &str| json::read::<MessageModel>(text.as_bytes()).unwrap();
        assert_eq!(read("\"BroadCasting\""), MessageModel::Broadcasting);
        assert_eq!(read("1"), MessageModel::Clustering);
        assert_eq!(read("\"other\""), MessageModel::Clustering);
        assert_eq!(ConsumeFromWhere::from_text("4"), Some(ConsumeFromWhere::FirstOffset));
    }
}
