//! The messages of a session, and the lane that each travels in.
//!
//! Bodies are CBOR maps with small integer keys (minicbor's `map` form): a reader skips keys that it does not know, so
//! a later version may add some. A chunk is the exception: its bytes follow a fixed head, uncopied.

use bytes::Bytes;
use minicbor::{Decode, Encode};

use super::class::Class;
use crate::absence::Standing;
use crate::chunk::{BlobHash, ChunkHash};
use crate::hlc::ClockQuality;
use crate::id::{BucketId, Epoch, Incarnation, NodeId, Seq};
use crate::lineage::{Moment, Remembered};

/// A sequence of frames that arrive in order. Lanes do not wait for each other, and lower ones go first.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Lane {
    /// Class 0: what keeps the session going. Small frames only.
    Control,
    /// Class 1: pages of records.
    Records,
    /// Classes 2 to 5: manifests and chunks, one frame at a time on each.
    Content(u8),
}

/// Content lanes in each direction.
pub const CONTENT_LANES: u8 = 8;
/// Characters of [`Hello::name`] that are sent, and shown.
pub const NAME_CHARS_MAX: usize = 60;
/// Blobs in one [`Message::Fetching`], at most; more are said in several.
pub const FETCHING_BLOBS_MAX: usize = 100;

impl Lane {
    /// Every lane, in order of priority.
    pub fn all() -> impl Iterator<Item = Self> {
        [Self::Control, Self::Records].into_iter().chain((0..CONTENT_LANES).map(Self::Content))
    }

    /// Its number on the wire.
    pub fn number(self) -> u8 {
        match self {
            Self::Control => 0,
            Self::Records => 1,
            Self::Content(lane) => 2 + lane,
        }
    }

    /// The lane with this number; `None` if there is none.
    pub fn from_number(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::Control),
            1 => Some(Self::Records),
            _ if number - 2 < CONTENT_LANES => Some(Self::Content(number - 2)),
            _ => None,
        }
    }
}

/// The first message each way: who speaks, and in which life.
#[derive(Clone, Debug, Decode, Encode, Eq, PartialEq)]
#[cbor(map)]
pub struct Hello {
    /// Oldest protocol version spoken.
    #[n(0)]
    pub protocol_min: u16,
    /// Newest protocol version spoken.
    #[n(1)]
    pub protocol_max: u16,
    /// Which replica. The transport's certificate must name the same one.
    #[n(2)]
    pub node: NodeId,
    /// Which of its lives.
    #[n(3)]
    pub incarnation: Incarnation,
    /// The life of its feeds.
    #[n(4)]
    pub epoch: Epoch,
    /// Its time, in milliseconds since 1970. Vouched for by the transport's authentication.
    #[n(5)]
    pub unix_ms: u64,
    /// How good that time is.
    #[n(6)]
    pub clock_quality: ClockQuality,
    /// Name and version of the software, for the operator.
    #[n(7)]
    pub software: String,
    /// Optional abilities, one bit each: see [`feature`].
    #[n(8)]
    #[cbor(default)]
    pub features: u64,
    /// How it stands after an absence; `None` from who does not know.
    #[n(9)]
    pub standing: Option<Standing>,
    /// What it has read of the receiver's feeds, as the receiver's pages told it: at most
    /// [`REMEMBERED_MAX`](crate::lineage::REMEMBERED_MAX).
    #[n(10)]
    #[cbor(default, skip_if = "Vec::is_empty")]
    pub remembered: Vec<Remembered>,
    /// What people call it, if it says so: at most [`NAME_CHARS_MAX`] are kept.
    #[n(16)]
    pub name: Option<String>,
}

/// The bits of [`Hello::features`].
pub mod feature {
    /// A pull may ask for everything, also for rows that came from the reader ([`Pull`](super::Message::Pull)).
    pub const OWN_ROWS: u64 = 1 << 4;
    /// A chunk may be asked for as a patch of others ([`PatchAsk`](super::Message::PatchAsk)).
    pub const PATCHES: u64 = 1 << 6;
}

/// A bucket that the sender holds.
#[derive(Clone, Copy, Debug, Decode, Encode, Eq, PartialEq)]
#[cbor(array)]
pub struct Offered {
    /// Which bucket.
    #[n(0)]
    pub bucket: BucketId,
    /// Its last row when this was sent, to show progress by.
    #[n(1)]
    pub head: Seq,
}

/// Why a session ends.
#[derive(Clone, Copy, Debug, Decode, Encode, Eq, PartialEq)]
#[cbor(index_only)]
pub enum CloseReason {
    /// All done.
    #[n(0)]
    Done,
    /// Shutting down; come again.
    #[n(1)]
    GoingAway,
    /// The peer broke the protocol.
    #[n(2)]
    Violation,
    /// No protocol version is spoken by both.
    #[n(3)]
    NoCommonVersion,
    /// A frame or flag that must be understood is not.
    #[n(4)]
    NotUnderstood,
    /// The peer is not who it says, or is no longer welcome.
    #[n(5)]
    NotWelcome,
    /// The sender's own store failed; come again later.
    #[n(6)]
    StoreFailed,
}

/// One message.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Message {
    /// Opens the session.
    Hello(Hello),
    /// Names buckets that the peer may pull. Sent after the hellos, and again for buckets that come up later.
    Offer(Vec<Offered>),
    /// Asks for a bucket's feed from a place on, now and as it grows, until the session ends.
    Pull {
        /// Which bucket.
        bucket: BucketId,
        /// The sender's last place in it.
        after: Seq,
        /// The epoch of the receiver that counts it.
        epoch: Epoch,
        /// The size that pages should have, in bytes.
        page_bytes: u32,
        /// Rows that came from the sender are not left out: it has evicted them since. Only if the receiver has
        /// [`feature::OWN_ROWS`].
        own_too: bool,
    },
    /// A piece of a feed that was pulled.
    Page {
        /// Which bucket.
        bucket: BucketId,
        /// The place up to which the feed is now seen.
        next: Seq,
        /// Whether rows followed when it was read.
        more: bool,
        /// Encoded records (`record::encoding`).
        records: Vec<Vec<u8>>,
        /// What the sender's store is after it; `None` from who does not know.
        moment: Option<Moment>,
    },
    /// Asks for a manifest.
    ManifestAsk {
        /// Of which blob.
        blob: BlobHash,
    },
    /// Answers it.
    Manifest {
        /// Of which blob.
        blob: BlobHash,
        /// The encoded manifest; `None` if the blob is not whole here, or not for this peer.
        manifest: Option<Vec<u8>>,
    },
    /// Asks for one chunk of a blob whose manifest was had.
    ChunkAsk {
        /// Of which blob.
        blob: BlobHash,
        /// Which chunk.
        index: u32,
        /// How soon it is to come: one of [`Class::CONTENT`].
        class: Class,
    },
    /// The same, where the sender holds chunks of which the missing one probably is a changed form. Only if the receiver has
    /// [`feature::PATCHES`].
    PatchAsk {
        /// Of which blob.
        blob: BlobHash,
        /// Which chunk.
        index: u32,
        /// How soon it is to come: one of [`Class::CONTENT`].
        class: Class,
        /// The chunks, at most [`BASIS_CHUNKS_MAX`](crate::chunk::basis::BASIS_CHUNKS_MAX) and at least one.
        basis: Vec<ChunkHash>,
    },
    /// Answers either.
    Chunk {
        /// Of which blob.
        blob: BlobHash,
        /// Which chunk.
        index: u32,
        /// Its bytes; empty if the blob is gone since.
        bytes: Bytes,
    },
    /// Answers a [`PatchAsk`](Self::PatchAsk), where it is less than the chunk.
    Patch {
        /// Of which blob.
        blob: BlobHash,
        /// Which chunk.
        index: u32,
        /// What makes it of its basis ([`chunk::patch`](crate::chunk::patch)).
        patch: Bytes,
    },
    /// A blob has become whole here that the peer may have asked for in vain.
    Have {
        /// Which blob.
        blob: BlobHash,
    },
    /// The sender has dealt with everything up to now and wants nothing more that the receiver has.
    Quiet {
        /// Pages, offers and haves that it has dealt with in this session.
        dealt_with: u64,
    },
    /// The sender fetches these over its link to the bridge for both, or wants to. Said between nodes.
    Fetching {
        /// Which blobs: at most [`FETCHING_BLOBS_MAX`].
        blobs: Vec<BlobHash>,
        /// It has begun; else it is about to, unless the receiver has them, or is about to, too.
        begun: bool,
    },
    /// Ends the session.
    Close {
        /// Why.
        reason: CloseReason,
        /// In words, for the log.
        text: String,
    },
}

impl Message {
    /// The classes' lanes: control, records, or one of the content lanes (0 stands for any).
    pub fn lane(&self) -> Lane {
        match self {
            Self::Page { .. } => Lane::Records,
            Self::Manifest { .. } | Self::Chunk { .. } | Self::Patch { .. } => Lane::Content(0),
            _ => Lane::Control,
        }
    }
}
