//! Authors, media, categories and collections: the four kinds that are read and written alike.
//!
//! [`Resource`] says what is particular to each; the handlers are written once, in [`read`], [`list`] and [`write`].
//! In JSON a record is its fields, as `alexandria_sync::domain` has them, and beside them what the server sets
//! ([`SERVER_FIELDS`]), which no request may set.

pub(crate) mod list;
pub(crate) mod read;
pub(crate) mod write;

use alexandria_sync::chunk::BlobHash;
use alexandria_sync::domain::{Author, Category, Collection, Media, Typed};
use alexandria_sync::id::{BucketId, RecordId};
use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde::de::DeserializeOwned;
use utoipa::ToSchema;

use crate::catalogue::{Catalogue, CatalogueError, Stored, Whereabouts};
use crate::precondition::ETag;
use crate::problem::Problem;

/// The members of a record in JSON that the server sets.
pub(crate) const SERVER_FIELDS: [&str; 6] =
    ["id", "collection", "created_unix_ms", "updated_unix_ms", "popularity", "content"];

/// A kind of record with paths of its own.
pub(crate) trait Resource: Typed + Serialize + DeserializeOwned + ToSchema {
    /// Its part of the path: `/v1/{PATH}`.
    const PATH: &'static str;
    /// Whether its records lie in the bucket of a collection; otherwise in the catalogue.
    const IN_COLLECTION: bool;

    /// Hides it from readers, or shows it again.
    fn set_disabled(&mut self, disabled: bool);

    /// Whether it is hidden from readers.
    fn is_disabled(&self) -> bool;

    /// The content that it names, with the field that names it.
    fn blobs(&self) -> Vec<NamedBlob>;

    /// The content that it is, if it is any.
    fn content(&self) -> Option<BlobHash> {
        None
    }
}

/// Content, and the field that names it.
pub(crate) struct NamedBlob {
    pub(crate) field: String,
    pub(crate) hash: BlobHash,
    /// Its size in bytes, where the field states it.
    pub(crate) size_bytes: Option<u64>,
}

macro_rules! resource {
    ($name:ident, $path:literal, in_collection: $in_collection:literal, |$it:ident| $blobs:expr $(, content: $content:expr)?) => {
        impl Resource for $name {
            const PATH: &'static str = $path;
            const IN_COLLECTION: bool = $in_collection;

            fn set_disabled(&mut self, disabled: bool) {
                self.disabled = disabled;
            }

            fn is_disabled(&self) -> bool {
                self.disabled
            }

            fn blobs(&self) -> Vec<NamedBlob> {
                let $it = self;
                $blobs
            }

            $(fn content(&self) -> Option<BlobHash> {
                $content(self)
            })?
        }
    };
}

resource!(Author, "authors", in_collection: false, |author| picture("portrait", author.portrait));
resource!(Category, "categories", in_collection: false, |_category| Vec::new());
resource!(Collection, "collections", in_collection: false, |collection| picture("cover", collection.cover));
resource!(Media, "media", in_collection: true, |media| {
    let files = media.files.iter().enumerate().map(|(index, file)| NamedBlob {
        field: format!("files[{index}].blob"),
        hash: file.blob,
        size_bytes: Some(file.size_bytes),
    });
    files.chain(picture("cover", media.cover)).collect()
}, content: |media: &Media| media.main_file().map(|file| file.blob));

fn picture(field: &str, hash: Option<BlobHash>) -> Vec<NamedBlob> {
    hash.map(|hash| NamedBlob { field: field.to_owned(), hash, size_bytes: None }).into_iter().collect()
}

/// A record in JSON: what the server sets, then its fields.
#[derive(Debug, Serialize)]
pub(crate) struct View<R> {
    id: RecordId,
    /// For media: the collection that it lies in.
    #[serde(skip_serializing_if = "Option::is_none")]
    collection: Option<RecordId>,
    /// When it was created; not known of a record whose id follows from others.
    created_unix_ms: Option<u64>,
    updated_unix_ms: u64,
    /// In lists only: it changes without the record, so it must not be part of what the entity tag names.
    #[serde(skip_serializing_if = "Option::is_none")]
    popularity: Option<u64>,
    /// In lists of media only, for the same reason.
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<Whereabouts>,
    #[serde(flatten)]
    fields: R,
}

impl<R: Resource> View<R> {
    /// The record as a resource of its own; `None` if it is not of this kind.
    pub(crate) fn of(stored: &Stored) -> Option<Self> {
        let record = &stored.record;
        Some(Self {
            id: record.key.id,
            collection: match record.key.bucket {
                BucketId::Collection(collection) if R::IN_COLLECTION => Some(collection),
                _ => None,
            },
            created_unix_ms: record.key.id.minted_unix_ms(),
            updated_unix_ms: record.newest_stamp().time.unix_ms(),
            popularity: None,
            content: None,
            fields: R::from_record(record)?,
        })
    }

    /// The records as entries of a list.
    pub(crate) async fn listed<C: Catalogue>(catalogue: &C, stored: &[Stored]) -> Result<Vec<Self>, CatalogueError> {
        let listed = stored.iter().filter_map(|stored| Some((stored.popularity, Self::of(stored)?)));
        let mut listed: Vec<Self> =
            listed.map(|(popularity, view)| Self { popularity: Some(popularity), ..view }).collect();
        let contents: Vec<BlobHash> = listed.iter().filter_map(|view| view.fields.content()).collect();
        if !contents.is_empty() {
            let whereabouts = catalogue.whereabouts(&contents).await?;
            for view in &mut listed {
                view.content = view.fields.content().and_then(|content| whereabouts.get(&content).cloned());
            }
        }
        Ok(listed)
    }
}

/// The live record of this kind, or the problem that it is not here.
pub(crate) async fn find<R: Resource, C: Catalogue>(catalogue: &C, id: RecordId) -> Result<Stored, Problem> {
    catalogue.get(R::KIND, id).await?.ok_or_else(|| Problem::not_found(R::NAME, id))
}

/// One record as an answer, with its entity tag.
pub(crate) fn answer<R: Resource>(status: StatusCode, stored: &Stored) -> Result<Response, Problem> {
    let view = View::<R>::of(stored).ok_or_else(|| Problem::not_found(R::NAME, stored.record.key.id))?;
    let etag = ETag::from(stored.version()).to_header();
    let headers = [(header::ETAG, etag), (header::CACHE_CONTROL, HeaderValue::from_static("no-cache"))];
    Ok((status, headers, Json(view)).into_response())
}
