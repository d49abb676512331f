//! Every bound on what a peer can make us keep, by name, with the reason for its number.

/// Upstream's frame bound, length field included; clients use the same (`remoting.md` 1).
pub const FRAME_LEN_MAX: usize = 16 * 1024 * 1024;

/// Fields of a frame header. The richest request of the protocol has about 25.
pub const HEADER_FIELDS_MAX: usize = 256;

/// Bytes that parked requests (long polling) may hold in all: 10,000 connections with a few
/// hundred queues each at about 200 bytes fit; past it a pull is answered at once.
pub const PARKED_BYTES_MAX: usize = 512 * 1024 * 1024;

/// Bytes of one pull, whatever the settings say: a frame that clients take holds them.
pub const PULL_BYTES_MAX: usize = FRAME_LEN_MAX - 64 * 1024;

/// Queues that a route may state, to read and to write: 100 brokers with 1,024 of each fit.
pub const ROUTE_QUEUES_MAX: u64 = 1 << 18;

/// Queues of one topic, to read or to write. Upstream knows no bound; a queue is a directory of
/// files, and views list each.
pub const TOPIC_QUEUES_MAX: i32 = 65_536;

/// Nesting of a JSON body.
pub const JSON_DEPTH_MAX: usize = 64;

/// Values of a JSON body with its references (`$ref`) unfolded. The richest heartbeat seen has
/// some hundred; each reference may repeat what it names.
pub const JSON_REFERENCED_MAX: usize = 100_000;

/// A broker's registration, inflated: 50,000 topics of some 150 bytes, and a margin.
pub const REGISTER_BODY_LEN_MAX: usize = 32 * 1024 * 1024;
