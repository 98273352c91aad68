//! Bundles: a session's frames in a file, for places that no link reaches. What is carried on a stick is what a session
//! would have sent, and what comes home on it is what the other end would have asked.
//!
//! - [`export()`] writes a bundle: the feeds of some buckets from where the reader stands (or from the start, for anyone),
//!   then the content that their records name.
//! - [`survey()`] tells what importing one would change; [`import()`] does it, over the two ports of `store`.
//! - [`Receipt`] is what a reader says afterwards: where its cursors stand and what content it lacks. The next bundle
//!   for it starts there.
//! - [`report`]: what is told of all that, as data and in words.
//! - `segment`: a file is a sequence of segments, each closed by a hash over everything before it and a signature.
//!   `format`: the frames that only bundles have. `opened`: whose bundles are taken, and until when.
//!
//! What always holds:
//! - Nothing is applied before the seal of its segment was checked. Of a file that was cut off or changed, every segment
//!   before that place counts.
//! - Pages are applied with the exporter as their origin, with the cursor that they move, as in a session; a bundle that
//!   starts after the cursor here is refused for that bucket, and a cursor never goes back.
//! - Content comes in only where records here want it, and only whole.
//! - One segment is in memory at a time, however large the file.
//!
//! No clock here: whoever calls passes the time. Not here: who may be given what (the host chooses the buckets), files
//! and their names, asking people.

pub mod export;
pub mod format;
pub mod import;
pub mod receipt;
pub mod report;
pub mod survey;

mod opened;
mod segment;

use std::io::{self, Read};
use std::ops::ControlFlow;

pub use export::{Export, ExportError, Exported, Reader, export};
pub use import::{ImportError, Imported, import};
pub use opened::{OpenError, issuer};
pub use receipt::{LACKS_MAX, RECEIPT_BYTES_MAX, Receipt};
pub use segment::{SEGMENT_BYTES, SEGMENT_BYTES_MAX, SEGMENT_FRAMES_MAX, SEGMENTS_MAX, WriteSegmentError};
pub use survey::{KindCounts, Survey, SurveyError, survey};

use crate::absence::Standing;
use crate::id::{BucketId, Seq};
use crate::identity::{Identity, PeerRole};
use crate::merge::ReceiverClock;
use crate::session::Selection;
use crate::store::Peer;
use crate::wire::{FRAME_HEADER_BYTES, Hello};

/// How long a bundle is good unless someone says otherwise, in milliseconds: 90 days.
pub const VALIDITY_MS: u64 = 90 * DAY_MS;
/// The longest that any is good: 180 days. After this, tombstones that it has not seen may be collected.
pub const VALIDITY_MS_MAX: u64 = 180 * DAY_MS;
/// Buckets in a bundle or a receipt, at most.
pub const BUCKETS_MAX: usize = 10_000;

const DAY_MS: u64 = 24 * 60 * 60 * 1000;

/// Who made a bundle or a receipt.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Issuer {
    /// Which replica, in which life, and when by its clock.
    pub hello: Hello,
    /// What its certificate says that it is; a node if it shows none.
    pub role: PeerRole,
    /// Whether the authority of the fleet here vouches for it.
    pub vouched: bool,
}

impl Issuer {
    /// It, as the other end of a session.
    pub fn peer(&self) -> Peer {
        Peer { node: self.hello.node, epoch: self.hello.epoch }
    }
}

/// The replica that takes a bundle or a receipt, and what it demands of it.
#[derive(Clone, Copy)]
pub struct Receiver<'r> {
    /// Who it is.
    pub local: Peer,
    /// Its clock.
    pub clock: ReceiverClock,
    /// Its own certificate, by whose authority others are judged; `None` in no fleet.
    pub identity: Option<&'r Identity>,
    /// Whether it takes what nobody that it knows vouches for.
    pub unsigned: bool,
    /// Which buckets it may take from whom.
    pub accepts: &'r (dyn Fn(&Issuer, BucketId) -> bool + Sync),
    /// Which of these it wants, as in a session.
    pub selection: &'r Selection,
    /// How it stands after an absence.
    pub standing: Standing,
}

/// Why the records of a bucket were not taken.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum BucketRefusal {
    /// Rows between would be skipped. An earlier bundle of the same exporter, or one for anyone, closes the gap.
    #[error("it starts after row {starts_after}, and only rows up to {known} are known here: an earlier bundle is missing", starts_after = starts_after.0, known = known.0)]
    Gap {
        /// Where it starts.
        starts_after: Seq,
        /// Where the cursor here is.
        known: Seq,
    },
    /// Not for this replica.
    #[error("it is not for this replica")]
    NotForHere,
    /// Not chosen here.
    #[error("it is not kept on this replica")]
    NotKept,
    /// It was evicted here and is to come back whole; what this replica wrote there itself is not in the bundle.
    #[error("it leaves out what this replica wrote there before it gave it up; a bundle for anyone has all of it")]
    LeavesOutOwn,
}

/// How far a file could be read.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Ending {
    /// To its end.
    Whole,
    /// It was cut off.
    Cut {
        /// Whole segments before that.
        segments: u32,
        /// Their bytes.
        bytes: u64,
    },
    /// It was changed, or its exporter broke the rules.
    Damaged {
        /// Whole segments before that.
        segments: u32,
        /// Their bytes.
        bytes: u64,
        /// What is wrong.
        problem: String,
    },
}

/// How far an export or an import is.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Progress {
    /// Records written or read.
    pub records: u64,
    /// Bytes of the file written or read.
    pub bytes: u64,
    /// Bytes of content that the file holds, where that is known.
    pub content_bytes: u64,
}

/// Hears of progress, and may end the work.
pub type OnProgress<'p> = dyn FnMut(Progress) -> ControlFlow<()> + Send + 'p;

/// What a file is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum FileKind {
    /// A bundle.
    Bundle,
    /// A receipt.
    Receipt,
}

impl FileKind {
    /// Looks at the beginning of a file; `None` if it is neither.
    ///
    /// # Errors
    ///
    /// If it cannot be read.
    pub fn of(mut input: impl Read) -> io::Result<Option<Self>> {
        let mut head = [0; FRAME_HEADER_BYTES];
        match input.read_exact(&mut head) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            other => other?,
        }
        Ok(match head[4] {
            format::BUNDLE => Some(Self::Bundle),
            format::RECEIPT => Some(Self::Receipt),
            _ => None,
        })
    }
}

/// A day, for people: `2026-11-26`.
pub fn date(unix_ms: u64) -> String {
    let at = i64::try_from(unix_ms / 1000).ok().and_then(|s| time::OffsetDateTime::from_unix_timestamp(s).ok());
    at.map_or_else(|| "a day past the end of time".into(), |at| at.date().to_string())
}

type StoreError = Box<dyn std::error::Error + Send + Sync>;
