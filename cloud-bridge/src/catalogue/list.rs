//! Finding records: one by id, or a page of a list, through the typed tables.

use alexandria_api::catalogue::{ListQuery, Listing, OrderBy, Relation, Sort, Stored};
use alexandria_sync::domain::{Author, AuthorCategory, Category, Collection, Media, MediaAuthor, MediaCategory, Typed};
use alexandria_sync::id::{BucketId, RecordId};
use alexandria_sync::record::{Kind, Record};
use sqlx::postgres::PgRow;
use sqlx::{AssertSqlSafe, Postgres, QueryBuilder, Row};
use uuid::Uuid;

use crate::postgres::{RecordStoreError, Records};

/// What is read of each record, from its typed table `item`.
const COLUMNS: &str = "SELECT bucket.name, record.encoding, coalesce(popularity.opened, 0)::text AS opened";
/// Counts past this are shown as this: places in a list stay below 2^63.
const POPULARITY_MAX: u64 = i64::MAX as u64;

/// The live record of a kind that is listed, by its id.
pub(super) async fn get(records: &Records, kind: Kind, id: RecordId) -> Result<Option<Stored>, RecordStoreError> {
    let Some(table) = table(kind) else { return Ok(None) };
    let statement = format!("{COLUMNS} {} WHERE item.id = $1 ORDER BY bucket.no LIMIT 1", joins(table, kind));
    let row = sqlx::query(AssertSqlSafe(statement))
        .bind(Uuid::from_bytes(*id.as_bytes()))
        .fetch_optional(records.pool())
        .await?;
    row.map(|row| stored(&row)).transpose()
}

/// A page of a list.
pub(super) async fn list(records: &Records, query: &ListQuery) -> Result<Listing, RecordStoreError> {
    let Some(table) = table(query.kind) else { return Ok(Listing::default()) };
    let mut sql: QueryBuilder<Postgres> = QueryBuilder::new(COLUMNS);
    sql.push(" ").push(joins(table, query.kind)).push(" WHERE true");
    if !query.show_disabled {
        sql.push(" AND NOT coalesce(item.disabled, false)");
    }
    if let Some(bucket) = query.bucket {
        sql.push(" AND bucket.name = ").push_bind(bucket.to_string());
    }
    if let Some(text) = &query.text {
        // All words have to match; what is left of a text without any word finds nothing.
        sql.push(" AND item.words @@ plainto_tsquery('simple', ").push_bind(text.replace('\0', " ")).push(")");
    }
    if let Some(linked) = query.linked_to {
        let (link, left, right) = link_table(linked.relation);
        let is_left = linked.relation.ends().0 == query.kind;
        let (own, other) = if is_left { (left, right) } else { (right, left) };
        sql.push(format!(" AND EXISTS (SELECT FROM {link} AS link WHERE link.linked AND link.{own} = item.id"));
        sql.push(format!(" AND link.{other} = ")).push_bind(Uuid::from_bytes(*linked.id.as_bytes())).push(")");
    }
    let key = match query.order_by {
        OrderBy::Id => "0::numeric",
        OrderBy::Timestamp => "item.stamp::numeric",
        OrderBy::Popularity => "coalesce(popularity.opened, 0)",
    };
    let (comparison, direction) = match query.sort {
        Sort::Ascending => (">", ""),
        Sort::Descending => ("<", " DESC"),
    };
    if let Some(after) = query.after {
        let id = Uuid::from_bytes(*after.id.as_bytes());
        if query.order_by == OrderBy::Id {
            sql.push(format!(" AND item.id {comparison} ")).push_bind(id);
        } else {
            sql.push(format!(" AND ({key}, item.id) {comparison} (")).push_bind(after.key.to_string());
            sql.push("::numeric, ").push_bind(id).push(")");
        }
    }
    match query.order_by {
        OrderBy::Id => sql.push(format!(" ORDER BY item.id{direction}")),
        OrderBy::Timestamp => sql.push(format!(" ORDER BY item.stamp{direction}, item.id{direction}")),
        OrderBy::Popularity => sql.push(format!(" ORDER BY {key}{direction}, item.id{direction}")),
    };
    sql.push(" LIMIT ").push_bind(query.page_size as i64 + 1);
    let rows = sql.build().fetch_all(records.pool()).await?;
    let more = rows.len() > query.page_size;
    let items = rows.iter().take(query.page_size).map(stored).collect::<Result<_, _>>()?;
    Ok(Listing { items, more })
}

/// How often a medium was opened.
pub(super) async fn popularity(records: &Records, media: RecordId) -> Result<u64, RecordStoreError> {
    let opened: Option<String> = sqlx::query_scalar("SELECT opened::text FROM popularity WHERE media = $1")
        .bind(Uuid::from_bytes(*media.as_bytes()))
        .fetch_optional(records.pool())
        .await?;
    Ok(opened.map_or(0, |opened| count(&opened)))
}

/// Whether a link's record says that it stands.
pub(super) fn is_linked(record: &Record) -> bool {
    match record.key.kind {
        MediaAuthor::KIND => MediaAuthor::from_record(record).is_some_and(|link| link.linked),
        MediaCategory::KIND => MediaCategory::from_record(record).is_some_and(|link| link.linked),
        AuthorCategory::KIND => AuthorCategory::from_record(record).is_some_and(|link| link.linked),
        _ => false,
    }
}

fn stored(row: &PgRow) -> Result<Stored, RecordStoreError> {
    let name: String = row.try_get("name")?;
    let bucket: BucketId =
        name.parse().map_err(|_| RecordStoreError::Malformed { table: "bucket", value: name.clone() })?;
    let record = Record::decode(bucket, row.try_get("encoding")?)
        .map_err(|source| RecordStoreError::Damaged { bucket, source })?;
    Ok(Stored { record, popularity: count(row.try_get("opened")?) })
}

fn count(opened: &str) -> u64 {
    opened.parse::<u128>().map_or(0, |opened| u64::try_from(opened).unwrap_or(u64::MAX).min(POPULARITY_MAX))
}

fn joins(table: &str, kind: Kind) -> String {
    format!(
        "FROM {table} AS item JOIN bucket ON bucket.no = item.bucket_no \
         JOIN record ON record.bucket_no = item.bucket_no AND record.kind = {} AND record.id = item.id \
            AND NOT record.deleted \
         LEFT JOIN popularity ON popularity.media = item.id",
        kind.0
    )
}

fn table(kind: Kind) -> Option<&'static str> {
    match kind {
        Author::KIND => Some("author"),
        Media::KIND => Some("media"),
        Category::KIND => Some("category"),
        Collection::KIND => Some("collection"),
        _ => None,
    }
}

fn link_table(relation: Relation) -> (&'static str, &'static str, &'static str) {
    match relation {
        Relation::MediaAuthor => ("media_author", "media", "author"),
        Relation::MediaCategory => ("media_category", "media", "category"),
        Relation::AuthorCategory => ("author_category", "author", "category"),
    }
}
