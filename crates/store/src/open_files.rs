//! Keeps the number of open files in bounds: of those that were used least recently, one is closed
//! for each that is opened.
//!
//! An open file costs a descriptor and a mapping, and a process has some ten thousand of each.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::{Mutex, RwLock};

use crate::disk::DiskFile;

/// The files of a row of [`Segments`](crate::segments::Segments), oldest first.
pub(crate) struct Row {
    /// Offset of the first file's first byte.
    pub start: u64,
    /// Length of each file.
    pub len: u64,
    pub slots: Vec<Slot>,
}

/// A file of a row.
pub(crate) struct Slot {
    /// `None` while it is closed.
    pub file: Option<Arc<dyn DiskFile>>,
    /// Since the hand came by.
    is_used: AtomicBool,
}

impl Slot {
    pub fn new(file: Option<Arc<dyn DiskFile>>) -> Self {
        Self { file, is_used: AtomicBool::new(true) }
    }
}

impl Row {
    /// The offset of the first byte after the last file.
    pub fn end(&self) -> u64 {
        self.start + self.slots.len() as u64 * self.len
    }

    fn index(&self, offset: u64) -> Option<usize> {
        Some((offset.checked_sub(self.start)? / self.len) as usize)
    }

    /// The slot of the file that holds `offset`; counts as a use.
    pub fn slot(&self, offset: u64) -> Option<&Slot> {
        let slot = self.slots.get(self.index(offset)?)?;
        // Looked at before it is written: most uses leave the cache line as it is.
        if !slot.is_used.load(Ordering::Relaxed) {
            slot.is_used.store(true, Ordering::Relaxed);
        }
        Some(slot)
    }

    pub fn slot_mut(&mut self, offset: u64) -> Option<&mut Slot> {
        let index = self.index(offset)?;
        self.slots.get_mut(index)
    }
}

/// Files of many rows that are open. Who still holds one that was closed goes on using it.
pub struct OpenFiles {
    max: usize,
    ring: Mutex<Ring>,
}

/// Each open file has a place, but while it is being opened; a place may be left over from a file
/// that is closed or gone. Locked before a row, never while a row is locked.
#[derive(Default)]
struct Ring {
    /// The row, and the offset of the file in it.
    places: Vec<(Weak<RwLock<Row>>, u64)>,
    /// The place that is looked at next when room is wanted.
    hand: usize,
}

impl OpenFiles {
    /// At most `max` files, at least one.
    #[must_use]
    pub fn new(max: usize) -> Self {
        Self { max: max.max(1), ring: Mutex::default() }
    }

    /// How many files are open.
    #[must_use]
    pub fn count(&self) -> usize {
        let ring = self.ring.lock();
        let is_open = |(row, start): &&(Weak<RwLock<Row>>, u64)| {
            let row = row.upgrade();
            row.is_some_and(|row| row.write().slot_mut(*start).is_some_and(|it| it.file.is_some()))
        };
        ring.places.iter().filter(is_open).count()
    }

    /// Counts the file at `start` of `row`, which was opened, and closes another if need be.
    pub(crate) fn admit(&self, row: &Arc<RwLock<Row>>, start: u64) {
        let mut ring = self.ring.lock();
        let opened = (Arc::downgrade(row), start);
        if ring.places.len() < self.max {
            ring.places.push(opened);
            return;
        }
        let (place, closed) = ring.make_room();
        ring.places[place] = opened;
        // Unmapping it is a system call.
        drop(ring);
        drop(closed);
    }
}

impl Ring {
    /// A place that is free, and the file that was closed for it.
    fn make_room(&mut self) -> (usize, Option<Arc<dyn DiskFile>>) {
        loop {
            let place = self.hand;
            self.hand = (place + 1) % self.places.len();
            let (row, start) = &self.places[place];
            let Some(row) = row.upgrade() else { return (place, None) };
            let mut row = row.write();
            let Some(slot) = row.slot_mut(*start) else { return (place, None) };
            let was_used = std::mem::take(slot.is_used.get_mut());
            if slot.file.is_none() || !was_used {
                return (place, slot.file.take());
            }
        }
    }
}
