//! The shapes of what is sent and answered. Those of records come from the domain types; what their checks demand, and
//! JSON Schema can say, is added here.
//!
//! Each kind has five: `Author`, what a `PUT` sends; `NewAuthor`, what a `POST` sends; `AuthorPatch`; `AuthorView`, what is
//! answered; `AuthorPage`, a list.

use alexandria_sync::chunk::BlobHash;
use alexandria_sync::domain::{
    Author, Category, Collection, DESCRIPTION_CHARS_MAX, LIST_ENTRIES_MAX, Media, NAME_CHARS_MAX,
};
use alexandria_sync::id::RecordId;
use serde_json::{Value, json};
use utoipa::openapi::schema::{AdditionalProperties, ArrayItems, SchemaType};
use utoipa::openapi::{ArrayBuilder, Object, ObjectBuilder, OneOfBuilder, Ref, RefOr, Schema, Type};
use utoipa::{PartialSchema, ToSchema};

use crate::blob::BlobView;
use crate::catalogue::{OrderBy, Sort, Whereabouts};
use crate::changes::json::{Change, Changes};
use crate::limits::PAGE_SIZE_MAX;
use crate::problem::ProblemBody;
use crate::resource::Resource;
use crate::resource::list::PAGE_TOKEN_DIGITS;

type Named = (String, RefOr<Schema>);

/// No U+0000 anywhere.
const NO_NUL: &str = r"^[^\u0000]*$";
/// And something that is not a space.
const NAME: &str = r"^[^\u0000]*[^\u0000\s\u0085\u001c-\u001f][^\u0000]*$";
/// The buckets whose changes are served: not those of sites.
const SERVED_BUCKET: &str = "^(catalogue|collection/[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})$";
const LANGUAGE: &str = "^[A-Za-z0-9-]{2,35}$";

/// Every schema that the document refers to.
pub(crate) fn components() -> Vec<Named> {
    let mut named = Vec::new();
    resource::<Author>(&mut named, "Author", "name");
    resource::<Category>(&mut named, "Category", "name");
    resource::<Collection>(&mut named, "Collection", "title");
    resource::<Media>(&mut named, "Media", "title");
    for (name, schema) in [
        ("Problem", ProblemBody::schema()),
        ("BlobView", BlobView::schema()),
        ("BlobPage", page("BlobView", hex(64))),
        ("Changes", Changes::schema()),
        ("Change", Change::schema()),
        ("Whereabouts", Whereabouts::schema()),
        ("OrderBy", OrderBy::schema()),
        ("Sort", Sort::schema()),
        ("BucketId", pattern(SERVED_BUCKET).into()),
        ("BlobHash", BlobHash::schema()),
        ("RecordId", RecordId::schema()),
    ] {
        named.push((name.to_owned(), schema));
    }
    Changes::schemas(&mut named);
    BlobView::schemas(&mut named);
    for (name, schema) in &mut named {
        constrain(name, schema);
    }
    named
}

fn resource<R: Resource>(named: &mut Vec<Named>, name: &str, title: &str) {
    R::schemas(named);
    let mut fields = object(R::schema());
    fields.required = vec![title.to_owned()];
    let mut new = fields.clone();
    if R::IN_COLLECTION {
        new.properties.insert("collection".to_owned(), Ref::from_schema_name("RecordId").into());
    }
    new.examples = vec![json!({ title: "Things Fall Apart" })];
    let mut patch = fields.clone();
    patch.required = Vec::new();
    patch.properties = nullable_but(&fields, title);
    let view = view::<R>(&fields);
    let mut entry = view.clone();
    entry.properties.insert("popularity".to_owned(), count().into());
    entry.required.push("popularity".to_owned());
    if R::IN_COLLECTION {
        entry.properties.insert("content".to_owned(), Ref::from_schema_name("Whereabouts").into());
    }
    for (suffixed, object) in [
        (name.to_owned(), fields),
        (format!("New{name}"), new),
        (format!("{name}Patch"), patch),
        (format!("{name}View"), view),
        (format!("{name}Entry"), entry),
    ] {
        named.push((suffixed, RefOr::T(Schema::Object(object))));
    }
    named.push((format!("{name}Page"), page(&format!("{name}Entry"), page_token())));
}

fn view<R: Resource>(fields: &Object) -> Object {
    let mut view = fields.clone();
    view.properties.insert("id".to_owned(), Ref::from_schema_name("RecordId").into());
    view.properties.insert("created_unix_ms".to_owned(), nullable(count().into()));
    view.properties.insert("updated_unix_ms".to_owned(), count().into());
    if R::IN_COLLECTION {
        view.properties.insert("collection".to_owned(), Ref::from_schema_name("RecordId").into());
    }
    view.required = view.properties.keys().cloned().collect();
    view
}

fn page(entry: &str, token: Schema) -> RefOr<Schema> {
    let items = ArrayBuilder::new().items(Ref::from_schema_name(entry)).max_items(Some(PAGE_SIZE_MAX));
    ObjectBuilder::new()
        .property("items", items)
        .required("items")
        .property("next_page_token", token)
        .description(Some("One page of a list; without a token, the last"))
        .additional_properties(Some(AdditionalProperties::<Schema>::FreeForm(false)))
        .into()
}

/// The properties with null allowed, which resets them to their default; but the one that may not be empty.
fn nullable_but(fields: &Object, title: &str) -> std::collections::BTreeMap<String, RefOr<Schema>> {
    let properties = fields.properties.iter().map(|(name, schema)| {
        let schema = if name == title { schema.clone() } else { nullable(schema.clone()) };
        (name.clone(), schema)
    });
    properties.collect()
}

fn nullable(schema: RefOr<Schema>) -> RefOr<Schema> {
    let with_null = |schema_type: SchemaType| match schema_type {
        SchemaType::Type(one) => SchemaType::Array(vec![one, Type::Null]),
        already => already,
    };
    match schema {
        RefOr::T(Schema::Object(mut object)) => {
            object.schema_type = with_null(object.schema_type);
            RefOr::T(Schema::Object(object))
        }
        RefOr::T(Schema::Array(mut array)) => {
            array.schema_type = with_null(array.schema_type);
            RefOr::T(Schema::Array(array))
        }
        RefOr::Ref(reference) => {
            OneOfBuilder::new().item(Schema::Object(Object::with_type(Type::Null))).item(reference).into()
        }
        RefOr::T(already) => RefOr::T(already),
    }
}

/// Adds to a named schema what the domain's checks demand.
fn constrain(name: &str, schema: &mut RefOr<Schema>) {
    let RefOr::T(Schema::Object(object)) = schema else { return };
    if name.starts_with("Problem") || name.starts_with("Change") || name == "BlobView" {
        object.additional_properties = Some(Box::new(AdditionalProperties::FreeForm(false)));
        return;
    }
    for (property, schema) in &mut object.properties {
        let RefOr::T(schema) = schema else { continue };
        match (schema, property.as_str()) {
            (Schema::Object(text), "title") if name == "Chapter" => limit(text, NAME_CHARS_MAX, NO_NUL),
            (Schema::Object(text), "name" | "title" | "sort_name") => {
                limit(text, NAME_CHARS_MAX, NAME);
                text.default = text.default.take().filter(Value::is_null);
            }
            (Schema::Object(text), "publisher" | "published" | "media_type") => limit(text, NAME_CHARS_MAX, NO_NUL),
            (Schema::Object(text), "description") => limit(text, DESCRIPTION_CHARS_MAX, NO_NUL),
            (Schema::Object(text), "href") => text.pattern = Some(NO_NUL.to_owned()),
            (Schema::Object(number), "start_ms" | "duration_ms" | "size_bytes") => bound(number, u64::MAX),
            (Schema::Object(number), "page" | "pages") => bound(number, u32::MAX.into()),
            (Schema::Array(array), "languages") => {
                array.max_items = Some(LIST_ENTRIES_MAX);
                array.items = ArrayItems::RefOrSchema(Box::new(pattern(LANGUAGE).into()));
            }
            (Schema::Array(array), "chapters" | "files") => array.max_items = Some(LIST_ENTRIES_MAX),
            _ => {}
        }
    }
}

fn limit(text: &mut Object, chars_max: usize, pattern: &str) {
    text.max_length = Some(chars_max);
    text.pattern = Some(pattern.to_owned());
}

/// Says what fits the field, in place of a format that only comes near it.
fn bound(number: &mut Object, max: u64) {
    number.format = None;
    number.maximum = Some(utoipa::Number::UInt(max as usize));
}

fn object(schema: RefOr<Schema>) -> Object {
    match schema {
        RefOr::T(Schema::Object(object)) => object,
        _ => Object::new(),
    }
}

/// Any text.
pub(crate) fn text() -> Schema {
    Schema::Object(Object::with_type(Type::String))
}

/// Bytes that are not text.
pub(crate) fn bytes() -> Schema {
    ObjectBuilder::new()
        .schema_type(Type::String)
        .format(Some(utoipa::openapi::SchemaFormat::KnownFormat(utoipa::openapi::KnownFormat::Binary)))
        .into()
}

/// A text of this form.
pub(crate) fn pattern(pattern: &str) -> Schema {
    ObjectBuilder::new().schema_type(Type::String).pattern(Some(pattern)).into()
}

/// A text of at most this many characters, without U+0000.
pub(crate) fn plain_text(chars_max: usize) -> Schema {
    ObjectBuilder::new().schema_type(Type::String).max_length(Some(chars_max)).pattern(Some(NO_NUL)).into()
}

/// Hexadecimal digits.
pub(crate) fn hex(digits: usize) -> Schema {
    pattern(&format!("^[0-9a-f]{{{digits}}}$"))
}

/// A place in a list.
pub(crate) fn page_token() -> Schema {
    hex(PAGE_TOKEN_DIGITS)
}

/// A whole number in a range.
pub(crate) fn integer(min: usize, max: usize) -> Schema {
    ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(min)).maximum(Some(max)).into()
}

/// A whole number in a range, with its default.
pub(crate) fn integer_or(min: usize, max: usize, default: usize) -> Schema {
    let number = ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(min)).maximum(Some(max));
    number.default(Some(Value::from(default))).into()
}

/// Yes or no; no unless given.
pub(crate) fn flag() -> Schema {
    ObjectBuilder::new().schema_type(Type::Boolean).default(Some(Value::Bool(false))).into()
}

fn count() -> Schema {
    ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(0)).into()
}
