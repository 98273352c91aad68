//! Tells what importing a bundle would change here, without changing anything.
//!
//! Reads the records and the list of content; the content itself comes after both and is not looked at.

use std::collections::{BTreeMap, HashSet};
use std::io::Read;

use super::format::{self, Content};
use super::opened::{Opened, message};
use super::segment::Frame;
use super::{BucketRefusal, Ending, Issuer, OpenError, Receiver, StoreError};
use crate::chunk::BlobHash;
use crate::domain::{Blob, Typed};
use crate::id::{BucketId, Seq};
use crate::merge::{Admission, ReceiverClock, admit};
use crate::record::{Kind, Record, RecordKey};
use crate::store::RecordStore;
use crate::wire::Message;

/// Contents of a bundle, part of which is refused, that are remembered for each part that names them, at most (about 40 bytes each). Past it,
/// what only the refused part names is counted as well.
const NAMED_MAX: usize = 500_000;

/// What a bundle would change.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Survey {
    /// Who made it, and when.
    pub issuer: Issuer,
    /// Until when it is good, in milliseconds since 1970.
    pub expires_unix_ms: u64,
    /// What would become of its records.
    pub kinds: BTreeMap<Kind, KindCounts>,
    /// Buckets of which nothing would be taken, and why.
    pub refused: BTreeMap<BucketId, BucketRefusal>,
    /// Blobs that are not here and would come.
    pub blobs_new: u64,
    /// Their bytes.
    pub bytes_new: u64,
    /// Blobs that are here.
    pub blobs_known: u64,
    /// Bytes of all content in it.
    pub content_bytes: u64,
    /// How far it could be read; [`Ending::Whole`] where that was as far as its content.
    pub ending: Ending,
}

/// What would become of the records of one kind.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct KindCounts {
    /// Not here yet.
    pub new: u64,
    /// Here in another version.
    pub changed: u64,
    /// Here, and deleted for good.
    pub deleted: u64,
    /// Here in this version or a later one.
    pub known: u64,
    /// From a clock that is too far ahead; they would be set aside.
    pub set_aside: u64,
}

/// Why nothing can be told.
#[derive(Debug, thiserror::Error)]
pub enum SurveyError {
    /// The bundle is not taken.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The file cannot be read on.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// A store failed.
    #[error("a store failed")]
    Store(#[source] StoreError),
}

/// Looks through a bundle. `held_records`, which answers for each key in its place, and `holds_blob` look into the stores.
///
/// # Errors
///
/// [`SurveyError`]. A bundle that is cut off or damaged later is surveyed as far as it goes.
pub async fn survey<R, E, F>(
    receiver: &Receiver<'_>,
    input: impl Read,
    records: &R,
    mut held_records: impl AsyncFnMut(Vec<RecordKey>) -> Result<Vec<Option<Record>>, E>,
    mut holds_blob: impl AsyncFnMut(BlobHash) -> Result<bool, F>,
) -> Result<Survey, SurveyError>
where
    R: RecordStore,
    E: std::error::Error + Send + Sync + 'static,
    F: std::error::Error + Send + Sync + 'static,
{
    let mut opened = Opened::open(receiver, input)?;
    let places = Places::look_up(receiver, &opened, records).await.map_err(SurveyError::Store)?;
    let mut survey = Survey {
        issuer: opened.issuer.clone(),
        expires_unix_ms: opened.expires_unix_ms,
        kinds: BTreeMap::new(),
        refused: places.refused,
        blobs_new: 0,
        bytes_new: 0,
        blobs_known: 0,
        content_bytes: 0,
        ending: Ending::Whole,
    };
    let mut named = Named::default();
    'file: loop {
        let frames = match opened.next_segment()? {
            Ok(frames) => frames,
            Err(ending) => {
                survey.ending = ending;
                break;
            }
        };
        for frame in frames {
            match Seen::of(&frame) {
                Ok(Seen::Records(bucket, found)) if places.cursors.contains_key(&bucket) => {
                    if !survey.refused.is_empty() {
                        named.by_taken(&found);
                    }
                    let keys = found.iter().map(|record| record.key).collect();
                    let held = held_records(keys).await.map_err(|error| SurveyError::Store(error.into()))?;
                    for (record, held) in found.into_iter().zip(held) {
                        survey.kinds.entry(record.key.kind).or_default().count(held, record, receiver.clock);
                    }
                }
                Ok(Seen::Listed(content)) => {
                    for entry in content.blobs {
                        survey.content_bytes = survey.content_bytes.saturating_add(entry.size_bytes);
                        if holds_blob(entry.blob).await.map_err(|error| SurveyError::Store(error.into()))? {
                            survey.blobs_known += 1;
                        } else if !named.only_by_refused(entry.blob)
                            || is_named(entry.blob, places.cursors.keys(), &mut held_records).await?
                        {
                            survey.blobs_new += 1;
                            survey.bytes_new = survey.bytes_new.saturating_add(entry.size_bytes);
                        }
                    }
                }
                Ok(Seen::Records(_, found)) => named.by_refused(&found),
                Ok(Seen::Other) => {}
                Ok(Seen::ContentItself) => break 'file,
                Err(problem) => {
                    survey.ending = opened.broken(problem);
                    break 'file;
                }
            }
        }
    }
    Ok(survey)
}

/// Which part of a bundle names a content.
#[derive(Debug, Default)]
struct Named {
    taken: HashSet<BlobHash>,
    refused: HashSet<BlobHash>,
}

impl Named {
    fn by_taken(&mut self, records: &[Record]) {
        if self.taken.len() < NAMED_MAX {
            self.taken.extend(contents(records));
        }
    }

    fn by_refused(&mut self, records: &[Record]) {
        if self.refused.len() < NAMED_MAX {
            self.refused.extend(contents(records));
        }
    }

    fn only_by_refused(&self, blob: BlobHash) -> bool {
        self.refused.contains(&blob) && !self.taken.contains(&blob) && self.taken.len() < NAMED_MAX
    }
}

fn contents(records: &[Record]) -> impl Iterator<Item = BlobHash> + '_ {
    records.iter().filter_map(Blob::from_record).filter_map(|blob| blob.hash)
}

/// Whether a record that is here makes it content of one of these buckets.
async fn is_named<E: std::error::Error + Send + Sync + 'static>(
    blob: BlobHash,
    buckets: impl Iterator<Item = &BucketId>,
    held_records: &mut impl AsyncFnMut(Vec<RecordKey>) -> Result<Vec<Option<Record>>, E>,
) -> Result<bool, SurveyError> {
    let id = Blob::record_id(blob);
    let keys = buckets.map(|&bucket| RecordKey { bucket, kind: Blob::KIND, id }).collect();
    let held = held_records(keys).await.map_err(|error| SurveyError::Store(error.into()))?;
    Ok(held.iter().flatten().filter_map(Blob::from_record).any(|named| named.hash == Some(blob)))
}

impl KindCounts {
    fn count(&mut self, held: Option<Record>, received: Record, clock: ReceiverClock) {
        let (was_here, deletes) = (held.is_some(), received.is_tombstone());
        let counted = match admit(held, received, clock) {
            Admission::Quarantine(_) => &mut self.set_aside,
            Admission::Superseded { .. } | Admission::Buried => &mut self.known,
            Admission::Apply { .. } if deletes => &mut self.deleted,
            Admission::Apply { .. } if was_here => &mut self.changed,
            Admission::Apply { .. } => &mut self.new,
        };
        *counted += 1;
    }
}

/// What a frame after the head is, as far as a survey is concerned.
enum Seen {
    Records(BucketId, Vec<Record>),
    Listed(Content),
    ContentItself,
    Other,
}

impl Seen {
    fn of(frame: &Frame) -> Result<Self, String> {
        if frame.head.frame_type() == format::CONTENT {
            return minicbor::decode(&frame.body).map(Self::Listed).map_err(|error| error.to_string());
        }
        match message(frame).map_err(|error| error.to_string())? {
            Some(Message::Page { bucket, records, .. }) => Ok(Self::Records(bucket, decode_records(bucket, &records)?)),
            Some(Message::Manifest { .. } | Message::Chunk { .. }) => Ok(Self::ContentItself),
            Some(_) => Err("a frame in the wrong place".into()),
            None => Ok(Self::Other),
        }
    }
}

/// Reads the records of a page.
pub(super) fn decode_records(bucket: BucketId, records: &[Vec<u8>]) -> Result<Vec<Record>, String> {
    let decode = |bytes: &Vec<u8>| Record::decode(bucket, bytes);
    records.iter().map(decode).collect::<Result<_, _>>().map_err(|error| format!("a bad record in {bucket}: {error}"))
}

/// Where reading the exporter's buckets stands here.
pub(super) struct Places {
    /// The last row that the pages of a bucket have come to, for each bucket that is taken.
    pub(super) cursors: BTreeMap<BucketId, Seq>,
    /// All others.
    pub(super) refused: BTreeMap<BucketId, BucketRefusal>,
}

impl Places {
    pub(super) async fn look_up<R: RecordStore, I>(
        receiver: &Receiver<'_>,
        opened: &Opened<I>,
        records: &R,
    ) -> Result<Self, StoreError> {
        let mut places = Self { cursors: BTreeMap::new(), refused: BTreeMap::new() };
        for (&bucket, &starts_after) in &opened.starts {
            if let Some(refusal) = unwanted(receiver, opened, bucket) {
                places.refused.insert(bucket, refusal);
                continue;
            }
            let known = known(records, &opened.issuer, bucket).await?;
            if starts_after > known {
                places.refused.insert(bucket, BucketRefusal::Gap { starts_after, known });
            } else {
                places.cursors.insert(bucket, starts_after);
            }
        }
        Ok(places)
    }
}

/// Why nothing of a bucket is taken, wherever its pages start: what a session would not pull either.
fn unwanted<I>(receiver: &Receiver<'_>, opened: &Opened<I>, bucket: BucketId) -> Option<BucketRefusal> {
    if !(receiver.accepts)(&opened.issuer, bucket) {
        return Some(BucketRefusal::NotForHere);
    }
    if !receiver.selection.wants(bucket) {
        return Some(BucketRefusal::NotKept);
    }
    (opened.leaves_out_own && receiver.selection.is_returning(bucket)).then_some(BucketRefusal::LeavesOutOwn)
}

/// The row up to which the issuer's bucket has been read here, in its present epoch.
pub(super) async fn known<R: RecordStore>(records: &R, issuer: &Issuer, bucket: BucketId) -> Result<Seq, StoreError> {
    let cursor = records.cursor(issuer.hello.node, bucket).await?;
    Ok(cursor.filter(|cursor| cursor.epoch == issuer.hello.epoch).map_or(Seq::default(), |cursor| cursor.seq))
}
