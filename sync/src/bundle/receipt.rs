//! Receipts: what a reader of bundles says to their exporter. The same frames that it would ask with in a session: a pull
//! from each of its cursors, and an ask for each blob that it lacks. What it does not ask for, it has.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};

use minicbor::bytes::ByteVec;

use super::format::{self, ReceiptHead, VERSION};
use super::opened::{believe, body, message};
use super::segment::{SEGMENT_BYTES, SegmentReader, SegmentWriter, WriteSegmentError};
use super::{BUCKETS_MAX, Issuer, OpenError, Receiver, StoreError};
use crate::chunk::BlobHash;
use crate::id::{BucketId, Seq};
use crate::identity::{Identity, PeerRole};
use crate::store::{BlobStore, Peer, RecordStore};
use crate::wire::{Hello, Message};

/// Lacking blobs that a receipt names, at most. Where there are more, it says so, and the next bundle carries all content.
pub const LACKS_MAX: usize = 50_000;
/// Bytes of a receipt, at most: its buckets, what it lacks, and room.
pub const RECEIPT_BYTES_MAX: u64 = 100 * LACKS_MAX as u64;

/// Blobs that are looked up at a time.
const WANTED_AT_ONCE: usize = 1000;

/// What a reader has of an exporter.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Receipt {
    /// Who says so, and when.
    pub issuer: Issuer,
    /// Of whose feeds.
    pub exporter: Peer,
    /// The last row seen in each bucket.
    pub cursors: BTreeMap<BucketId, Seq>,
    /// Content that records up to there name, and that is not there.
    pub lacks: BTreeSet<BlobHash>,
    /// Whether more is lacking than is named.
    pub lacks_more: bool,
}

impl Receipt {
    /// Says what is in these stores of `exporter`'s feeds.
    ///
    /// # Errors
    ///
    /// The store's.
    pub async fn gather<R: RecordStore, B: BlobStore>(
        hello: Hello,
        exporter: Peer,
        records: &R,
        blobs: &B,
    ) -> Result<Self, StoreError> {
        let mut cursors = BTreeMap::new();
        for head in records.heads().await? {
            let cursor = records.cursor(exporter.node, head.bucket).await?;
            if let Some(cursor) = cursor.filter(|cursor| cursor.epoch == exporter.epoch)
                && cursors.len() < BUCKETS_MAX
            {
                cursors.insert(head.bucket, cursor.seq);
            }
        }
        let mut lacks = BTreeSet::new();
        let mut lacks_more = false;
        let mut after = None;
        while !lacks_more {
            let wanted = blobs.wanted(exporter.node, after, WANTED_AT_ONCE).await?;
            let Some(last) = wanted.last() else { break };
            after = Some(last.blob);
            lacks.extend(wanted.into_iter().map(|wanted| wanted.blob));
            lacks_more = lacks.len() > LACKS_MAX;
        }
        let lacks = lacks.into_iter().take(LACKS_MAX).collect();
        let issuer = Issuer { hello, role: PeerRole::Node, vouched: false };
        Ok(Self { issuer, exporter, cursors, lacks, lacks_more })
    }

    /// Writes it, signed if there is a key.
    ///
    /// # Errors
    ///
    /// [`WriteSegmentError`].
    pub fn write<W: Write>(&self, signer: Option<&Identity>, out: W) -> Result<W, WriteSegmentError> {
        let mut writer = SegmentWriter::new(out, signer, SEGMENT_BYTES);
        let head = ReceiptHead {
            version: VERSION,
            exporter: self.exporter.into(),
            certificate: signer.map(|signer| ByteVec::from(signer.certificate_der().to_vec())),
            lacks_more: self.lacks_more,
        };
        writer.frame_of_head(&format::frame(format::RECEIPT, &head))?;
        writer.frame_of_head(&Message::Hello(self.issuer.hello.clone()).to_frame())?;
        let epoch = self.exporter.epoch;
        for (&bucket, &after) in &self.cursors {
            writer.frame_of_head(&Message::Pull { bucket, after, epoch, page_bytes: 0, own_too: false }.to_frame())?;
        }
        for &blob in &self.lacks {
            writer.frame_of_head(&Message::ManifestAsk { blob }.to_frame())?;
        }
        Ok(writer.end()?.0)
    }

    /// Reads one that is meant for `receiver`.
    ///
    /// # Errors
    ///
    /// [`OpenError`]; only a whole one is taken.
    pub fn read(receiver: &Receiver<'_>, input: impl Read) -> Result<Self, OpenError> {
        let mut segments = SegmentReader::new(input);
        let first = segments.next()?;
        let head: ReceiptHead = body(&first, format::RECEIPT)?;
        if head.version != VERSION {
            return Err(OpenError::TooNew { found: head.version });
        }
        let (issuer, _) = believe(receiver, &first, head.certificate.as_ref())?;
        // It is small enough for one segment.
        if !first.end {
            return Err(OpenError::Damaged("it is longer than any receipt".into()));
        }
        let exporter = Peer::from(head.exporter);
        if issuer.hello.node == receiver.local.node {
            return Err(OpenError::Own);
        }
        if exporter.node != receiver.local.node {
            return Err(OpenError::ReceiptForAnother { exporter: exporter.node });
        }
        if exporter.epoch != receiver.local.epoch {
            return Err(OpenError::ReceiptForAnotherLife);
        }
        let (mut cursors, mut lacks) = (BTreeMap::new(), BTreeSet::new());
        for frame in &first.frames[2..] {
            match message(frame).map_err(|error| OpenError::Damaged(error.to_string()))? {
                Some(Message::Pull { bucket, after, epoch, .. }) if epoch == exporter.epoch => {
                    cursors.insert(bucket, after);
                }
                Some(Message::ManifestAsk { blob }) => {
                    lacks.insert(blob);
                }
                None => {}
                Some(_) => return Err(OpenError::Damaged("a frame in the wrong place".into())),
            }
        }
        if cursors.len() > BUCKETS_MAX || lacks.len() > LACKS_MAX {
            return Err(OpenError::Damaged("it is longer than any receipt".into()));
        }
        Ok(Self { issuer, exporter, cursors, lacks, lacks_more: head.lacks_more })
    }

    /// The one who has written it, as the reader of the next bundle.
    pub fn reader(&self) -> Peer {
        self.issuer.peer()
    }

    /// Whether the same replica may have written it after `other`. Its clock may have been set back meanwhile, and where it has
    /// read nothing since, only what it lacks may differ: of two such receipts the one that came last counts, for the next
    /// one puts right what an old file said.
    pub fn is_no_older_than(&self, other: &Self) -> bool {
        let (mine, theirs) = (&self.issuer.hello, &other.issuer.hello);
        if mine.incarnation != theirs.incarnation {
            return mine.incarnation > theirs.incarnation;
        }
        // Cursors grow within a life, whatever the clock says.
        let compared = || self.cursors.iter().filter_map(|(bucket, seq)| Some(seq.cmp(other.cursors.get(bucket)?)));
        mine.unix_ms >= theirs.unix_ms || compared().any(Ordering::is_gt) || !compared().any(Ordering::is_lt)
    }
}
