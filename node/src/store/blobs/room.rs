//! How much content may come in: a quota, and what must stay free on the disk.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use crate::store::disk;

/// There is no room for this much content.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("no room left for content")]
pub struct NoRoom;

/// The room for content of one node.
#[derive(Debug)]
pub(super) struct Room {
    dir: PathBuf,
    content_bytes_max: Option<u64>,
    min_free_bytes: u64,
    taken: Mutex<Taken>,
}

/// Bytes that are taken.
#[derive(Debug)]
struct Taken {
    /// By whole blobs.
    held: u64,
    /// By what is coming in.
    coming: u64,
    /// The part of that which is not on the disk yet.
    unwritten: u64,
}

impl Room {
    pub(super) fn new(dir: &Path, content_bytes_max: Option<u64>, min_free_bytes: u64, held_bytes: u64) -> Self {
        let taken = Mutex::new(Taken { held: held_bytes, coming: 0, unwritten: 0 });
        Self { dir: dir.to_owned(), content_bytes_max, min_free_bytes, taken }
    }

    /// Sets room aside for `bytes` that are about to come.
    pub(super) fn reserve(self: &Arc<Self>, bytes: u64) -> Result<Reservation, NoRoom> {
        let mut reservation = Reservation { room: Arc::clone(self), coming_bytes: 0, unwritten_bytes: 0 };
        reservation.extend(bytes)?;
        Ok(reservation)
    }

    /// How much has to go before `bytes` more can come.
    pub(super) fn missing_bytes(&self, bytes: u64) -> u64 {
        let Ok(free_bytes) = disk::free_bytes(&self.dir) else { return u64::MAX };
        self.with(|taken| self.missing(taken, bytes, free_bytes))
    }

    fn missing(&self, taken: &Taken, bytes: u64, free_bytes: u64) -> u64 {
        let content_bytes = taken.held.saturating_add(taken.coming).saturating_add(bytes);
        let needed_bytes = taken.unwritten.saturating_add(bytes).saturating_add(self.min_free_bytes);
        let over_quota = self.content_bytes_max.map_or(0, |max| content_bytes.saturating_sub(max));
        over_quota.max(needed_bytes.saturating_sub(free_bytes))
    }

    pub(super) fn held_bytes(&self) -> u64 {
        self.with(|taken| taken.held)
    }

    pub(super) fn add_held(&self, bytes: u64) {
        self.with(|taken| taken.held += bytes);
    }

    pub(super) fn remove_held(&self, bytes: u64) {
        self.with(|taken| taken.held = taken.held.saturating_sub(bytes));
    }

    fn with<T>(&self, change: impl FnOnce(&mut Taken) -> T) -> T {
        change(&mut self.taken.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Room set aside; given back when it is dropped.
#[derive(Debug)]
pub(super) struct Reservation {
    room: Arc<Room>,
    coming_bytes: u64,
    unwritten_bytes: u64,
}

impl Reservation {
    /// Sets aside more.
    pub(super) fn extend(&mut self, bytes: u64) -> Result<(), NoRoom> {
        let Ok(free_bytes) = disk::free_bytes(&self.room.dir) else { return Err(NoRoom) };
        self.room.with(|taken| {
            if self.room.missing(taken, bytes, free_bytes) > 0 {
                return Err(NoRoom);
            }
            taken.coming += bytes;
            taken.unwritten += bytes;
            Ok(())
        })?;
        self.coming_bytes += bytes;
        self.unwritten_bytes += bytes;
        Ok(())
    }

    /// Says that `bytes` of it are on the disk now.
    pub(super) fn written(&mut self, bytes: u64) {
        let bytes = bytes.min(self.unwritten_bytes);
        self.unwritten_bytes -= bytes;
        self.room.with(|taken| taken.unwritten -= bytes);
    }

    /// What of it is not on the disk yet.
    pub(super) fn unwritten_bytes(&self) -> u64 {
        self.unwritten_bytes
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.room.with(|taken| {
            taken.coming -= self.coming_bytes;
            taken.unwritten -= self.unwritten_bytes;
        });
    }
}
