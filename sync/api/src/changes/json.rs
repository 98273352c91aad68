//! Changes in JSON. A record is shown as `GET` shows it; what has no address of its own, such as a link, as its fields.

use alexandria_sync::domain::{
    Annotation, Author, AuthorCategory, Blob, Category, Collection, Media, MediaAuthor, MediaCategory, OpenCount,
    Typed, User,
};
use alexandria_sync::id::RecordId;
use alexandria_sync::record::Record;
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::encode_cursor;
use crate::catalogue::{ChangePage, Stored};
use crate::resource::{Resource, View};

/// A piece of a bucket's feed: the latest state of the records that changed, in the order of their last change.
#[derive(Serialize, ToSchema)]
#[expect(clippy::struct_field_names, reason = "the member that holds the changes is called so in JSON")]
pub(crate) struct Changes {
    /// The records that changed.
    changes: Vec<Change>,
    /// The cursor to ask from next.
    #[schema(pattern = "^[0-9a-f]{32}$")]
    next: String,
    /// Whether more is there already.
    more: bool,
}

/// One record that changed.
#[derive(Serialize, ToSchema)]
pub(crate) struct Change {
    /// What sort of thing it is: `media`, `author`, `media_author`; `kind-` and a number for what only newer versions
    /// know.
    kind: String,
    /// Which one.
    id: RecordId,
    /// When it was last written, in milliseconds since 1970.
    #[schema(minimum = 0)]
    updated_unix_ms: u64,
    /// Whether it was deleted for good.
    deleted: bool,
    /// What it says now; null if it was deleted, or if only newer versions can read it.
    #[schema(value_type = Option<Object>, required)]
    record: Option<Value>,
}

impl From<ChangePage> for Changes {
    fn from(ChangePage { page, next }: ChangePage) -> Self {
        Self {
            changes: page.records.into_iter().map(Change::from).collect(),
            next: encode_cursor(next),
            more: page.more,
        }
    }
}

impl From<Record> for Change {
    fn from(record: Record) -> Self {
        let (name, shown) = shown(&record);
        Self {
            kind: name.map_or_else(|| format!("kind-{}", record.key.kind.0), str::to_owned),
            id: record.key.id,
            updated_unix_ms: record.newest_stamp().time.unix_ms(),
            deleted: record.is_tombstone(),
            record: shown,
        }
    }
}

type Shown = (Option<&'static str>, Option<Value>);

fn shown(record: &Record) -> Shown {
    const READERS: [fn(&Record) -> Option<Shown>; 11] = [
        resource::<Author>,
        resource::<Media>,
        resource::<Category>,
        resource::<Collection>,
        fields::<Blob>,
        fields::<User>,
        fields::<MediaAuthor>,
        fields::<MediaCategory>,
        fields::<AuthorCategory>,
        fields::<Annotation>,
        fields::<OpenCount>,
    ];
    READERS.iter().find_map(|read| read(record)).unwrap_or_default()
}

fn resource<R: Resource>(record: &Record) -> Option<Shown> {
    (record.key.kind == R::KIND).then(|| {
        let view = View::<R>::of(&Stored { record: record.clone(), popularity: 0 });
        (Some(R::NAME), view.and_then(|view| serde_json::to_value(view).ok()))
    })
}

fn fields<T: Typed + Serialize>(record: &Record) -> Option<Shown> {
    (record.key.kind == T::KIND).then(|| {
        let fields = T::from_record(record);
        (Some(T::NAME), fields.and_then(|fields| serde_json::to_value(fields).ok()))
    })
}
