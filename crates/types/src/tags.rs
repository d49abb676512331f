//! Tags and their hash, by which a consume queue is filtered. Spec `messages.md` 7.

/// Java's `String.hashCode`: over UTF-16 units, wrapping.
#[must_use]
pub fn java_hash(text: &str) -> i32 {
    java_hash_continue(0, text)
}

/// [`java_hash`] of a text whose beginning hashed to `hash`: hashes `topic#key` without joining.
#[must_use]
pub fn java_hash_continue(hash: i32, text: &str) -> i32 {
    java_hash_bytes(hash, text.as_bytes()).expect("a text is UTF-8")
}

/// [`java_hash_continue`] of bytes; `None` if they are not UTF-8.
#[must_use]
pub fn java_hash_bytes(hash: i32, bytes: &[u8]) -> Option<i32> {
    let step = |hash: i32, unit: i32| hash.wrapping_mul(31).wrapping_add(unit);
    Some(if bytes.is_ascii() {
        // Four steps at once: each alone would wait for the one before it.
        let (chunks, rest) = bytes.as_chunks::<4>();
        let hash = chunks.iter().fold(hash, |hash, chunk| {
            let [a, b, c, d] = chunk.map(i32::from);
            let sum = a * (31 * 31 * 31) + b * (31 * 31) + c * 31 + d;
            hash.wrapping_mul(31 * 31 * 31 * 31).wrapping_add(sum)
        });
        rest.iter().fold(hash, |hash, byte| step(hash, i32::from(*byte)))
    } else {
        let units = std::str::from_utf8(bytes).ok()?.encode_utf16();
        units.fold(hash, |hash, unit| step(hash, i32::from(unit)))
    })
}

/// The tag code of a consume-queue unit: 0 without tags.
#[must_use]
pub fn code(tags: Option<&str>) -> i64 {
    tags.filter(|tags| !tags.is_empty()).map_or(0, |tags| i64::from(java_hash(tags)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_those_of_java() {
        assert_eq!(java_hash("TagA"), 2_598_919);
        assert_eq!(java_hash("订单"), 1_129_459);
        assert_eq!(java_hash("😀"), 1_772_899);
        assert_eq!(code(None), 0);
        assert_eq!(java_hash_continue(java_hash("topic#"), "key"), java_hash("topic#key"));
    }
}
