//! What a session asks of the stores, and what comes back.

use std::sync::Arc;

use bytes::Bytes;

use crate::absence::Standing;
use crate::chunk::{Bases, BlobHash, ChunkHash, Claim, Have, Lot, Manifest};
use crate::id::{BucketId, Seq};
use crate::lineage::{Moment, Remembered, Told};
use crate::record::Record;
use crate::store::{Applied, BucketHead, Cursor, Page, Peer, Wanted};

/// One call to a store. Several may run at once; the session never asks for two whose order matters.
#[derive(Clone, Debug)]
pub enum DiskRequest {
    /// `RecordStore::recall`, then `RecordStore::meet`.
    Meet {
        /// Whom.
        peer: Peer,
        /// How it stands.
        standing: Standing,
        /// What it remembers of this end.
        remembered: Vec<Remembered>,
    },
    /// `RecordStore::caught_up`.
    CaughtUp {
        /// With whom.
        with: Peer,
        /// How it stood when it introduced itself.
        standing: Standing,
        /// What it has of the feeds here.
        has: Vec<BucketHead>,
    },
    /// `RecordStore::heads`.
    Heads,
    /// `RecordStore::cursor` of the peer, then `RecordStore::remembered`.
    Cursor(Peer, BucketId),
    /// `RecordStore::page`, then `RecordStore::moment`.
    Page {
        /// Of which bucket.
        bucket: BucketId,
        /// After which row.
        after: Seq,
        /// For whom.
        reader: Peer,
        /// How large.
        budget_bytes: u32,
    },
    /// `RecordStore::apply_told`.
    Apply {
        /// From whom.
        from: Peer,
        /// To which bucket.
        bucket: BucketId,
        /// What.
        records: Vec<Record>,
        /// And move the cursor here.
        next: Seq,
        /// And remember this.
        told: Told,
    },
    /// `BlobStore::urgent`.
    Urgent,
    /// `BlobStore::wanted`.
    Wanted {
        /// After which hash.
        after: Option<BlobHash>,
        /// How many, at most.
        limit: usize,
    },
    /// `BlobStore::manifest`.
    Manifest(BlobHash),
    /// `BlobStore::read`, to be sent on a lane that is kept free for it.
    Read {
        /// Of which blob.
        manifest: Arc<Manifest>,
        /// Which chunk.
        index: u32,
        /// For which content lane.
        lane: u8,
    },
    /// `BlobStore::read`, then what makes the chunk of those of its basis (`BlobStore::known_chunk`), if that is less.
    ReadPatch {
        /// Of which blob.
        manifest: Arc<Manifest>,
        /// Which chunk.
        index: u32,
        /// Chunks that the peer holds.
        basis: Vec<ChunkHash>,
        /// For which content lane.
        lane: u8,
    },
    /// `BlobStore::begin`, then `BlobStore::bases`.
    Begin(Arc<Manifest>),
    /// `BlobStore::claim`: quick, and not to wait behind others.
    Claim(Arc<Manifest>, Claim),
    /// `BlobStore::write`.
    Write {
        /// Of which blob.
        manifest: Arc<Manifest>,
        /// Which chunk.
        index: u32,
        /// Its bytes.
        bytes: Bytes,
    },
    /// Makes the chunk of those of its basis, then `BlobStore::write`.
    WritePatched {
        /// Of which blob.
        manifest: Arc<Manifest>,
        /// Which chunk.
        index: u32,
        /// Chunks that are held here.
        basis: Vec<ChunkHash>,
        /// What makes it of these.
        patch: Bytes,
    },
    /// `BlobStore::sync`.
    Sync(Arc<Manifest>),
    /// `BlobStore::finish`.
    Finish(Arc<Manifest>),
    /// `BlobStore::release`; has no answer.
    Release(BlobHash),
}

/// Why content could not be written, as far as a session can tell the cases apart.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum WriteFailure {
    /// The peer's content is not what it said.
    Mismatch,
    /// Someone else receives the blob.
    Busy,
    /// What was received of it is gone.
    Gone,
    /// No room.
    Full,
    /// Chunks that a patch needs are no longer here.
    NoBasis,
}

impl DiskRequest {
    /// Whether a patch is made or applied, which takes several times its bytes of memory.
    pub(crate) fn is_of_a_patch(&self) -> bool {
        matches!(self, Self::ReadPatch { .. } | Self::WritePatched { .. })
    }
}

/// What receiving a blob starts from.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Begun {
    /// Which chunks are durable here.
    pub have: Have,
    /// What the others may be told from.
    pub bases: Bases,
}

/// A request that was carried out.
#[derive(Debug)]
pub enum DiskDone {
    /// How the peer stands was noted.
    Met,
    /// What the peer remembers never was here: a new life has begun.
    SetBack,
    /// That all of its was read was noted.
    CaughtUp,
    /// The buckets held here.
    Heads(Vec<BucketHead>),
    /// Where reading the bucket from the peer stands.
    Cursor {
        /// Which bucket.
        bucket: BucketId,
        /// The last row that was read.
        cursor: Option<Cursor>,
        /// What was remembered of the peer's epoch then.
        known: Vec<Moment>,
    },
    /// A piece of the bucket's feed, and what the store was after it.
    Page {
        /// Of which bucket.
        bucket: BucketId,
        /// The rows.
        page: Page,
        /// What the store was then.
        moment: Option<Moment>,
        /// What was remembered of the reader's epoch by then; `None` if nothing was left out for its sake.
        known: Option<Vec<Moment>>,
    },
    /// The bucket's records were merged and the cursor moved, durably.
    Applied(BucketId, Applied),
    /// They were not: another session with the same life of the peer has brought something since.
    Overtaken,
    /// Blobs that readers wait for.
    Urgent(Vec<Wanted>),
    /// Other blobs that are wanted.
    Wanted(Vec<Wanted>),
    /// The manifest, if the peer may have it.
    Manifest(BlobHash, Option<Arc<Manifest>>),
    /// The chunk, if it is still there.
    Read {
        /// Of which blob.
        blob: BlobHash,
        /// Which chunk.
        index: u32,
        /// For which lane.
        lane: u8,
        /// Its bytes.
        bytes: Option<Bytes>,
    },
    /// The same as less than its bytes: what makes it of the chunks that were named.
    ReadPatch {
        /// Of which blob.
        blob: BlobHash,
        /// Which chunk.
        index: u32,
        /// For which lane.
        lane: u8,
        /// What makes it.
        patch: Bytes,
    },
    /// Which chunks of the blob are durable here.
    Began(BlobHash, Result<Begun, WriteFailure>),
    /// What this session is to bring of the blob.
    Claimed(BlobHash, Result<Lot, WriteFailure>),
    /// The chunk was written.
    Wrote(BlobHash, u32, Result<(), WriteFailure>),
    /// What was written before the request is durable.
    Synced(BlobHash, Result<(), WriteFailure>),
    /// The blob is whole and published.
    Finished(BlobHash, Result<(), WriteFailure>),
}
