//! What a broker does: publish, pull, offsets, retry, delay. Knows no wire format.
