//! The two ports that replication runs over: records and blobs.
//!
//! A node implements them with sled and files, the bridge with PostgreSQL and S3, the simulator with memory that
//! crashes. The contract, which `sim` and the stores' own tests check:
//!
//! - **Durable first.** A call that returns `Ok` has made its effect durable.
//! - **The feed and the records are a bijection** (invariant 5): each stored record has exactly one feed row, and a
//!   record that changes gets a new row at the end of its bucket's feed.
//! - **A cursor commits with the page that it covers** (invariant 4), in one atomic step.
//! - **No row is skipped**: a page never runs ahead of a row with a lower number that is still being written.
//! - **Nothing is dropped** (invariant 8): every record of a page is applied, superseded or quarantined.

use std::future::Future;

use bytes::Bytes;

use crate::absence::Standing;
use crate::chunk::{Bases, BlobHash, ChunkHash, Claim, Have, Lot, Manifest};
use crate::id::{BucketId, Epoch, NodeId, Seq};
use crate::lineage::{Moment, Remembered, Told};
use crate::record::Record;
use crate::wire::Class;

/// A replica in one of its epochs, as the other end of a session.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Peer {
    /// Which replica.
    pub node: NodeId,
    /// The life that its feeds are in.
    pub epoch: Epoch,
}

impl Peer {
    /// A reader from whom nothing ever came: it is shown every row.
    pub const NOBODY: Self = Self { node: NodeId::from_bytes([0; 16]), epoch: Epoch(0) };
}

/// How far one bucket's feed here has come.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct BucketHead {
    /// Which bucket.
    pub bucket: BucketId,
    /// The last row.
    pub head: Seq,
}

/// A piece of a bucket's feed, in order.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Page {
    /// The latest state of the records that changed, in order of their last change.
    pub records: Vec<Record>,
    /// The place up to which the feed has now been seen; rows that the reader itself sent are passed over.
    pub next: Seq,
    /// Whether rows follow.
    pub more: bool,
}

/// What became of the records of a page. The three add up to what was received (invariant 8).
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Applied {
    /// Changed what is stored here.
    pub applied: u32,
    /// Said nothing new.
    pub superseded: u32,
    /// Set aside with a reason.
    pub quarantined: u32,
}

/// Where the feed of a peer's bucket has been read to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Cursor {
    /// The epoch of the peer that counts.
    pub epoch: Epoch,
    /// The last row seen.
    pub seq: Seq,
}

/// Records, their feeds, and the cursors into the feeds of peers.
pub trait RecordStore: Send + Sync {
    /// Why the store could not do it. The session that asked ends; nothing was changed.
    type Error: std::error::Error + Send + Sync + 'static;

    /// The life that this store's feeds are in.
    fn epoch(&self) -> Epoch;

    /// Every bucket held here, with its durable head.
    fn heads(&self) -> impl Future<Output = Result<Vec<BucketHead>, Self::Error>> + Send;

    /// Rows of `bucket` after `after`, at least one if there is one, then as many as fit in `budget_bytes`.
    /// Rows that arrived from `reader` in its present epoch unchanged are left out, and `next` moves past them.
    fn page(
        &self,
        bucket: BucketId,
        after: Seq,
        reader: Peer,
        budget_bytes: u32,
    ) -> impl Future<Output = Result<Page, Self::Error>> + Send;

    /// Where reading `bucket` from the peer `node` stands, if it was ever read.
    fn cursor(
        &self,
        node: NodeId,
        bucket: BucketId,
    ) -> impl Future<Output = Result<Option<Cursor>, Self::Error>> + Send;

    /// Merges `records` (see `merge::admit`) and moves the cursor to `next`, in one durable step.
    fn apply(
        &self,
        from: Peer,
        bucket: BucketId,
        records: Vec<Record>,
        next: Seq,
    ) -> impl Future<Output = Result<Applied, Self::Error>> + Send;

    /// As [`Self::apply`], and remembers in the same step what the pages told (`lineage::remember`); `None`, and nothing
    /// changed, where they may not be taken over what another session has brought. Whoever remembers nothing need not.
    fn apply_told(
        &self,
        from: Peer,
        bucket: BucketId,
        records: Vec<Record>,
        next: Seq,
        told: Told,
    ) -> impl Future<Output = Result<Option<Applied>, Self::Error>> + Send {
        let _ = told;
        async move { self.apply(from, bucket, records, next).await.map(Some) }
    }

    /// What the store is now, after every page that was read; `None` before there is anything, or if it keeps no [`crate::lineage`].
    fn moment(&self) -> impl Future<Output = Result<Option<Moment>, Self::Error>> + Send {
        async { Ok(None) }
    }

    /// What is remembered of a peer.
    fn remembered(&self, of: NodeId) -> impl Future<Output = Result<Vec<Remembered>, Self::Error>> + Send {
        let _ = of;
        async { Ok(Vec::new()) }
    }

    /// Whether what the peer `by` remembers of this store is part of its past. If not, it was set back to an older copy, or there are two
    /// of it: then a new life has begun here, durably, in which all is read anew, and the session with `by` is to end.
    fn recall(
        &self,
        by: NodeId,
        remembered: Vec<Remembered>,
    ) -> impl Future<Output = Result<bool, Self::Error>> + Send {
        let _ = (by, remembered);
        async { Ok(true) }
    }

    /// Takes note of how a peer stands (`absence`), before anything of it is read here. Whoever forgets no tombstones and is
    /// never away need not.
    fn meet(&self, peer: Peer, standing: Standing) -> impl Future<Output = Result<(), Self::Error>> + Send {
        let _ = (peer, standing);
        async { Ok(()) }
    }

    /// Takes note, durably, that what is here is about to be given away without a session: whoever has met nobody yet is no longer
    /// fresh (`absence`) after that, but in step as of this time, in milliseconds since 1970. `None` if nobody knows when: then it stays
    /// fresh, and is not taken for one that was set back when somebody knows it. Whoever never passes for fresh need not.
    fn note_given(&self, at_ms: Option<u64>) -> impl Future<Output = Result<(), Self::Error>> + Send {
        let _ = at_ms;
        async { Ok(()) }
    }

    /// Takes note that whatever the peer held when it introduced itself, of what is read here, was applied; and how far it
    /// has the feeds here, durably. A bundle does not tell that, and leaves out what came from here: `None`, and reading all anew
    /// does not end with it.
    fn caught_up(
        &self,
        with: Peer,
        standing: Standing,
        has: Option<Vec<BucketHead>>,
    ) -> impl Future<Output = Result<(), Self::Error>> + Send {
        let _ = (with, standing, has);
        async { Ok(()) }
    }
}

/// What receiving a chunk or ending a blob can run into.
#[derive(Debug, thiserror::Error)]
pub enum WriteBlobError<E> {
    /// The bytes are not the chunk, or the chunks are not the blob: the peer's fault.
    #[error("content does not match its hash")]
    Mismatch,
    /// Another session is receiving the same blob, or something else under its name; ask again later.
    #[error("the blob is being received from elsewhere")]
    Busy,
    /// What was received of it is gone since: another session has found that it was not the blob, or the disk has lost some. Begin again.
    #[error("what was received of the blob is gone")]
    Gone,
    /// No room within the quota; reads and deletes still work.
    #[error("no room left for content")]
    Full,
    /// The store's own fault.
    #[error(transparent)]
    Store(E),
}

/// A blob that is not here and that is wanted.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Wanted {
    /// Which.
    pub blob: BlobHash,
    /// How soon it is to come: one of [`Class::CONTENT`].
    pub class: Class,
    /// Its size, as far as the record that names it says; 0 if nobody knows.
    pub size_bytes: u64,
    /// Where its reader is: what follows comes first, then the rest. 0 if nobody reads.
    pub from_bytes: u64,
}

/// Blobs, whole and in the making.
///
/// Receiving one: [`Self::begin`], then [`Self::claim`] and [`Self::write`] for each missing chunk, [`Self::sync`] now and then, and
/// [`Self::finish`]. After a crash `begin` tells what was made durable.
///
/// A store lets one session receive a blob at a time, or several together, if they bring the same manifest: then each brings what it has
/// claimed, one of them is enough to make durable what all wrote, and whoever finds that everything was written finishes it.
pub trait BlobStore: Send + Sync {
    /// Why the store could not do it.
    type Error: std::error::Error + Send + Sync + 'static;

    /// Blobs that readers here wait for now (class 2), most wanted first: a short list.
    fn urgent(&self, peer: NodeId) -> impl Future<Output = Result<Vec<Wanted>, Self::Error>> + Send;

    /// Blobs that records here refer to and that are not here, in the order of their hashes, after `after`, at most
    /// `limit`, each with its class. Only such as `peer` may have: blobs of buckets that it may write.
    fn wanted(
        &self,
        peer: NodeId,
        after: Option<BlobHash>,
        limit: usize,
    ) -> impl Future<Output = Result<Vec<Wanted>, Self::Error>> + Send;

    /// The manifest of a blob that is whole here and that `reader` may have; `None` otherwise, whichever it is.
    fn manifest(
        &self,
        reader: NodeId,
        blob: BlobHash,
    ) -> impl Future<Output = Result<Option<Manifest>, Self::Error>> + Send;

    /// The bytes of one chunk of a blob whose manifest was handed out; `None` if it is gone since.
    fn read(&self, manifest: &Manifest, index: u32) -> impl Future<Output = Result<Option<Bytes>, Self::Error>> + Send;

    /// Starts or takes up receiving a blob, or joins those that do, and tells which chunks are durable. A call that fails
    /// leaves nothing to release. A blob that is whole has all its chunks; finishing it again changes nothing. Chunks that other blobs here hold are
    /// copied from them first.
    fn begin(&self, manifest: &Manifest) -> impl Future<Output = Result<Have, WriteBlobError<Self::Error>>> + Send;

    /// Claims missing chunks for the caller, who has begun the blob, is to ask for them, and lets go of them with [`Self::release`]. Quick:
    /// nothing is read or written. A store that lets one session receive a blob at a time has nothing to divide.
    fn claim(
        &self,
        manifest: &Manifest,
        claim: Claim,
    ) -> impl Future<Output = Result<Lot, WriteBlobError<Self::Error>>> + Send {
        let _ = (manifest, claim);
        async { Ok(Lot::Everything) }
    }

    /// Guesses of which chunks held here, durably, the missing ones of a blob are changed forms (`chunk::basis`). Empty where
    /// nothing is known. Only such as `peer` may have: it is told their hashes.
    fn bases(
        &self,
        peer: NodeId,
        manifest: &Manifest,
        have: &Have,
    ) -> impl Future<Output = Result<Bases, Self::Error>> + Send;

    /// The bytes of a chunk, verified, that some whole blob here holds; `None` if none is known to, or, for a `reader`, if that one
    /// may not have it.
    fn known_chunk(
        &self,
        reader: Option<NodeId>,
        chunk: ChunkHash,
    ) -> impl Future<Output = Result<Option<Bytes>, Self::Error>> + Send;

    /// Takes one chunk, after checking it. It counts as had only after [`Self::sync`].
    fn write(
        &self,
        manifest: &Manifest,
        index: u32,
        bytes: Bytes,
    ) -> impl Future<Output = Result<(), WriteBlobError<Self::Error>>> + Send;

    /// Makes what was written durable, by whomever: the data, then the bits.
    fn sync(&self, manifest: &Manifest) -> impl Future<Output = Result<(), WriteBlobError<Self::Error>>> + Send;

    /// Makes durable what was written, checks the whole blob against its hash and publishes it. On a mismatch everything received is
    /// discarded. Of a blob that was published since it changes nothing.
    fn finish(&self, manifest: &Manifest) -> impl Future<Output = Result<(), WriteBlobError<Self::Error>>> + Send;

    /// Ends the caller's share in a blob that is not finished: others may bring what it has claimed. What is durable stays for the next
    /// time.
    fn release(&self, blob: BlobHash) -> impl Future<Output = ()> + Send;
}
