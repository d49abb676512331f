//! Talks to a cluster: producer, consumers, admin.
