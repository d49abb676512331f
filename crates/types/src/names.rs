//! Names of topics and groups: their rules, the prefixes and the system's own.
//! Spec `messages.md` 8.

/// Prefix of a group's retry topic.
pub const RETRY_PREFIX: &str = "%RETRY%";
/// Prefix of a group's dead-letter topic.
pub const DLQ_PREFIX: &str = "%DLQ%";
/// Prefix of queues that upstream makes for single receivers, which are no topics of a table.
pub const LIGHT_PREFIX: &str = "%LMQ%";
/// Prefix of topics that belong to the system whatever follows.
pub const SYSTEM_PREFIX: &str = "rmq_sys_";
/// Prefix of the topic, called as its set, with which brokers of a set find one another.
pub const MEMBERS_PREFIX: &str = "rmq_sys_SYNC_BROKER_MEMBER_";
/// Prefix of groups that belong to the system.
pub const SYSTEM_GROUP_PREFIX: &str = "CID_RMQ_SYS_";

/// The template from which clients let topics be created.
pub const AUTO_CREATE_TOPIC: &str = "TBW102";
/// Where delayed messages wait; queue = level - 1.
pub const SCHEDULE_TOPIC: &str = "SCHEDULE_TOPIC_XXXX";
pub const HALF_TOPIC: &str = "RMQ_SYS_TRANS_HALF_TOPIC";
pub const OP_TOPIC: &str = "RMQ_SYS_TRANS_OP_HALF_TOPIC";
pub const TIMER_TOPIC: &str = "rmq_sys_wheel_timer";
pub const TOOLS_GROUP: &str = "TOOLS_CONSUMER";

/// Longest ordinary topic name: the length byte of a V1 record is signed.
pub const TOPIC_LEN_MAX: usize = 127;
/// Longest `%RETRY%` or `%DLQ%` topic name.
pub const RETRY_TOPIC_LEN_MAX: usize = 255;
/// Longest group name.
pub const GROUP_LEN_MAX: usize = 120;

/// Topics that no client may send to. Upstream: `TopicValidator.NOT_ALLOWED_SEND_TOPIC_SET`.
const NO_SEND_TOPICS: &[&str] = &[
    SCHEDULE_TOPIC,
    HALF_TOPIC,
    OP_TOPIC,
    "RMQ_SYS_ROCKSDB_TRANS_HALF_TOPIC",
    "RMQ_SYS_ROCKSDB_TRANS_OP_HALF_TOPIC",
    "TRANS_CHECK_MAX_TIME_TOPIC",
    "SELF_TEST_TOPIC",
    "OFFSET_MOVED_EVENT",
];

/// Further topics of the system. Upstream: `TopicValidator.SYSTEM_TOPIC_SET`.
const OTHER_SYSTEM_TOPICS: &[&str] =
    &[AUTO_CREATE_TOPIC, "BenchmarkTest", "RMQ_SYS_TRACE_TOPIC", "CHECKPOINT_TOPIC"];

/// Why a name is refused; the texts are upstream's, tools show them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    #[error("The specified {kind} is blank.")]
    Blank { kind: &'static str },
    #[error(
        "The specified {kind}: {name}, contains illegal characters, \
         allowing only ^[%|a-zA-Z0-9_-]+$"
    )]
    IllegalCharacter { kind: &'static str, name: String },
    #[error("The specified {kind}: {name}, is longer than {kind} max length: {max}")]
    TooLong { kind: &'static str, name: String, max: usize },
}

/// Checks the name of a topic. `%RETRY%` and `%DLQ%` topics may be longer than others.
pub fn check_topic(name: &str) -> Result<(), NameError> {
    let derived = name.starts_with(RETRY_PREFIX) || name.starts_with(DLQ_PREFIX);
    check("topic", name, if derived { RETRY_TOPIC_LEN_MAX } else { TOPIC_LEN_MAX })
}

/// Checks the name of a group.
pub fn check_group(name: &str) -> Result<(), NameError> {
    check("group", name, GROUP_LEN_MAX)
}

fn check(kind: &'static str, name: &str, max: usize) -> Result<(), NameError> {
    let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'%' | b'|' | b'-' | b'_');
    if name.trim().is_empty() {
        return Err(NameError::Blank { kind });
    }
    if !name.bytes().all(legal) {
        return Err(NameError::IllegalCharacter { kind, name: name.to_owned() });
    }
    if max < name.len() {
        return Err(NameError::TooLong { kind, name: name.to_owned(), max });
    }
    Ok(())
}

/// Belongs to the system whichever broker it is; each has further ones.
#[must_use]
pub fn is_system_topic(topic: &str) -> bool {
    topic.starts_with(SYSTEM_PREFIX)
        || NO_SEND_TOPICS.contains(&topic)
        || OTHER_SYSTEM_TOPICS.contains(&topic)
}

#[must_use]
pub fn may_send(topic: &str) -> bool {
    !NO_SEND_TOPICS.contains(&topic)
}

#[must_use]
pub fn is_system_group(group: &str) -> bool {
    group.starts_with(SYSTEM_GROUP_PREFIX) || group == TOOLS_GROUP
}

#[must_use]
pub fn retry_topic(group: &str) -> String {
    format!("{RETRY_PREFIX}{group}")
}

#[must_use]
pub fn dlq_topic(group: &str) -> String {
    format!("{DLQ_PREFIX}{group}")
}

/// The group of a `%RETRY%` topic: what follows the prefix, for a pop retry topic of the second
/// form (`group+topic`) the part before the `+`.
#[must_use]
pub fn group_of_retry_topic(topic: &str) -> Option<&str> {
    let rest = topic.strip_prefix(RETRY_PREFIX)?;
    Some(rest.split_once('+').map_or(rest, |(group, _)| group))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked_as_upstream_does() {
        assert!(check_topic("order-Topic_1|a%").is_ok());
        assert_eq!(check_topic("  "), Err(NameError::Blank { kind: "topic" }));
        assert!(matches!(check_topic("a.b"), Err(NameError::IllegalCharacter { .. })));
        assert!(check_topic(&"t".repeat(127)).is_ok());
        assert!(matches!(check_topic(&"t".repeat(128)), Err(NameError::TooLong { max: 127, .. })));
        assert!(check_topic(&format!("%RETRY%{}", "g".repeat(120))).is_ok());
        assert!(matches!(check_group(&"g".repeat(121)), Err(NameError::TooLong { .. })));
    }

    #[test]
    fn the_group_of_a_retry_topic() {
        assert_eq!(group_of_retry_topic("%RETRY%g"), Some("g"));
        assert_eq!(group_of_retry_topic("%RETRY%g+t"), Some("g"));
        assert_eq!(group_of_retry_topic("t"), None);
    }
}
