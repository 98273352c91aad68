//! Writes a bundle: head, pages of each bucket, the list of content, and the content.
//!
//! Records come first, so that a bundle that is cut off still brings them, and so that a look at it need not read the
//! content. Memory holds one page, one chunk, one manifest, and the names of the blobs that are carried.

use std::collections::HashSet;
use std::io::Write;
use std::ops::ControlFlow;

use minicbor::bytes::ByteVec;

use super::format::{self, BundleHead, CONTENT_ENTRIES_MAX, Content, ContentEntry, VERSION};
use super::opened::NOBODY;
use super::segment::{SEAL_BYTES_MAX, SEGMENT_BYTES, SegmentWriter, WriteSegmentError};
use super::{BUCKETS_MAX, OnProgress, Progress, Receipt, StoreError};
use crate::chunk::{BlobHash, Manifest};
use crate::domain::{Blob, Typed};
use crate::hlc::ClockQuality;
use crate::id::{BucketId, NodeId, Seq};
use crate::identity::Identity;
use crate::record::Record;
use crate::signature::SignatureError;
use crate::store::{BlobStore, BucketHead, Peer, RecordStore};
use crate::wire::{FRAME_HEADER_BYTES, Hello, Message, Offered};

/// Size of the pages, in bytes.
pub const PAGE_BYTES: u32 = 256 * 1024;
/// Blobs carried by one bundle, at most; the next one for the same reader carries the rest.
pub const BLOBS_MAX: usize = 128 * 1024;

/// Bytes that a chunk costs beside its own.
const CHUNK_FRAMING_BYTES: u64 = FRAME_HEADER_BYTES as u64 + 36;
/// Bytes that a blob costs beside its chunks and its manifest: its name in the list, and the frame of the manifest.
const BLOB_FRAMING_BYTES: u64 = 128;

/// What is written into a bundle.
#[derive(Clone, Copy)]
pub struct Export<'e> {
    /// Who makes it, and when. Its time is what the bundle is signed for.
    pub hello: &'e Hello,
    /// How long it is good, in milliseconds; at most [`super::VALIDITY_MS_MAX`].
    pub validity_ms: u64,
    /// The key of enrolment; `None` in no fleet.
    pub signer: Option<&'e Identity>,
    /// The buckets, as far as they have come now.
    pub buckets: &'e [BucketHead],
    /// For whom; `None` for anyone.
    pub reader: Option<&'e Reader>,
    /// Whether content is carried, too.
    pub content: bool,
    /// The file has no more bytes than this; what does not fit is left out.
    pub max_bytes: Option<u64>,
    /// Segments are closed from this size on, in bytes; [`SEGMENT_BYTES`] is the most.
    pub segment_bytes: usize,
}

/// The one who is to read a bundle, as far as it is known.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Reader {
    /// Which replica.
    pub node: NodeId,
    /// In which life: what it sent itself in that one is left out. `None`: nothing is left out.
    pub life: Option<Peer>,
    /// What it has said last.
    pub receipt: Option<Receipt>,
}

impl Reader {
    /// After which row of the exporter's feed it reads on.
    fn start(&self, exporter: Peer, bucket: BucketId) -> Seq {
        let receipt = self.receipt.as_ref().filter(|receipt| receipt.exporter == exporter);
        receipt.and_then(|receipt| receipt.cursors.get(&bucket).copied()).unwrap_or_default()
    }

    fn may_lack(&self) -> bool {
        self.receipt.as_ref().is_some_and(|receipt| receipt.lacks_more || !receipt.lacks.is_empty())
    }

    fn lacks(&self, blob: BlobHash) -> bool {
        self.receipt.as_ref().is_some_and(|receipt| receipt.lacks_more || receipt.lacks.contains(&blob))
    }
}

/// What a bundle carries.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Exported {
    /// Records, with tombstones.
    pub records: u64,
    /// Blobs.
    pub blobs: u64,
    /// Their bytes.
    pub blob_bytes: u64,
    /// Blobs left out because they did not fit; the records name them all the same.
    pub blobs_left_out: u64,
    /// Blobs that the records name and that are not whole here.
    pub blobs_absent: u64,
    /// Whether pages were left out because they did not fit. The reader goes on where they end.
    pub records_left_out: bool,
    /// Bytes of the file.
    pub file_bytes: u64,
}

/// Why there is no bundle. What was written of it is not one.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The file.
    #[error("write the bundle")]
    Io(#[from] std::io::Error),
    /// The key.
    #[error(transparent)]
    Sign(#[from] SignatureError),
    /// A store failed.
    #[error("a store failed")]
    Store(#[source] StoreError),
    /// More buckets than one bundle takes: choose collections.
    #[error("{0} buckets are more than the {BUCKETS_MAX} that one bundle takes: choose collections")]
    TooManyBuckets(usize),
    /// Not even the head fits.
    #[error("{0} bytes are too few for a bundle")]
    TooSmall(u64),
    /// Whoever hears of progress has ended it.
    #[error("it was stopped")]
    Stopped,
}

impl From<WriteSegmentError> for ExportError {
    fn from(error: WriteSegmentError) -> Self {
        match error {
            WriteSegmentError::Io(error) => Self::Io(error),
            WriteSegmentError::Sign(error) => Self::Sign(error),
        }
    }
}

/// Writes a bundle to `out`, and gives that back. Before the first byte the store notes, durably, that its records are given away; unless nobody
/// knows when: by a clock that was never set it could not take what comes back (docs/adr/0013-long-absence.md).
///
/// # Errors
///
/// [`ExportError`].
pub async fn export<R: RecordStore, B: BlobStore, W: Write>(
    what: Export<'_>,
    records: &R,
    blobs: &B,
    out: W,
    progress: &mut OnProgress<'_>,
) -> Result<(W, Exported), ExportError> {
    if what.buckets.len() > BUCKETS_MAX {
        return Err(ExportError::TooManyBuckets(what.buckets.len()));
    }
    let mut hello = what.hello.clone();
    let at_ms = (hello.clock_quality != ClockQuality::Untrusted).then_some(hello.unix_ms);
    records.note_given(at_ms).await.map_err(store)?;
    if at_ms.is_some() {
        hello.standing = hello.standing.map(|standing| standing.once_given(hello.unix_ms));
    }
    let what = Export { hello: &hello, ..what };
    let writer = SegmentWriter::new(out, what.signer, what.segment_bytes);
    let mut exporter = Exporter {
        what,
        records,
        blobs,
        writer,
        progress,
        exported: Exported::default(),
        candidates: Candidates::new(),
    };
    exporter.write_head()?;
    exporter.write_pages().await?;
    if what.content {
        exporter.find_what_is_lacking().await?;
        let carried = exporter.write_list().await?;
        exporter.write_content(&carried).await?;
    }
    let Exporter { writer, mut exported, .. } = exporter;
    let (out, file_bytes) = writer.end()?;
    exported.file_bytes = file_bytes;
    Ok((out, exported))
}

struct Exporter<'e, 'p, R, B, W> {
    what: Export<'e>,
    records: &'e R,
    blobs: &'e B,
    writer: SegmentWriter<'e, W>,
    progress: &'e mut OnProgress<'p>,
    exported: Exported,
    candidates: Candidates,
}

/// Blobs that the records name, each once, in the order in which they were named.
struct Candidates {
    order: Vec<BlobHash>,
    seen: HashSet<BlobHash>,
    left_out: u64,
}

impl Candidates {
    fn new() -> Self {
        Self { order: Vec::new(), seen: HashSet::new(), left_out: 0 }
    }

    fn add(&mut self, blob: BlobHash) {
        if self.seen.len() == BLOBS_MAX {
            self.left_out += u64::from(!self.seen.contains(&blob));
        } else if self.seen.insert(blob) {
            self.order.push(blob);
        }
    }
}

impl<R: RecordStore, B: BlobStore, W: Write> Exporter<'_, '_, R, B, W> {
    fn here(&self) -> Peer {
        Peer { node: self.what.hello.node, epoch: self.what.hello.epoch }
    }

    /// The life of the reader whose own rows are left out.
    fn reader_life(&self) -> Option<Peer> {
        self.what.reader.and_then(|reader| reader.life)
    }

    fn start(&self, bucket: BucketId) -> Seq {
        self.what.reader.map_or_else(Seq::default, |reader| reader.start(self.here(), bucket))
    }

    fn write_head(&mut self) -> Result<(), ExportError> {
        let hello = self.what.hello;
        let head = BundleHead {
            version: VERSION,
            expires_unix_ms: hello.unix_ms.saturating_add(self.what.validity_ms.min(super::VALIDITY_MS_MAX)),
            certificate: self.what.signer.map(|signer| ByteVec::from(signer.certificate_der().to_vec())),
            reader: self.reader_life().map(Into::into),
        };
        let offered = self.what.buckets.iter().map(|&BucketHead { bucket, head }| Offered { bucket, head }).collect();
        let mut frames = vec![
            format::frame(format::BUNDLE, &head),
            Message::Hello(hello.clone()).to_frame(),
            Message::Offer(offered).to_frame(),
        ];
        for &BucketHead { bucket, .. } in self.what.buckets {
            let (after, epoch) = (self.start(bucket), hello.epoch);
            frames.push(Message::Pull { bucket, after, epoch, page_bytes: PAGE_BYTES, own_too: false }.to_frame());
        }
        let bytes = frames.iter().map(|frame| frame.len() as u64).sum();
        if let Some(max_bytes) = self.what.max_bytes.filter(|_| !self.fits(bytes)) {
            return Err(ExportError::TooSmall(max_bytes));
        }
        for frame in frames {
            self.writer.frame_of_head(&frame)?;
        }
        Ok(self.writer.close_segment()?)
    }

    async fn write_pages(&mut self) -> Result<(), ExportError> {
        let reader = self.reader_life().unwrap_or(NOBODY);
        for &BucketHead { bucket, head } in self.what.buckets {
            let mut at = self.start(bucket);
            while at < head {
                let page = self.records.page(bucket, at, reader, PAGE_BYTES).await.map_err(store)?;
                if page.next <= at {
                    break;
                }
                let records = page.records.iter().map(Record::encode).collect();
                let moment = self.records.moment().await.map_err(store)?;
                let (next, more) = (page.next, page.next < head);
                let frame = Message::Page { bucket, next, more, records, moment }.to_frame();
                if !self.fits(frame.len() as u64) {
                    self.exported.records_left_out = true;
                    return Ok(());
                }
                self.writer.frame(&frame)?;
                self.exported.records += page.records.len() as u64;
                for blob in page.records.iter().filter_map(named_blob) {
                    self.candidates.add(blob);
                }
                at = page.next;
                self.tell()?;
            }
        }
        Ok(())
    }

    /// Looks through the records that the reader has already for content that it lacks.
    async fn find_what_is_lacking(&mut self) -> Result<(), ExportError> {
        let Some(reader) = self.what.reader.filter(|reader| reader.may_lack()) else { return Ok(()) };
        for &BucketHead { bucket, .. } in self.what.buckets {
            let (mut at, until) = (Seq::default(), self.start(bucket));
            while at < until {
                let page = self.records.page(bucket, at, NOBODY, PAGE_BYTES).await.map_err(store)?;
                if page.next <= at {
                    break;
                }
                for blob in page.records.iter().filter_map(named_blob).filter(|&blob| reader.lacks(blob)) {
                    self.candidates.add(blob);
                }
                at = page.next;
                self.tell()?;
            }
        }
        Ok(())
    }

    /// Names the content that fits, so that a reader knows what is to come. Returns the same.
    async fn write_list(&mut self) -> Result<Vec<BlobHash>, ExportError> {
        let order = std::mem::take(&mut self.candidates.order);
        self.exported.blobs_left_out = self.candidates.left_out;
        let mut planned_bytes = 0;
        let mut carried = Vec::new();
        let mut entries = Vec::new();
        for blob in order {
            let Some(manifest) = self.manifest(blob).await? else {
                self.exported.blobs_absent += 1;
                continue;
            };
            let cost_bytes = cost_bytes(&manifest);
            if !self.fits(planned_bytes + cost_bytes) {
                self.exported.blobs_left_out += 1;
                continue;
            }
            planned_bytes += cost_bytes;
            self.exported.blob_bytes += manifest.size_bytes();
            entries.push(ContentEntry { blob, size_bytes: manifest.size_bytes() });
            carried.push(blob);
            if entries.len() == CONTENT_ENTRIES_MAX {
                self.write_entries(&mut entries)?;
            }
        }
        self.write_entries(&mut entries)?;
        self.writer.close_segment()?;
        Ok(carried)
    }

    fn write_entries(&mut self, entries: &mut Vec<ContentEntry>) -> Result<(), ExportError> {
        if !entries.is_empty() {
            let content = Content { blobs: std::mem::take(entries) };
            self.writer.frame(&format::frame(format::CONTENT, &content))?;
        }
        self.tell()
    }

    async fn write_content(&mut self, carried: &[BlobHash]) -> Result<(), ExportError> {
        for &blob in carried {
            let Some(manifest) = self.manifest(blob).await? else {
                self.exported.blobs_absent += 1;
                continue;
            };
            self.writer.frame(&Message::Manifest { blob, manifest: Some(manifest.to_bytes()) }.to_frame())?;
            let mut whole = true;
            for index in 0..manifest.chunks().len() as u32 {
                // Gone or damaged since it was listed: the reader takes no half blobs.
                let Some(bytes) = self.blobs.read(&manifest, index).await.map_err(store)? else {
                    whole = false;
                    break;
                };
                self.writer.frame(&Message::Chunk { blob, index, bytes }.to_frame())?;
                self.tell()?;
            }
            if whole {
                self.exported.blobs += 1;
            } else {
                self.exported.blobs_absent += 1;
            }
        }
        Ok(())
    }

    async fn manifest(&self, blob: BlobHash) -> Result<Option<Manifest>, ExportError> {
        let reader = self.what.reader.map_or(self.what.hello.node, |reader| reader.node);
        self.blobs.manifest(reader, blob).await.map_err(store)
    }

    /// Whether so many bytes more, and the seals that they bring, stay within the limit.
    fn fits(&self, bytes: u64) -> bool {
        let seals = bytes / self.what.segment_bytes.clamp(1, SEGMENT_BYTES) as u64 + 4;
        let after = self.writer.written_bytes() + bytes + seals * SEAL_BYTES_MAX;
        self.what.max_bytes.is_none_or(|max_bytes| after <= max_bytes)
    }

    fn tell(&mut self) -> Result<(), ExportError> {
        let Exported { records, blob_bytes, .. } = self.exported;
        let progress = Progress { records, bytes: self.writer.written_bytes(), content_bytes: blob_bytes };
        match (self.progress)(progress) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(ExportError::Stopped),
        }
    }
}

/// The blob that a record makes its bucket's readers want.
fn named_blob(record: &Record) -> Option<BlobHash> {
    Blob::from_record(record)?.hash
}

fn cost_bytes(manifest: &Manifest) -> u64 {
    let chunks = manifest.chunks().len() as u64;
    let manifest_bytes = manifest.to_bytes().len() as u64;
    manifest.size_bytes() + chunks * CHUNK_FRAMING_BYTES + manifest_bytes + BLOB_FRAMING_BYTES
}

fn store(error: impl std::error::Error + Send + Sync + 'static) -> ExportError {
    ExportError::Store(error.into())
}
