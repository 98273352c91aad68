//! The port behind the API: what a node (sled and files) and the bridge (PostgreSQL and S3) each provide.
//!
//! The API decides what a request means: it parses, checks fields, works out which fields an edit changes, and answers.
//! The catalogue decides how records and content are kept. It mints ids and stamps, because it owns the clock and the
//! randomness.
//!
//! What every implementation holds to (`tests/` walks an implementation in memory through it):
//! - **Durable first.** A call that changes something returns `Ok` only once the change is durable.
//! - **Compare and set.** [`Catalogue::edit`] and [`Catalogue::delete`] change nothing unless the stored record still
//!   has the version that the caller saw.
//! - **Lists are walked by key.** [`Catalogue::list`] returns what sorts strictly after a [`Place`], so a walk shows each
//!   record whose sort key stays the same exactly once, whatever is inserted meanwhile.
//! - **Referenced content is wanted.** The record of each blob in [`NewRecord::blobs`] and [`Edit::blobs`] is written to
//!   the same bucket, in the same commit, so that whoever holds the bucket fetches the content.
//! - **Streams end cleanly.** An upload whose body yields an error leaves nothing behind.
//!
//! Not here: HTTP, JSON and its limits (the rest of this crate); who may write ([`crate::WriteGuard`]).

use std::collections::HashMap;
use std::future::Future;
use std::ops::Range;

use alexandria_sync::chunk::BlobHash;
use alexandria_sync::domain::{Author, AuthorCategory, Category, Media, MediaAuthor, MediaCategory, Typed};
use alexandria_sync::id::{BucketId, RecordId};
use alexandria_sync::outlook::Outlook;
use alexandria_sync::record::encoding::RecordTooLarge;
use alexandria_sync::record::{FieldTag, Kind, Record, RecordKey, Value};
use alexandria_sync::store::{Cursor, Page};
use bytes::Bytes;
use futures::stream::BoxStream;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Entries of one list page, at most.
pub const PAGE_SIZE_MAX: usize = 100;

/// How much of a collection is kept where it is shown.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kept {
    /// Its records and all content.
    Whole,
    /// Its records; content comes when somebody opens it.
    Records,
    /// Nothing but its title.
    Nothing,
}

/// Records and content, as the API needs them.
///
/// [`Self::get`], [`Self::list`], [`Self::edit`] and [`Self::delete`] are asked for authors, media, categories and
/// collections only: their ids are minted, so an id names one record whatever its bucket.
pub trait Catalogue: Clone + Send + Sync + 'static {
    /// A blob opened for reading.
    type Content: Content;

    /// How much of a collection is kept here. All of it, unless a node chooses.
    fn kept(&self, _collection: RecordId) -> impl Future<Output = Result<Kept, CatalogueError>> + Send {
        async { Ok(Kept::Whole) }
    }

    /// The live record of `kind` with this id, disabled or not; `None` if there is none or it was deleted for good.
    fn get(&self, kind: Kind, id: RecordId) -> impl Future<Output = Result<Option<Stored>, CatalogueError>> + Send;

    /// The first records that match, in the order asked for.
    fn list(&self, query: ListQuery) -> impl Future<Output = Result<Listing, CatalogueError>> + Send;

    /// Stores a new record under a newly minted id, written now.
    ///
    /// [`CatalogueError::UnknownBucket`] if the bucket is that of a collection that is not here.
    fn create(&self, new: NewRecord) -> impl Future<Output = Result<Stored, CatalogueError>> + Send;

    /// Writes some fields of a record anew, now. With no changes at all it stores nothing and returns what is there.
    ///
    /// [`CatalogueError::Missing`] if it is gone, [`CatalogueError::Stale`] if it is no longer at `seen`.
    fn edit(
        &self,
        key: RecordKey,
        seen: Version,
        edit: Edit,
    ) -> impl Future<Output = Result<Stored, CatalogueError>> + Send;

    /// Deletes a record for good, leaving a tombstone. Errors are those of [`Self::edit`].
    fn delete(&self, key: RecordKey, seen: Version) -> impl Future<Output = Result<(), CatalogueError>> + Send;

    /// Makes a link stand, or takes it away, by writing its record (`MediaAuthor::between` and so on give its id) in
    /// `bucket`. Writes nothing if that is how it already is.
    fn set_link(&self, link: Link, linked: bool) -> impl Future<Output = Result<(), CatalogueError>> + Send;

    /// The collection that takes media whose creator names none. Made on first use.
    fn default_collection(&self) -> impl Future<Output = Result<RecordId, CatalogueError>> + Send;

    /// Counts one opening of a medium by a reader. It may be lost in a power cut: counts are not worth a flush each.
    fn note_open(&self, media: RecordId) -> impl Future<Output = Result<(), CatalogueError>> + Send;

    /// At most `limit` rows of a bucket's feed after `since`, from its start if `None`.
    ///
    /// [`CatalogueError::UnknownBucket`], or [`CatalogueError::CursorExpired`] for a cursor of another epoch or from
    /// beyond the feed's end.
    fn changes(
        &self,
        bucket: BucketId,
        since: Option<Cursor>,
        limit: usize,
    ) -> impl Future<Output = Result<ChangePage, CatalogueError>> + Send;

    /// Returns once the bucket's feed has a durable row after `since`, at once if it already has. The caller sets the
    /// deadline by dropping the future. [`CatalogueError::Closing`] ends every wait at shutdown.
    fn wait_for_change(
        &self,
        bucket: BucketId,
        since: Cursor,
    ) -> impl Future<Output = Result<(), CatalogueError>> + Send;

    /// Opens content that is whole here; `None` if it is not.
    fn open_blob(&self, hash: BlobHash) -> impl Future<Output = Result<Option<Self::Content>, CatalogueError>> + Send;

    /// Opens content that is here or can come here while it is read: see [`Content::ready`].
    fn fetch_blob(&self, hash: BlobHash) -> impl Future<Output = Result<Option<Self::Content>, CatalogueError>> + Send {
        self.open_blob(hash)
    }

    /// Where content is that somebody looks for. Nothing is said about what is not named, for want of time or of anybody who
    /// knows.
    fn whereabouts(
        &self,
        _blobs: &[BlobHash],
    ) -> impl Future<Output = Result<HashMap<BlobHash, Whereabouts>, CatalogueError>> + Send {
        std::future::ready(Ok(HashMap::new()))
    }

    /// What is still to come here from elsewhere, and why it waits; `None` if nothing ever does.
    fn outlook(&self) -> impl Future<Output = Result<Option<Outlook>, CatalogueError>> + Send {
        std::future::ready(Ok(None))
    }

    /// At most `limit` blobs that are whole here, by hash, strictly after `after` in the direction of `sort`.
    fn list_blobs(
        &self,
        after: Option<BlobHash>,
        sort: Sort,
        limit: usize,
    ) -> impl Future<Output = Result<Vec<BlobInfo>, CatalogueError>> + Send;

    /// Takes in content. On `Ok` it is durable. Content that is already here keeps the media type that it has.
    ///
    /// [`CatalogueError::HashMismatch`], [`CatalogueError::Full`], or [`CatalogueError::Upload`] with the error that
    /// the body yielded; nothing is kept then.
    fn put_blob(&self, upload: Upload) -> impl Future<Output = Result<PutBlob, CatalogueError>> + Send;

    /// Removes content from here; `false` if it was not here. [`CatalogueError::InUse`] while a live record names it.
    fn delete_blob(&self, hash: BlobHash) -> impl Future<Output = Result<bool, CatalogueError>> + Send;
}

/// A blob opened for reading. It stays readable while this is held, even if it is deleted meanwhile.
pub trait Content: Send + Sync + 'static {
    /// What it is.
    fn info(&self) -> &BlobInfo;

    /// Whether all of it is here, and proved to be what its name says.
    fn is_whole(&self) -> bool {
        true
    }

    /// Waits, for a bounded time, until the first byte of `range` can be read: [`CatalogueError::NotHereYet`] if it cannot, or if
    /// it is known that not all of them will come now.
    fn ready(&self, range: Range<u64>) -> impl Future<Output = Result<(), CatalogueError>> + Send {
        let _ = range;
        std::future::ready(Ok(()))
    }

    /// Its bytes in `range`, which the caller has clipped to the blob. An error ends the stream, and the connection.
    fn read(&self, range: Range<u64>) -> BoxStream<'static, Result<Bytes, CatalogueError>>;
}

/// A live record and what is counted beside it.
#[derive(Clone, Debug, PartialEq)]
pub struct Stored {
    /// The record. Never a tombstone.
    pub record: Record,
    /// How often it was opened, summed over all `OpenCount` records; 0 for what is not opened.
    pub popularity: u64,
}

impl Stored {
    /// The version that edits compare with.
    pub fn version(&self) -> Version {
        Version::of(&self.record)
    }

    /// Where it stands in a list.
    pub fn place(&self, order: OrderBy) -> Place {
        let key = match order {
            OrderBy::Id => 0,
            OrderBy::Timestamp => self.record.newest_stamp().time.to_bits(),
            OrderBy::Popularity => self.popularity,
        };
        Place { key, id: self.record.key.id }
    }
}

/// Names one version of a record: 16 bytes of its digest. Equal on replicas that hold the same version.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Version([u8; 16]);

impl Version {
    /// The version that `record` is.
    pub fn of(record: &Record) -> Self {
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&record.digest()[..16]);
        Self(bytes)
    }

    /// Its bytes.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

/// What a list is sorted by. Ties are broken by id, in the same direction.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, Hash, PartialEq, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum OrderBy {
    /// The id, which is the order of creation.
    #[default]
    Id,
    /// The newest write that the record shows.
    Timestamp,
    /// How often it was opened.
    Popularity,
}

/// The direction of a list.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, Hash, PartialEq, ToSchema)]
pub enum Sort {
    /// Smallest first.
    #[default]
    #[serde(rename = "asc")]
    Ascending,
    /// Largest first.
    #[serde(rename = "desc")]
    Descending,
}

/// A place in a sorted list: `(key, id)`, compared in that order.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Place {
    /// What the list is sorted by: 0 for [`OrderBy::Id`], else `HlcTime::to_bits` or the popularity. Below 2^63.
    pub key: u64,
    /// The id, which breaks ties.
    pub id: RecordId,
}

/// What to list.
#[derive(Clone, Debug)]
pub struct ListQuery {
    /// Authors, media, categories or collections.
    pub kind: Kind,
    /// 1 to [`PAGE_SIZE_MAX`].
    pub page_size: usize,
    /// Only what sorts strictly after this place (strictly before it, if descending).
    pub after: Option<Place>,
    /// Only what the full-text search finds for these words: every word must match, in any of title, name,
    /// description and languages. Not empty.
    pub text: Option<String>,
    /// What to sort by, search or not.
    pub order_by: OrderBy,
    /// In which direction.
    pub sort: Sort,
    /// Whether records that are disabled are listed too.
    pub show_disabled: bool,
    /// Only what lies in this bucket.
    pub bucket: Option<BucketId>,
    /// Only what is linked to this record.
    pub linked_to: Option<LinkedTo>,
}

/// One page of a list.
#[derive(Clone, Debug, Default)]
pub struct Listing {
    /// At most `page_size` records, in order.
    pub items: Vec<Stored>,
    /// Whether more follow the last of them.
    pub more: bool,
}

/// The links that the API sets. The two ends of each are of different kinds.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Relation {
    /// Left a medium, right an author; in the medium's bucket.
    MediaAuthor,
    /// Left a medium, right a category; in the medium's bucket.
    MediaCategory,
    /// Left an author, right a category; in the catalogue.
    AuthorCategory,
}

impl Relation {
    /// The kind of the link's own record.
    pub const fn kind(self) -> Kind {
        match self {
            Self::MediaAuthor => MediaAuthor::KIND,
            Self::MediaCategory => MediaCategory::KIND,
            Self::AuthorCategory => AuthorCategory::KIND,
        }
    }

    /// The kinds of its left and right ends.
    pub const fn ends(self) -> (Kind, Kind) {
        match self {
            Self::MediaAuthor => (Media::KIND, Author::KIND),
            Self::MediaCategory => (Media::KIND, Category::KIND),
            Self::AuthorCategory => (Author::KIND, Category::KIND),
        }
    }
}

/// Selects the records that a standing link joins with another.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct LinkedTo {
    /// Which links count. One end of it is the kind that is listed.
    pub relation: Relation,
    /// The record at the other end.
    pub id: RecordId,
}

/// A link between two records that were found to be here.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Link {
    /// Which sort of link.
    pub relation: Relation,
    /// The bucket of its record.
    pub bucket: BucketId,
    /// The left end.
    pub left: RecordId,
    /// The right end.
    pub right: RecordId,
}

impl Link {
    /// The id and all fields of the link's record: what to create it with, or to write over it.
    pub fn to_fields(self, linked: bool) -> (RecordId, Vec<(FieldTag, Value)>) {
        match self.relation {
            Relation::MediaAuthor => {
                let (id, link) = MediaAuthor::between(self.left, self.right);
                (id, written(&MediaAuthor { linked, ..link }, &MediaAuthor { linked: !linked, ..Default::default() }))
            }
            Relation::MediaCategory => {
                let (id, link) = MediaCategory::between(self.left, self.right);
                (
                    id,
                    written(
                        &MediaCategory { linked, ..link },
                        &MediaCategory { linked: !linked, ..Default::default() },
                    ),
                )
            }
            Relation::AuthorCategory => {
                let (id, link) = AuthorCategory::between(self.left, self.right);
                (
                    id,
                    written(
                        &AuthorCategory { linked, ..link },
                        &AuthorCategory { linked: !linked, ..Default::default() },
                    ),
                )
            }
        }
    }
}

/// Every field of a link, `linked` included even when it equals its default: `opposite` differs from it in all of them.
fn written<T: Typed>(link: &T, opposite: &T) -> Vec<(FieldTag, Value)> {
    link.changes_since(opposite)
}

/// A record to store.
#[derive(Clone, Debug)]
pub struct NewRecord {
    /// Where: the catalogue for authors, categories and collections; a collection's bucket for media.
    pub bucket: BucketId,
    /// Author, media, category or collection.
    pub kind: Kind,
    /// Its fields; at least one.
    pub fields: Vec<(FieldTag, Value)>,
    /// The content that it names. All of it was found to be here.
    pub blobs: Vec<BlobInfo>,
}

/// What to write in a record.
#[derive(Clone, Debug, Default)]
pub struct Edit {
    /// The fields that change.
    pub fields: Vec<(FieldTag, Value)>,
    /// The content that it names from now on and did not name before. All of it was found to be here.
    pub blobs: Vec<BlobInfo>,
}

/// A piece of a bucket's feed.
#[derive(Clone, Debug)]
pub struct ChangePage {
    /// The rows, where they end, and whether more follow.
    pub page: Page,
    /// The place after the last row, in the present epoch: what to ask from next.
    pub next: Cursor,
}

/// What is known about content that is whole here.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct BlobInfo {
    /// Its name.
    pub hash: BlobHash,
    /// Its size in bytes.
    pub size_bytes: u64,
    /// Its media type (RFC 6838).
    pub media_type: String,
}

/// Where content is.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize, ToSchema)]
#[schema(description = "Where content is")]
pub struct Whereabouts {
    /// Whether it is whole here.
    pub here: bool,
    /// What people call the nodes on the local network that hold it, where it is not here: opening it brings it from one.
    pub nearby: Vec<String>,
}

/// Content on its way in.
pub struct Upload {
    /// Its media type, as the client gave it.
    pub media_type: String,
    /// The name that the content must turn out to have, if the client said so.
    pub expected: Option<BlobHash>,
    /// Its size in bytes if the client said so: enough to refuse early what cannot fit.
    pub size_bytes: Option<u64>,
    /// Its bytes. Bounded by the API; ends early with an error if the client breaks off or breaks a promise.
    pub body: BoxStream<'static, Result<Bytes, UploadError>>,
}

/// Content that was taken in.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PutBlob {
    /// What it is.
    pub info: BlobInfo,
    /// Whether it is new here.
    pub created: bool,
}

/// Why an upload's body ended before the content was whole. The client's fault or its link's.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum UploadError {
    /// Over the limit on uploads.
    #[error("the content is larger than {limit_bytes} bytes")]
    TooLarge {
        /// The limit.
        limit_bytes: u64,
    },
    /// Not what `Content-Digest` promised.
    #[error("the content does not match its Content-Digest")]
    DigestMismatch,
    /// The connection broke; send it again.
    #[error("the connection broke before the content was whole")]
    Interrupted,
}

/// Why the catalogue could not do it, by what the caller can do about it. Nothing was changed, whichever it is.
#[derive(Debug, thiserror::Error)]
pub enum CatalogueError {
    /// Do not ask for it again: it is not here, or was deleted for good.
    #[error("the record is not here")]
    Missing,
    /// Read it again, decide again, and write with the version that is there now.
    #[error("the record was changed since it was read")]
    Stale,
    /// Create the collection first, or wait until it has replicated.
    #[error("there is no bucket {0} here")]
    UnknownBucket(BucketId),
    /// Send less.
    #[error(transparent)]
    TooLarge(#[from] RecordTooLarge),
    /// Start from the beginning of the feed.
    #[error("the cursor does not belong to this life of the feed")]
    CursorExpired,
    /// Check the content, or the name that it was given.
    #[error("the content has the hash {actual}")]
    HashMismatch {
        /// What it really is.
        actual: BlobHash,
    },
    /// Take away what names it first.
    #[error("a record still names this content")]
    InUse,
    /// Send the content again, mended.
    #[error(transparent)]
    Upload(#[from] UploadError),
    /// Delete something; reads and deletes still work.
    #[error("no room is left")]
    Full,
    /// Ask the operator: the store was found damaged and takes no writes.
    #[error("the store takes no writes")]
    ReadOnly,
    /// Ask again later.
    #[error("too much is going on; try again in {retry_after_s} s")]
    Busy {
        /// When, in seconds.
        retry_after_s: u32,
    },
    /// Ask again later: it has to come here first.
    #[error("the content is not here yet: {why}")]
    NotHereYet {
        /// Why it does not come at once.
        why: String,
        /// When to ask, in seconds.
        retry_after_s: u32,
    },
    /// Ask another replica, or this one after its restart.
    #[error("shutting down")]
    Closing,
    /// Nothing: the store's own fault, to be logged with its cause.
    #[error("the store failed")]
    Store(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl CatalogueError {
    /// The store's own fault.
    pub fn store(cause: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self::Store(Box::new(cause))
    }
}
