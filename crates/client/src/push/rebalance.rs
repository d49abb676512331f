//! Which queues are a member's. Pure: all members of a group compute it alike. Spec
//! `client-behaviour.md` 5.

use std::sync::Arc;

use apogee_types::route::MessageQueue;

/// Upstream's strategy `AVG`: contiguous ranges, the first members take one more. `queues` and
/// `members` are sorted here. `None` if we are no member (yet).
#[must_use]
pub fn share(
    mut queues: Vec<MessageQueue>,
    mut members: Vec<Arc<str>>,
    me: &str,
) -> Option<Vec<MessageQueue>> {
    queues.sort();
    members.sort();
    members.dedup();
    let at = members.iter().position(|member| &**member == me)?;
    let (each, extra) = (queues.len() / members.len(), queues.len() % members.len());
    let start = at * each + at.min(extra);
    let len = each + usize::from(at < extra);
    Some(queues[start..start + len].to_vec())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn queues(count: i32) -> Vec<MessageQueue> {
        (0..count).rev().map(|id| MessageQueue::new("T", "b", id)).collect()
    }

    fn ids(queues: &[MessageQueue]) -> Vec<i32> {
        queues.iter().map(|queue| queue.queue_id).collect()
    }

    #[test]
    fn the_first_members_take_one_more() {
        let members: Vec<Arc<str>> = vec!["c".into(), "a".into(), "b".into()];
        let of = |me| share(queues(8), members.clone(), me).map(|share| ids(&share));
        assert_eq!(of("a"), Some(vec![0, 1, 2]));
        assert_eq!(of("b"), Some(vec![3, 4, 5]));
        assert_eq!(of("c"), Some(vec![6, 7]));
        assert_eq!(of("stranger"), None);
        assert_eq!(share(queues(1), members, "b"), Some(vec![]));
    }

    proptest! {
        #[test]
        fn every_queue_has_exactly_one_reader(queue_count in 0..40, member_count in 1..12_usize) {
            let members: Vec<Arc<str>> =
                (0..member_count).map(|id| format!("m{id}").into()).collect();
            let mut all: Vec<i32> = members
                .iter()
                .flat_map(|me| ids(&share(queues(queue_count), members.clone(), me).unwrap()))
                .collect();
            all.sort_unstable();
            prop_assert_eq!(all, (0..queue_count).collect::<Vec<_>>());
        }
    }
}
