//! A message to be stored, and the flags that travel with it.

use std::net::SocketAddr;

use crate::properties::KeyPlaces;
use crate::{LogOffset, Millis, QueueId};

/// A message on its way into the log. Borrows from the request that brought it, so that the body
/// is copied once: into the log.
#[derive(Debug, Clone)]
pub struct Message<'a> {
    pub topic: &'a str,
    pub queue_id: QueueId,
    /// The producer's own flag, opaque to the broker.
    pub flag: i32,
    pub sys_flag: SysFlag,
    pub born_ms: Millis,
    pub born_host: SocketAddr,
    pub store_host: SocketAddr,
    pub reconsume_times: i32,
    /// Where the half message of a committed transaction lies; 0 otherwise.
    pub prepared_at: LogOffset,
    pub body: &'a [u8],
    /// `name 0x01 value 0x02` pairs, as they will be stored (see [`crate::properties`]).
    pub properties: &'a [u8],
    /// Where in them the keys stand; `None`: it is not known yet.
    pub key_places: Option<KeyPlaces>,
    /// What the consume queue keeps beside the position: the hash of the tags
    /// ([`crate::tags::code`]), or the delivery time of a delayed message. `store.md` 3.1.
    pub tags_code: i64,
}

impl<'a> Message<'a> {
    /// A message of which no more is known: not compressed, without properties, from nowhere.
    #[must_use]
    pub fn new(topic: &'a str, queue_id: QueueId, body: &'a [u8]) -> Self {
        let nowhere = SocketAddr::from(([0; 4], 0));
        Self {
            topic,
            queue_id,
            flag: 0,
            sys_flag: SysFlag::default(),
            born_ms: 0,
            born_host: nowhere,
            store_host: nowhere,
            reconsume_times: 0,
            prepared_at: LogOffset(0),
            body,
            properties: &[],
            key_places: None,
            tags_code: 0,
        }
    }
}

/// Bit set of a stored message. Spec `messages.md` 3.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct SysFlag(pub i32);

impl SysFlag {
    pub const COMPRESSED: Self = Self(0x1);
    pub const MULTI_TAGS: Self = Self(0x2);
    pub const TRANSACTION_PREPARED: Self = Self(0x4);
    pub const TRANSACTION_COMMIT: Self = Self(0x8);
    pub const TRANSACTION_ROLLBACK: Self = Self(0xC);
    pub const BORN_HOST_V6: Self = Self(0x10);
    pub const STORE_HOST_V6: Self = Self(0x20);
    pub const NEED_UNWRAP: Self = Self(0x40);
    pub const INNER_BATCH: Self = Self(0x80);
    pub const COMPRESSION_LZ4: Self = Self(0x100);
    pub const COMPRESSION_ZSTD: Self = Self(0x200);
    pub const COMPRESSION_ZLIB: Self = Self(0x300);
    const COMPRESSION_MASK: i32 = 0x700;

    #[must_use]
    pub const fn has(self, bits: Self) -> bool {
        self.0 & bits.0 == bits.0
    }

    #[must_use]
    pub const fn with(self, bits: Self) -> Self {
        Self(self.0 | bits.0)
    }

    #[must_use]
    pub const fn without(self, bits: Self) -> Self {
        Self(self.0 & !bits.0)
    }

    /// The two transaction bits alone.
    #[must_use]
    pub const fn transaction(self) -> Self {
        Self(self.0 & Self::TRANSACTION_ROLLBACK.0)
    }

    /// The compression bits alone; all clear means ZLIB (old clients).
    #[must_use]
    pub const fn compression(self) -> Self {
        Self(self.0 & Self::COMPRESSION_MASK)
    }
}
