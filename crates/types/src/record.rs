//! The stored record: the same bytes on disk, on the HA link and in a pull response. Spec `messages.md` 1.
