//! What people do on a replica: create, edit, hide, delete, count, import; and what a newer version would write.

use bytes::Bytes;

use super::records::{Full, SimRecords, UNKNOWN_FIELDS_FROM};
use super::replica::Replica;
use super::seeded::Seeded;
use super::world::secret;
use crate::chunk::{BlobHash, Chunk, ChunkHash, Chunking, Manifest};
use crate::domain::{Author, Blob, Erasure, ErasureReceipt, Media, OpenCount, Typed};
use crate::id::{BucketId, RecordId};
use crate::record::{FieldTag, Kind, Record, RecordKey, Value};
use crate::session::Collections;

/// A kind that no version knows yet.
const UNKNOWN_KIND: Kind = Kind(777);
/// Different contents that people have: the same one is found at several sites.
pub(super) const CONTENTS: u64 = 12;
/// Chunks of an imported blob, at most.
const IMPORT_CHUNKS_MAX: u64 = 16;
/// And of one that only links with a budget need days for.
const FILM_CHUNKS: std::ops::Range<u64> = 40..90;
const CHUNK_BYTES_FROM: u64 = 300;
const CHUNK_BYTES_TO: u64 = 4000;

/// What a person wants.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Wish {
    Create,
    /// Many new records.
    Catalogue {
        records: u64,
    },
    Edit,
    Delete,
    Count,
    /// As a newer version would.
    UnknownKind,
    /// One of the contents that people have.
    Import(u64),
    /// A version of something that may have to be forgotten.
    Secret {
        number: u8,
        version: u8,
    },
    /// Has such a thing analysed.
    Note(u8),
}

/// Something that a person asked for; with what, is decided by chance when it is carried out.
#[derive(Clone, Debug)]
pub(super) struct LocalOp {
    pub(super) wish: Wish,
    pub(super) rng: Seeded,
}

/// What came of it.
#[derive(Debug, Default)]
pub(super) struct Done {
    pub(super) records: Vec<Record>,
    pub(super) blob: Option<BlobHash>,
    /// There was no room for it: the person was told so, and nothing was changed.
    pub(super) refused: bool,
}

impl Done {
    fn of(written: Result<Option<Record>, Full>) -> Self {
        match written {
            Ok(record) => Self { records: record.into_iter().collect(), ..Self::default() },
            Err(Full) => Self { refused: true, ..Self::default() },
        }
    }
}

/// The collections of every world.
pub(super) fn collections() -> [RecordId; 2] {
    [RecordId::derived(&[b"collection one"]), RecordId::derived(&[b"collection two"])]
}

/// Carries out one wish on `replica`; durable when it returns. Stops half way if `cut_short`.
pub(super) fn carry_out(replica: &Replica, op: LocalOp, cut_short: bool) -> Done {
    let mut rng = op.rng;
    match op.wish {
        Wish::Create => Done::of(create(replica, &mut rng)),
        Wish::Catalogue { records } => catalogue(replica, records, &mut rng),
        Wish::Edit => Done::of(edit(replica, &mut rng)),
        Wish::Delete => Done::of(delete(&replica.records, &mut rng)),
        Wish::UnknownKind if !replica.old => Done::of(unknown_kind(replica, &mut rng)),
        Wish::Count | Wish::UnknownKind => Done::of(count(replica, &mut rng)),
        Wish::Import(content) => import(replica, content, &mut rng, cut_short),
        Wish::Secret { number, version } => match secret(number).edit(&replica.records, &replica.blobs, version) {
            Ok(records) => Done { records, blob: Some(secret(number).content(version).0.blob()), ..Done::default() },
            Err(Full) => Done { refused: true, ..Done::default() },
        },
        Wish::Note(number) => Done::of(secret(number).annotate(&replica.records)),
    }
}

fn collection_bucket(replica: &Replica, rng: &mut Seeded) -> BucketId {
    let ids: Vec<RecordId> = match &replica.scope.collections {
        Collections::All => collections().into(),
        Collections::Only(ids) => ids.iter().copied().collect(),
    };
    rng.pick(&ids).map_or(BucketId::Catalogue, |&id| BucketId::Collection(id))
}

fn new_id(rng: &mut Seeded) -> RecordId {
    let random = rng.noise(10).try_into().expect("ten bytes were asked for");
    RecordId::mint(rng.below(1 << 40), random)
}

/// As many new records as there is room for.
fn catalogue(replica: &Replica, records: u64, rng: &mut Seeded) -> Done {
    let mut done = Done::default();
    for _ in 0..records {
        match create(replica, rng) {
            Ok(record) => done.records.extend(record),
            Err(Full) => done.refused = true,
        }
    }
    done
}

fn create(replica: &Replica, rng: &mut Seeded) -> Result<Option<Record>, Full> {
    let text = "x".repeat(rng.below(60) as usize);
    let id = new_id(rng);
    if rng.chance(40) {
        let author = Author { name: format!("author {}{text}", rng.below(100)), ..Author::default() };
        // Where there are neighbours, some of it is nobody else's business.
        let is_private = replica.on_lan && rng.chance(30);
        let bucket = if is_private { BucketId::Site(replica.node) } else { BucketId::Catalogue };
        write_new(&replica.records, bucket, id, &author)
    } else {
        let title = format!("title {}{text}", rng.below(100));
        let media = Media { title, languages: vec!["en".into()], pages: Some(7), ..Media::default() };
        write_new(&replica.records, collection_bucket(replica, rng), id, &media)
    }
}

fn write_new<T: Typed>(
    records: &SimRecords,
    bucket: BucketId,
    id: RecordId,
    typed: &T,
) -> Result<Option<Record>, Full> {
    records.try_write(RecordKey { bucket, kind: T::KIND, id }, |_, stamp| Some(typed.to_record(bucket, id, stamp)))
}

fn any_live(records: &SimRecords, rng: &mut Seeded, wanted: impl Fn(&Record) -> bool) -> Option<Record> {
    let live: Vec<Record> =
        records.all().into_iter().filter(|record| !record.is_tombstone() && wanted(record)).collect();
    rng.pick(&live).cloned()
}

fn edit(replica: &Replica, rng: &mut Seeded) -> Result<Option<Record>, Full> {
    let known = [Author::KIND, Media::KIND];
    let Some(record) = any_live(&replica.records, rng, |record| known.contains(&record.key.kind)) else {
        return Ok(None);
    };
    let mut changes = if let Some(before) = Media::from_record(&record) {
        let mut media = before.clone();
        match rng.below(4) {
            0 => media.title = format!("title {}", rng.below(1000)),
            1 => media.disabled = !media.disabled,
            2 => media.pages = Some(rng.below(500) as u32),
            _ => media.description = "d".repeat(rng.below(400) as usize),
        }
        media.changes_since(&before)
    } else {
        let Some(before) = Author::from_record(&record) else { return Ok(None) };
        let mut author = before.clone();
        if rng.chance(50) {
            author.name = format!("author {}", rng.below(1000));
        } else {
            author.disabled = !author.disabled;
        }
        author.changes_since(&before)
    };
    if !replica.old && rng.chance(40) {
        let number = UNKNOWN_FIELDS_FROM + rng.below(3) as u32;
        let tag = if rng.chance(30) { FieldTag::max(number) } else { FieldTag::lww(number) };
        changes.push((tag, Value::encode(&rng.below(100_000))));
    }
    replica.records.try_write(record.key, |held, stamp| held?.edited(changes, stamp))
}

fn delete(records: &SimRecords, rng: &mut Seeded) -> Result<Option<Record>, Full> {
    // Nobody takes back what says that something was erased.
    let stay = [OpenCount::KIND, Erasure::KIND, ErasureReceipt::KIND];
    let Some(record) = any_live(records, rng, |record| !stay.contains(&record.key.kind)) else { return Ok(None) };
    records.try_write(record.key, |held, stamp| Some(held?.deleted(stamp)))
}

fn count(replica: &Replica, rng: &mut Seeded) -> Result<Option<Record>, Full> {
    let Some(media) = any_live(&replica.records, rng, |record| record.key.kind == Media::KIND) else {
        return Ok(None);
    };
    let id = OpenCount::record_id(media.key.id, replica.node, replica.records.incarnation());
    let bucket = media.key.bucket;
    replica.records.try_write(RecordKey { bucket, kind: OpenCount::KIND, id }, |held, stamp| {
        let before = held.and_then(OpenCount::from_record).unwrap_or_default();
        let after = OpenCount { media: media.key.id, count: before.count + 1 };
        match held {
            Some(held) => held.edited(after.changes_since(&before), stamp),
            None => Some(after.to_record(bucket, id, stamp)),
        }
    })
}

fn unknown_kind(replica: &Replica, rng: &mut Seeded) -> Result<Option<Record>, Full> {
    let key = RecordKey { bucket: collection_bucket(replica, rng), kind: UNKNOWN_KIND, id: new_id(rng) };
    // Half a float and nested arrays: nothing here has a type for them.
    let odd = vec![vec![rng.below(1000)], vec![]];
    replica.records.try_write(key, |_, stamp| {
        Record::new(key, [(FieldTag::lww(1), Value::encode(&odd)), (FieldTag::max(2), Value::encode(&1.5f32))], stamp)
    })
}

/// A content that some people have. Versions of one share most of their chunks.
pub(super) fn content(number: u64) -> (Manifest, Bytes) {
    let (work, version) = (number / 3, number % 3);
    let mut shape = Seeded::new(work);
    let chunks = if number < CONTENTS { 1..IMPORT_CHUNKS_MAX } else { FILM_CHUNKS };
    let pieces: Vec<Vec<u8>> = (0..shape.between(chunks.start, chunks.end))
        .map(|_| {
            let len = shape.between(CHUNK_BYTES_FROM, CHUNK_BYTES_TO) as usize;
            shape.noise(len)
        })
        .collect();
    let changed = (version as usize).checked_sub(1).map(|at| at * 5 % pieces.len());
    let mut bytes = Vec::new();
    let mut chunks = Vec::new();
    for (at, mut piece) in pieces.into_iter().enumerate() {
        if Some(at) == changed {
            piece[0] ^= 0xff;
        }
        chunks.push(Chunk { len: piece.len() as u32, hash: ChunkHash::of(&piece) });
        bytes.extend(piece);
    }
    let manifest = Manifest::new(BlobHash::of(&bytes), Chunking::ContentDefined, chunks).expect("it is small");
    (manifest, bytes.into())
}

fn import(replica: &Replica, number: u64, rng: &mut Seeded, cut_short: bool) -> Done {
    let (manifest, bytes) = content(number);
    let hash = manifest.blob();
    let blob = Blob { hash: Some(hash), size_bytes: manifest.size_bytes(), media_type: "text/plain".into() };
    let bucket = collection_bucket(replica, rng);
    if replica.records.is_full() {
        return Done { refused: true, ..Done::default() };
    }
    replica.blobs.import(manifest, bytes);
    if cut_short {
        // The content is there and nothing refers to it: it is collected some day.
        return Done::default();
    }
    let id = Blob::record_id(hash);
    let key = RecordKey { bucket, kind: Blob::KIND, id };
    let record = replica.records.try_write(key, |held, stamp| match held {
        None => Some(blob.to_record(bucket, id, stamp)),
        Some(_) => None,
    });
    Done { blob: Some(hash), ..Done::of(record) }
}
