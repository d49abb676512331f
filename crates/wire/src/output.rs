//! What is to be written to a socket: copied bytes, and large pieces that are only referenced.

use bytes::Bytes;

/// Bytes on their way out, in order. Reused for every batch of a connection.
#[derive(Debug, Default)]
pub struct Output {
    /// Everything that was copied.
    pub bytes: Vec<u8>,
    /// Referenced pieces: each comes after the first `usize` bytes of `bytes`, in rising order.
    pieces: Vec<(usize, Bytes)>,
    pieces_len: usize,
}

impl Output {
    /// Appends `piece` without copying it.
    pub fn reference(&mut self, piece: Bytes) {
        self.pieces_len += piece.len();
        self.pieces.push((self.bytes.len(), piece));
    }

    /// Moves everything from `other` to the end.
    pub fn append(&mut self, other: &mut Self) {
        let copied = self.bytes.len();
        self.bytes.append(&mut other.bytes);
        self.pieces.extend(other.pieces.drain(..).map(|(at, piece)| (copied + at, piece)));
        self.pieces_len += std::mem::take(&mut other.pieces_len);
    }

    /// Length of everything, copied and referenced.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes.len() + self.pieces_len
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn clear(&mut self) {
        self.bytes.clear();
        self.pieces.clear();
        self.pieces_len = 0;
    }

    /// Everything, if nothing is referenced.
    #[must_use]
    pub fn as_slice(&self) -> Option<&[u8]> {
        self.pieces.is_empty().then_some(&self.bytes)
    }

    /// The slices from byte `from` on, in order, at most as many as `slices` holds; returns how
    /// many were set.
    pub fn slices<'a>(&'a self, from: usize, slices: &mut [std::io::IoSlice<'a>]) -> usize {
        let mut count = 0;
        let mut skip = from;
        let mut put = |slice: &'a [u8]| {
            if slice.len() <= skip {
                skip -= slice.len();
            } else if count < slices.len() {
                slices[count] = std::io::IoSlice::new(&slice[skip..]);
                skip = 0;
                count += 1;
            }
        };
        let mut copied = 0;
        for (at, piece) in &self.pieces {
            put(&self.bytes[copied..*at]);
            put(piece);
            copied = *at;
        }
        put(&self.bytes[copied..]);
        count
    }

    /// Everything in one vector; for tests and small outputs.
    #[must_use]
    pub fn to_vec(&self) -> Vec<u8> {
        let mut all = Vec::with_capacity(self.len());
        let mut copied = 0;
        for (at, piece) in &self.pieces {
            all.extend_from_slice(&self.bytes[copied..*at]);
            all.extend_from_slice(piece);
            copied = *at;
        }
        all.extend_from_slice(&self.bytes[copied..]);
        all
    }
}

#[cfg(test)]
mod tests {
    use std::io::IoSlice;

    use super::*;

    #[test]
    fn slices_continue_from_any_byte() {
        let mut output = Output::default();
        output.bytes.extend_from_slice(b"ab");
        output.reference(Bytes::from_static(b"cdef"));
        output.bytes.extend_from_slice(b"gh");
        output.reference(Bytes::from_static(b"i"));
        assert_eq!(output.len(), 9);
        assert_eq!(output.as_slice(), None);
        for from in 0..=9 {
            let mut slices = [IoSlice::new(b""); 8];
            let count = output.slices(from, &mut slices);
            let joined: Vec<u8> = slices[..count].iter().flat_map(|s| s.iter().copied()).collect();
            assert_eq!(joined, b"abcdefghi"[from..], "from {from}");
        }
        assert_eq!(output.to_vec(), b"abcdefghi");
    }
}
