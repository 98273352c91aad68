//! The typed tables that SQL can ask, one for each kind, written with the record.
//!
//! Rows go over column by column, an array for each, so that a page of records costs one statement for each kind in it.
//! What a peer sends is not checked as strictly as what is made here: a number too large for its column is
//! cut to the largest that fits, and the character U+0000, which PostgreSQL has no text for, becomes U+FFFD. The record
//! itself keeps every byte.

use std::collections::BTreeMap;
use std::fmt::Write;

use alexandria_sync::chunk::BlobHash;
use alexandria_sync::domain::{
    Annotation, Author, AuthorCategory, Blob, Category, Collection, Erasure, ErasureReceipt, Media, MediaAuthor,
    MediaCategory, OpenCount, Typed, User,
};
use alexandria_sync::id::RecordId;
use alexandria_sync::record::{Kind, Record};
use serde_json::Value;
use sqlx::{AssertSqlSafe, PgConnection};
use uuid::Uuid;

use super::words::{self, Words};
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
        words: &["title", "description", "array_to_string(r.languages::text[], ' ')"],
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

/// What the typed tables are to hold of some changes.
pub(super) struct Projection {
    tables: Vec<Rows>,
}

/// What one of them is to hold.
struct Rows {
    table: &'static Table,
    live: Live,
    deleted: Vec<Uuid>,
}

/// Rows to be there, column by column.
struct Live {
    ids: Vec<Uuid>,
    stamps: Vec<i64>,
    stamps_ms: Vec<i64>,
    columns: Vec<Values>,
}

/// One column of many rows, in the form that goes over; [`Column::cast`] makes it the column's.
enum Values {
    Texts(Vec<Option<String>>),
    Numbers(Vec<Option<i64>>),
    Flags(Vec<Option<bool>>),
    Ids(Vec<Option<Uuid>>),
    Hashes(Vec<Option<Vec<u8>>>),
}

impl Projection {
    /// What is to be said of `changes`, of which `shown` are the records as [`typed_json`] has them.
    pub(super) fn of(changes: &[Change], shown: &[Option<Value>]) -> Self {
        let mut tables = Vec::new();
        for table in &TABLES {
            // In the order of their ids, so that two writers take the rows' locks in the same order.
            let mut live = BTreeMap::new();
            let mut deleted = Vec::new();
            for (change, shown) in changes.iter().zip(shown).filter(|(change, _)| change.after.key.kind == table.kind) {
                match shown {
                    Some(shown) => {
                        live.insert(change.after.key.id, (&change.after, shown));
                    }
                    None => deleted.push(Uuid::from_bytes(*change.after.key.id.as_bytes())),
                }
            }
            if !live.is_empty() || !deleted.is_empty() {
                tables.push(Rows { table, live: Live::of(table, live.into_values()), deleted });
            }
        }
        Self { tables }
    }

    /// Writes it, and the words of its rows or a note that they are due.
    pub(super) async fn write(self, tx: &mut PgConnection, bucket_no: i32, words: Words) -> Result<(), sqlx::Error> {
        for Rows { table, live, deleted } in self.tables {
            if !live.ids.is_empty() {
                if words == Words::Later && !table.words.is_empty() {
                    words::note_due(tx, table.kind, &live.ids).await?;
                }
                let statement = upsert(table, words);
                let query = sqlx::query(AssertSqlSafe(statement)).bind(bucket_no);
                let query = query.bind(live.ids).bind(live.stamps).bind(live.stamps_ms);
                let query = live.columns.into_iter().fold(query, |query, values| match values {
                    Values::Texts(values) => query.bind(values),
                    Values::Numbers(values) => query.bind(values),
                    Values::Flags(values) => query.bind(values),
                    Values::Ids(values) => query.bind(values),
                    Values::Hashes(values) => query.bind(values),
                });
                query.execute(&mut *tx).await?;
            }
            if !deleted.is_empty() {
                let statement = format!("DELETE FROM {} WHERE bucket_no = $1 AND id = ANY ($2)", table.name);
                sqlx::query(AssertSqlSafe(statement)).bind(bucket_no).bind(deleted).execute(&mut *tx).await?;
            }
        }
        Ok(())
    }
}

impl Live {
    fn of<'r>(table: &Table, rows: impl Iterator<Item = (&'r Record, &'r Value)>) -> Self {
        let columns = table.columns.iter().map(|(_, column)| column.values()).collect();
        let mut live = Self { ids: Vec::new(), stamps: Vec::new(), stamps_ms: Vec::new(), columns };
        for (record, shown) in rows {
            let stamp = record.newest_stamp();
            live.ids.push(Uuid::from_bytes(*record.key.id.as_bytes()));
            live.stamps.push(i64::try_from(stamp.time.to_bits()).unwrap_or(i64::MAX));
            live.stamps_ms.push(i64::try_from(stamp.time.unix_ms()).unwrap_or(i64::MAX));
            for ((name, column), values) in table.columns.iter().zip(&mut live.columns) {
                values.push(*column, shown.get(*name).filter(|value| !value.is_null()));
            }
        }
        live
    }
}

impl Column {
    /// No values of this column.
    fn values(self) -> Values {
        match self {
            Text | Texts | Numbers | Numeric | Json => Values::Texts(Vec::new()),
            Number => Values::Numbers(Vec::new()),
            Flag => Values::Flags(Vec::new()),
            Id => Values::Ids(Vec::new()),
            Hash => Values::Hashes(Vec::new()),
        }
    }

    /// The type of a value as it goes over, and what makes it the column's.
    fn sql(self) -> (&'static str, &'static str) {
        match self {
            Text => ("text", ""),
            Texts => ("text", "::text[]"),
            Numbers => ("text", "::bigint[]"),
            Numeric => ("text", "::numeric"),
            Json => ("text", "::jsonb"),
            Number => ("bigint", ""),
            Flag => ("boolean", ""),
            Id => ("uuid", ""),
            Hash => ("bytea", ""),
        }
    }
}

impl Values {
    /// One value more, of a column of the kind that these were made for.
    fn push(&mut self, column: Column, value: Option<&Value>) {
        match self {
            Self::Texts(values) => values.push(value.map(|value| match (column, value) {
                (Texts | Numbers, Value::Array(items)) => array_literal(items),
                (Text, Value::String(text)) => text.clone(),
                (_, value) => value.to_string(),
            })),
            Self::Numbers(values) => {
                let number = |value: &Value| value.as_i64().or_else(|| value.as_u64().map(|_| i64::MAX));
                values.push(value.and_then(number));
            }
            Self::Flags(values) => values.push(value.and_then(Value::as_bool)),
            Self::Ids(values) => {
                let id = |text: &str| text.parse::<RecordId>().ok();
                values.push(value.and_then(Value::as_str).and_then(id).map(|id| Uuid::from_bytes(*id.as_bytes())));
            }
            Self::Hashes(values) => {
                let hash = |text: &str| text.parse::<BlobHash>().ok();
                values.push(value.and_then(Value::as_str).and_then(hash).map(|hash| hash.as_bytes().to_vec()));
            }
        }
    }
}

/// Texts or numbers as PostgreSQL writes an array.
fn array_literal(items: &[Value]) -> String {
    let mut literal = String::from("{");
    for (place, item) in items.iter().enumerate() {
        if place > 0 {
            literal.push(',');
        }
        match item {
            Value::String(text) => {
                literal.push('"');
                for character in text.chars() {
                    if matches!(character, '"' | '\\') {
                        literal.push('\\');
                    }
                    literal.push(character);
                }
                literal.push('"');
            }
            other => {
                let _ = write!(literal, "{other}");
            }
        }
    }
    literal.push('}');
    literal
}

/// A record's fields by name, as in the API.
pub(super) fn typed_json(record: &Record) -> Option<Value> {
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

impl Table {
    /// The words of its row `r`, as an expression; `None` if it has none.
    fn words(&self) -> Option<String> {
        let column = |word: &&str| if word.contains('(') { (*word).to_owned() } else { format!("r.{word}") };
        let columns: Vec<String> = self.words.iter().map(column).collect();
        (!columns.is_empty()).then(|| format!("to_tsvector('simple', concat_ws(' ', {}))", columns.join(", ")))
    }
}

/// The statement that makes the words of rows of a kind: `$1` is an array of their ids. `None` if the kind has no words.
pub(super) fn make_words(kind: Kind) -> Option<String> {
    let table = TABLES.iter().find(|table| table.kind == kind)?;
    let (name, words) = (table.name, table.words()?);
    // Locked in the order in which writers lock them.
    Some(format!(
        "WITH due AS (SELECT id, bucket_no FROM {name} WHERE id = ANY ($1) ORDER BY id FOR UPDATE) \
         UPDATE {name} AS r SET words = {words} FROM due WHERE r.id = due.id AND r.bucket_no = due.bucket_no"
    ))
}

/// The statement that writes rows: `$1` is the bucket, the rest arrays, as [`Live`] has them. Words that are made later
/// stay what they were until then.
fn upsert(table: &Table, words: Words) -> String {
    let mut names = String::from("bucket_no, id, stamp, updated_at");
    let mut values = String::from("$1, r.id, r.stamp, to_timestamp(r.stamp_ms / 1000.0)");
    let mut arrays = String::from("$2::uuid[], $3::bigint[], $4::bigint[]");
    let mut columns = String::from("id, stamp, stamp_ms");
    let mut updates = String::from("stamp = excluded.stamp, updated_at = excluded.updated_at");
    let mut add = |name: &str, value: &str| {
        let _ = write!(names, ", {name}");
        let _ = write!(values, ", {value}");
        let _ = write!(updates, ", {name} = excluded.{name}");
    };
    for (parameter, (name, column)) in (5..).zip(table.columns) {
        let (sent_as, cast) = column.sql();
        let _ = write!(arrays, ", ${parameter}::{sent_as}[]");
        let _ = write!(columns, ", {name}");
        add(name, &format!("r.{name}{cast}"));
    }
    if let Some(made) = table.words().filter(|_| words == Words::Now) {
        add("words", &made);
    }
    if table.kind == Blob::KIND {
        add("stored", "EXISTS (SELECT FROM stored_blob WHERE stored_blob.hash = r.hash)");
    }
    format!(
        "INSERT INTO {} ({names}) SELECT {values} FROM unnest({arrays}) AS r ({columns}) \
         ON CONFLICT (bucket_no, id) DO UPDATE SET {updates}",
        table.name
    )
}

/// Adds to each medium's popularity what its counters have grown by. A sum would lose what a concurrent writer adds.
pub(super) async fn count_openings(tx: &mut PgConnection, changes: &[Change]) -> Result<(), sqlx::Error> {
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
