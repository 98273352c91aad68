//! The typed tables that SQL can ask, one for each kind, written with the record.
//!
//! A row goes over as JSON, one array for all rows of a kind, so that a page of records costs one statement for each
//! kind in it. What a peer sends is not checked as strictly as what is made here: a number too large for its column is
//! cut to the largest that fits, and the character U+0000, which PostgreSQL has no text for, becomes U+FFFD. The record
//! itself keeps every byte.

use std::collections::BTreeMap;
use std::fmt::Write;

use alexandria_sync::domain::{
    Annotation, Author, AuthorCategory, Blob, Category, Collection, Erasure, ErasureReceipt, Media, MediaAuthor,
    MediaCategory, OpenCount, Typed, User,
};
use alexandria_sync::record::{Kind, Record};
use serde_json::Value;
use sqlx::{AssertSqlSafe, PgConnection};
use uuid::Uuid;

use super::write::Change;

/// One kind's table.
struct Table {
    kind: Kind,
    name: &'static str,
    columns: &'static [(&'static str, Column)],
    /// Columns that make up the words to search in.
    words: &'static [&'static str],
    json: fn(&Record) -> Option<Value>,
}

#[derive(Clone, Copy, Eq, PartialEq)]
enum Column {
    Text,
    Texts,
    /// A `bigint`.
    Number,
    Numbers,
    /// A number of any size.
    Numeric,
    Flag,
    Id,
    /// 32 bytes, in hex in JSON.
    Hash,
    Json,
}

use Column::{Flag, Hash, Id, Json, Number, Numbers, Numeric, Text, Texts};

const TABLES: [Table; 13] = [
    Table {
        kind: Author::KIND,
        name: "author",
        columns: &[("name", Text), ("sort_name", Text), ("description", Text), ("portrait", Hash), ("disabled", Flag)],
        words: &["name", "sort_name", "description"],
        json: json::<Author>,
    },
    Table {
        kind: Media::KIND,
        name: "media",
        columns: &[
            ("title", Text),
            ("media_kind", Text),
            ("description", Text),
            ("languages", Texts),
            ("publisher", Text),
            ("published", Text),
            ("duration_ms", Number),
            ("pages", Number),
            ("chapters", Json),
            ("files", Json),
            ("cover", Hash),
            ("disabled", Flag),
        ],
        words: &["title", "description", "array_to_string(r.languages, ' ')"],
        json: json::<Media>,
    },
    Table {
        kind: Category::KIND,
        name: "category",
        columns: &[("name", Text), ("description", Text), ("parent", Id), ("disabled", Flag)],
        words: &["name", "description"],
        json: json::<Category>,
    },
    Table {
        kind: Collection::KIND,
        name: "collection",
        columns: &[("title", Text), ("description", Text), ("cover", Hash), ("disabled", Flag)],
        words: &["title", "description"],
        json: json::<Collection>,
    },
    Table {
        kind: Blob::KIND,
        name: "blob",
        columns: &[("hash", Hash), ("size_bytes", Number), ("media_type", Text)],
        words: &[],
        json: json::<Blob>,
    },
    Table {
        kind: User::KIND,
        name: "library_user",
        columns: &[("name", Text), ("role", Text), ("disabled", Flag)],
        words: &[],
        json: json::<User>,
    },
    Table {
        kind: MediaAuthor::KIND,
        name: "media_author",
        columns: &[("media", Id), ("author", Id), ("linked", Flag)],
        words: &[],
        json: json::<MediaAuthor>,
    },
    Table {
        kind: MediaCategory::KIND,
        name: "media_category",
        columns: &[("media", Id), ("category", Id), ("linked", Flag)],
        words: &[],
        json: json::<MediaCategory>,
    },
    Table {
        kind: AuthorCategory::KIND,
        name: "author_category",
        columns: &[("author", Id), ("category", Id), ("linked", Flag)],
        words: &[],
        json: json::<AuthorCategory>,
    },
    Table {
        kind: Annotation::KIND,
        name: "annotation",
        columns: &[
            ("media", Id),
            ("blob", Hash),
            ("width_px", Number),
            ("height_px", Number),
            ("dominant_colours", Numbers),
            ("placeholder", Text),
            ("perceptual_hash", Numeric),
            ("labels", Json),
            ("model", Text),
        ],
        words: &[],
        json: json::<Annotation>,
    },
    Table {
        kind: OpenCount::KIND,
        name: "open_count",
        columns: &[("media", Id), ("count", Numeric)],
        words: &[],
        json: json::<OpenCount>,
    },
    Table {
        kind: Erasure::KIND,
        name: "erasure",
        columns: &[("kind", Number), ("record", Id), ("blobs", Texts)],
        words: &[],
        json: json::<Erasure>,
    },
    Table {
        kind: ErasureReceipt::KIND,
        name: "erasure_receipt",
        columns: &[("erasure", Id), ("bucket", Text), ("incarnation", Number)],
        words: &[],
        json: json::<ErasureReceipt>,
    },
];

/// Brings the typed tables up to what is about to be stored.
pub(super) async fn project(tx: &mut PgConnection, bucket_no: i32, changes: &[Change]) -> Result<(), sqlx::Error> {
    for table in &TABLES {
        // In the order of their ids, so that two writers take the rows' locks in the same order.
        let mut live = BTreeMap::new();
        let mut deleted = Vec::new();
        for change in changes.iter().filter(|change| change.after.key.kind == table.kind) {
            match row(table, &change.after) {
                Some(row) => {
                    live.insert(change.after.key.id, row);
                }
                None => deleted.push(Uuid::from_bytes(*change.after.key.id.as_bytes())),
            }
        }
        if !live.is_empty() {
            let rows = Value::Array(live.into_values().collect()).to_string();
            sqlx::query(AssertSqlSafe(upsert(table))).bind(bucket_no).bind(rows).execute(&mut *tx).await?;
        }
        if !deleted.is_empty() {
            let statement = format!("DELETE FROM {} WHERE bucket_no = $1 AND id = ANY ($2)", table.name);
            sqlx::query(AssertSqlSafe(statement)).bind(bucket_no).bind(deleted).execute(&mut *tx).await?;
        }
    }
    count_openings(tx, changes).await
}

/// A record as the JSON that its table is filled from; `None` once it is deleted.
fn row(table: &Table, record: &Record) -> Option<Value> {
    let mut row = (table.json)(record)?;
    let fields = row.as_object_mut()?;
    for (name, column) in table.columns {
        let Some(value) = fields.get_mut(*name) else { continue };
        if *column == Number && value.as_u64().is_some_and(|number| i64::try_from(number).is_err()) {
            *value = i64::MAX.into();
        }
        replace_nul(value);
    }
    let stamp = record.newest_stamp();
    fields.insert("id".into(), record.key.id.to_string().into());
    fields.insert("stamp".into(), i64::try_from(stamp.time.to_bits()).unwrap_or(i64::MAX).into());
    fields.insert("stamp_ms".into(), stamp.time.unix_ms().into());
    Some(row)
}

/// A record's fields by name, as in the API.
pub(crate) fn typed_json(record: &Record) -> Option<Value> {
    let table = TABLES.iter().find(|table| table.kind == record.key.kind)?;
    let mut json = (table.json)(record)?;
    replace_nul(&mut json);
    Some(json)
}

fn json<T: Typed + serde::Serialize>(record: &Record) -> Option<Value> {
    serde_json::to_value(T::from_record(record)?).ok()
}

fn replace_nul(value: &mut Value) {
    match value {
        Value::String(text) if text.contains('\0') => *text = text.replace('\0', "\u{fffd}"),
        Value::Array(items) => items.iter_mut().for_each(replace_nul),
        Value::Object(fields) => fields.values_mut().for_each(replace_nul),
        _ => {}
    }
}

fn upsert(table: &Table) -> String {
    let mut names = String::from("bucket_no, id, stamp, updated_at");
    let mut values = String::from("$1, r.id, r.stamp, to_timestamp(r.stamp_ms / 1000.0)");
    let mut types = String::from("id uuid, stamp bigint, stamp_ms bigint");
    let mut updates = String::from("stamp = excluded.stamp, updated_at = excluded.updated_at");
    let mut add = |name: &str, value: &str, sql_type: Option<&str>| {
        let _ = write!(names, ", {name}");
        let _ = write!(values, ", {value}");
        if let Some(sql_type) = sql_type {
            let _ = write!(types, ", {name} {sql_type}");
        }
        let _ = write!(updates, ", {name} = excluded.{name}");
    };
    for (name, column) in table.columns {
        let sql_type = match column {
            Text | Hash => "text",
            Texts => "text[]",
            Number => "bigint",
            Numbers => "bigint[]",
            Numeric => "numeric",
            Flag => "boolean",
            Id => "uuid",
            Json => "jsonb",
        };
        let value = if *column == Hash { format!("decode(r.{name}, 'hex')") } else { format!("r.{name}") };
        add(name, &value, Some(sql_type));
    }
    if !table.words.is_empty() {
        let words: Vec<String> = table
            .words
            .iter()
            .map(|word| if word.contains('(') { (*word).to_owned() } else { format!("r.{word}") })
            .collect();
        add("words", &format!("to_tsvector('simple', concat_ws(' ', {}))", words.join(", ")), None);
    }
    if table.kind == Blob::KIND {
        add("stored", "EXISTS (SELECT FROM stored_blob WHERE stored_blob.hash = decode(r.hash, 'hex'))", None);
    }
    format!(
        "INSERT INTO {} ({names}) SELECT {values} FROM jsonb_to_recordset($2::text::jsonb) AS r ({types}) \
         ON CONFLICT (bucket_no, id) DO UPDATE SET {updates}",
        table.name
    )
}

/// Adds to each medium's popularity what its counters have grown by. A sum would lose what a concurrent writer adds.
async fn count_openings(tx: &mut PgConnection, changes: &[Change]) -> Result<(), sqlx::Error> {
    let mut grown: BTreeMap<Uuid, i128> = BTreeMap::new();
    for change in changes.iter().filter(|change| change.after.key.kind == OpenCount::KIND) {
        for (record, sign) in change.before.iter().map(|before| (before, -1)).chain([(&change.after, 1)]) {
            if let Some(count) = OpenCount::from_record(record) {
                *grown.entry(Uuid::from_bytes(*count.media.as_bytes())).or_default() += sign * i128::from(count.count);
            }
        }
    }
    grown.retain(|_, by| *by != 0);
    if grown.is_empty() {
        return Ok(());
    }
    let (media, by): (Vec<Uuid>, Vec<String>) = grown.into_iter().map(|(media, by)| (media, by.to_string())).unzip();
    sqlx::query(
        "INSERT INTO popularity (media, opened) SELECT media, opened::numeric FROM unnest($1::uuid[], $2::text[]) \
            AS grown (media, opened) \
         ON CONFLICT (media) DO UPDATE SET opened = popularity.opened + excluded.opened",
    )
    .bind(media)
    .bind(by)
    .execute(tx)
    .await?;
    Ok(())
}
