//! Every route, with its description. Reads and writes are separate routers, because only writes are guarded.

use alexandria_sync::domain::{Author, Category, Collection, Media, Typed};
use axum::http::StatusCode;
use axum::middleware::from_fn_with_state;
use axum::routing::{delete, get, patch, post, put};
use utoipa::openapi::path::HttpMethod;
use utoipa::openapi::{ContentBuilder, Ref, ResponseBuilder};
use utoipa_axum::router::OpenApiRouter;

use crate::Api;
use crate::catalogue::Catalogue;
use crate::changes::CURSOR_DIGITS;
use crate::guard::{self, WriteGuard};
use crate::limits::{CHANGES_MAX, FILE_NAME_CHARS_MAX, Limits, PAGE_SIZE_DEFAULT, PAGE_SIZE_MAX, QUERY_CHARS_MAX};
use crate::links::{
    self, AuthorsOfCategory, AuthorsOfMedia, CategoriesOfAuthor, CategoriesOfMedia, Linked, MediaOfAuthor,
    MediaOfCategory, MediaOfCollection, Shelf,
};
use crate::openapi::{Endpoint, schema};
use crate::problem::ProblemKind;
use crate::resource::{self, Resource};
use crate::{blob, changes, opens};

/// Every route that changes nothing.
pub(crate) fn reads<C: Catalogue>() -> OpenApiRouter<Api<C>> {
    let router = OpenApiRouter::new();
    let router = read_resource::<Author, C>(router);
    let router = read_resource::<Category, C>(router);
    let router = read_resource::<Collection, C>(router);
    let router = read_resource::<Media, C>(router);
    let router = read_shelf::<AuthorsOfMedia, C>(router);
    let router = read_shelf::<CategoriesOfMedia, C>(router);
    let router = read_shelf::<MediaOfAuthor, C>(router);
    let router = read_shelf::<CategoriesOfAuthor, C>(router);
    let router = read_shelf::<MediaOfCategory, C>(router);
    let router = read_shelf::<AuthorsOfCategory, C>(router);
    let router = read_shelf::<MediaOfCollection, C>(router);
    read_changes(read_blobs(note_opens(router)))
}

/// Every route that changes something, behind the guard.
pub(crate) fn writes<C: Catalogue, G: WriteGuard>(guard: G) -> OpenApiRouter<Api<C>> {
    let router = OpenApiRouter::new();
    let router = write_resource::<Author, C>(router);
    let router = write_resource::<Category, C>(router);
    let router = write_resource::<Collection, C>(router);
    let router = write_resource::<Media, C>(router);
    let router = write_links::<AuthorsOfMedia, C>(router);
    let router = write_links::<CategoriesOfMedia, C>(router);
    let router = write_links::<CategoriesOfAuthor, C>(router);
    write_blobs(router).route_layer(from_fn_with_state(guard, guard::check::<G>))
}

/// `Author` for authors: the name that schemas and operations are made of.
fn type_name<R: Resource>() -> String {
    let name = R::NAME;
    name[..1].to_uppercase() + &name[1..]
}

fn operation<R: Resource>(verb: &str) -> String {
    format!("{verb}{}", type_name::<R>())
}

fn record_id() -> Ref {
    Ref::from_schema_name("RecordId")
}

fn with_list_parameters<R: Resource>(endpoint: Endpoint, across_collections: bool) -> Endpoint {
    let endpoint = endpoint
        .query("page_size", schema::integer_or(1, PAGE_SIZE_MAX, PAGE_SIZE_DEFAULT), "Entries on the page, at most")
        .query("page_token", schema::page_token(), "The next_page_token of the page before")
        .query("query", schema::plain_text(QUERY_CHARS_MAX), "Only what holds all these words")
        .query("filter_by", Ref::from_schema_name("OrderBy"), "What to sort by")
        .query("sort", Ref::from_schema_name("Sort"), "In which direction")
        .query("show_disabled", schema::flag(), "Whether hidden records are listed too")
        .problems(&[ProblemKind::TokenExpired])
        .answers_json(StatusCode::OK, "One page", &format!("{}Page", type_name::<R>()), &["Cache-Control"]);
    if R::IN_COLLECTION && across_collections {
        endpoint.query("collection", record_id(), "Only what lies in this collection")
    } else {
        endpoint
    }
}

fn read_resource<R: Resource, C: Catalogue>(router: OpenApiRouter<Api<C>>) -> OpenApiRouter<Api<C>> {
    let name = type_name::<R>();
    let list = Endpoint::new(HttpMethod::Get, format!("/v1/{}", R::PATH), operation::<R>("list"), "A page of the list");
    let one = Endpoint::new(HttpMethod::Get, format!("/v1/{}/{{id}}", R::PATH), operation::<R>("get"), "One record")
        .tag(R::PATH)
        .path_parameter("id", record_id(), "Which one")
        .query("show_disabled", schema::flag(), "Whether it is shown even if hidden")
        .conditional()
        .answers_json(StatusCode::OK, "The record", &format!("{name}View"), &["ETag", "Cache-Control"])
        .answers_empty(StatusCode::NOT_MODIFIED, "The client has this version", &["ETag"]);
    router
        .routes(with_list_parameters::<R>(list.tag(R::PATH), true).on(get(resource::list::list::<R, C>)))
        .routes(one.on(get(resource::read::get::<R, C>)))
}

fn read_shelf<S: Shelf, C: Catalogue>(router: OpenApiRouter<Api<C>>) -> OpenApiRouter<Api<C>> {
    let path = format!("/v1/{}/{{id}}/{}", S::Owner::PATH, S::Listed::PATH);
    let id = format!("list{}Of{}", type_name::<S::Listed>(), type_name::<S::Owner>());
    let list = Endpoint::new(HttpMethod::Get, path, id, "A page of the list under a record")
        .tag(S::Owner::PATH)
        .path_parameter("id", record_id(), "Under which one");
    let across_collections = S::Owner::KIND != Collection::KIND;
    router.routes(with_list_parameters::<S::Listed>(list, across_collections).on(get(links::list::<S, C>)))
}

fn read_blobs<C: Catalogue>(router: OpenApiRouter<Api<C>>) -> OpenApiRouter<Api<C>> {
    let list = Endpoint::new(HttpMethod::Get, "/v1/blobs", "listBlob", "A page of the content that is here, by hash")
        .tag("blobs")
        .query("page_size", schema::integer_or(1, PAGE_SIZE_MAX, PAGE_SIZE_DEFAULT), "Entries on the page, at most")
        .query("page_token", schema::hex(64), "The next_page_token of the page before")
        .query("sort", Ref::from_schema_name("Sort"), "In which direction")
        .answers_json(StatusCode::OK, "One page", "BlobPage", &["Cache-Control"]);
    router
        .routes(list.on(get(blob::list::<C>)))
        .routes(download(HttpMethod::Get, "getBlob").on(get(blob::download::get::<C>)))
        .routes(download(HttpMethod::Head, "headBlob").on(axum::routing::head(blob::download::get::<C>)))
}

fn download(method: HttpMethod, id: &str) -> Endpoint {
    const HEADERS: [&str; 5] = ["ETag", "Cache-Control", "Accept-Ranges", "Content-Length", "X-Content-Type-Options"];
    let is_get = method == HttpMethod::Get;
    let endpoint = Endpoint::new(method, "/v1/blobs/{hash}", id, "Content, whole or in ranges")
        .tag("blobs")
        .path_parameter("hash", Ref::from_schema_name("BlobHash"), "Which content")
        .query("name", schema::plain_text(FILE_NAME_CHARS_MAX), "The name to save it under")
        .query("download", schema::flag(), "Whether to save it rather than show it")
        .conditional()
        .answers_empty(StatusCode::NOT_MODIFIED, "The client has it", &["ETag", "Cache-Control"]);
    if !is_get {
        return endpoint.answers_empty(StatusCode::OK, "What a GET would answer", &HEADERS);
    }
    let any = || ContentBuilder::new().schema(Some(schema::bytes())).build();
    endpoint
        .header("Range", schema::text(), "Only these bytes; what cannot be read is ignored")
        .header("If-Range", schema::text(), "Only if this is its entity tag, otherwise the whole")
        .problems(&[ProblemKind::RangeNotSatisfiable, ProblemKind::NotHereYet])
        .answers(StatusCode::OK, ResponseBuilder::new().description("All of it").content("*/*", any()), &HEADERS)
        .answers(
            StatusCode::PARTIAL_CONTENT,
            ResponseBuilder::new().description("The ranges asked for").content("*/*", any()),
            &HEADERS,
        )
}

fn read_changes<C: Catalogue>(router: OpenApiRouter<Api<C>>) -> OpenApiRouter<Api<C>> {
    let json = ContentBuilder::new().schema(Some(Ref::from_schema_name("Changes"))).build();
    let events = ContentBuilder::new().schema(Some(schema::text())).build();
    let found = ResponseBuilder::new()
        .description(
            "What changed. With Accept: text/event-stream, an event `changes` for each piece, its id the cursor",
        )
        .content("application/json", json)
        .content("text/event-stream", events);
    let endpoint =
        Endpoint::new(HttpMethod::Get, "/v1/changes", "getChanges", "What changed in a bucket since a cursor")
            .tag("changes")
            .required_query("bucket", Ref::from_schema_name("BucketId"), "Of which bucket; that of a site is refused")
            .query(
                "since",
                schema::hex(CURSOR_DIGITS),
                "The `next` of the answer before; from the beginning without it",
            )
            .query("limit", schema::integer_or(1, CHANGES_MAX, CHANGES_MAX), "Records, at most")
            .query("wait", schema::integer(0, Limits::WAIT_S_MAX as usize), "Seconds to wait for a change, at most")
            .header(
                "Last-Event-ID",
                schema::pattern(&format!("^([0-9a-f]{{{CURSOR_DIGITS}}})?$")),
                "Goes before `since`",
            )
            .problems(&[ProblemKind::NotFound, ProblemKind::Forbidden, ProblemKind::TokenExpired, ProblemKind::Closing])
            .answers(StatusCode::OK, found, &["Cache-Control"]);
    router.routes(endpoint.on(get(changes::get::<C>)))
}

fn note_opens<C: Catalogue>(router: OpenApiRouter<Api<C>>) -> OpenApiRouter<Api<C>> {
    let endpoint =
        Endpoint::new(HttpMethod::Post, "/v1/media/{id}/opens", "openMedia", "Counts that a reader opened it")
            .tag(Media::PATH)
            .path_parameter("id", record_id(), "Which one")
            .answers_empty(StatusCode::NO_CONTENT, "It was counted", &[]);
    router.routes(endpoint.on(post(opens::note::<C>)))
}

fn write_resource<R: Resource, C: Catalogue>(router: OpenApiRouter<Api<C>>) -> OpenApiRouter<Api<C>> {
    let name = type_name::<R>();
    let collection = format!("/v1/{}", R::PATH);
    let item = format!("{collection}/{{id}}");
    let on_item = |method, verb: &str, summary: &str| {
        Endpoint::new(method, item.clone(), operation::<R>(verb), summary)
            .tag(R::PATH)
            .path_parameter("id", record_id(), "Which one")
            .conditional()
            .guarded()
    };
    let view = format!("{name}View");
    let names_content = [ProblemKind::ContentNotHere, ProblemKind::ContentMismatch];
    let create = Endpoint::new(HttpMethod::Post, collection.clone(), operation::<R>("create"), "Creates a record")
        .tag(R::PATH)
        .guarded()
        .json_body(&["application/json"], &format!("New{name}"))
        .problems(&names_content)
        .problems(&[ProblemKind::CollectionNotHere])
        .creates("It is stored", &view, &["get", "replace", "patch", "delete"].map(operation::<R>));
    let replace = on_item(HttpMethod::Put, "replace", "Replaces all fields")
        .json_body(&["application/json"], &name)
        .problems(&names_content)
        .answers_json(StatusCode::OK, "What it says now", &view, &["ETag"]);
    let change = on_item(HttpMethod::Patch, "patch", "Changes some fields: a merge patch (RFC 7396)")
        .json_body(&["application/merge-patch+json", "application/json"], &format!("{name}Patch"))
        .problems(&names_content)
        .answers_json(StatusCode::OK, "What it says now", &view, &["ETag"]);
    let remove = on_item(HttpMethod::Delete, "delete", "Hides a record, or deletes it for good")
        .query("hard", schema::flag(), "Whether for good")
        .answers_empty(StatusCode::NO_CONTENT, "It is hidden, or gone", &[]);
    let path = format!("{item}/restore");
    let restore = Endpoint::new(HttpMethod::Post, path, operation::<R>("restore"), "Shows a hidden record again")
        .tag(R::PATH)
        .path_parameter("id", record_id(), "Which one")
        .conditional()
        .guarded()
        .answers_json(StatusCode::OK, "What it says now", &view, &["ETag"]);
    router
        .routes(create.on(post(resource::write::create::<R, C>)))
        .routes(replace.on(put(resource::write::replace::<R, C>)))
        .routes(change.on(patch(resource::write::patch::<R, C>)))
        .routes(remove.on(delete(resource::write::delete::<R, C>)))
        .routes(restore.on(post(resource::write::restore::<R, C>)))
}

fn write_links<S: Linked, C: Catalogue>(router: OpenApiRouter<Api<C>>) -> OpenApiRouter<Api<C>> {
    let endpoint = |method, verb: &str, summary: &str| {
        let other = format!("{}_id", S::Listed::NAME);
        let path = format!("/v1/{}/{{id}}/{}/{{{other}}}", S::Owner::PATH, S::Listed::PATH);
        let id = format!("{verb}{}Of{}", type_name::<S::Listed>(), type_name::<S::Owner>());
        Endpoint::new(method, path, id, summary)
            .tag(S::Owner::PATH)
            .path_parameter("id", record_id(), "Which one")
            .path_parameter(&other, record_id(), "Linked with which one")
            .guarded()
    };
    let link = endpoint(HttpMethod::Put, "link", "Links two records").answers_empty(
        StatusCode::NO_CONTENT,
        "They are linked",
        &[],
    );
    let unlink = endpoint(HttpMethod::Delete, "unlink", "Takes the link between two records away").answers_empty(
        StatusCode::NO_CONTENT,
        "They are not linked",
        &[],
    );
    router.routes(link.on(put(links::link::<S, C>))).routes(unlink.on(delete(links::unlink::<S, C>)))
}

fn write_blobs<C: Catalogue>(router: OpenApiRouter<Api<C>>) -> OpenApiRouter<Api<C>> {
    let upload = Endpoint::new(HttpMethod::Post, "/v1/blobs", "createBlob", "Takes in content and tells its hash")
        .tag("blobs")
        .description(
            "A Content-Digest header (RFC 9530) with SHA-256 or SHA-512 is checked before the content is taken in; other \
             digests in it are ignored.",
        )
        .query("hash", Ref::from_schema_name("BlobHash"), "The hash that it must turn out to have")
        .bytes_body()
        .guarded()
        .problems(&[ProblemKind::ContentMismatch, ProblemKind::InvalidHeader])
        .answers_json(StatusCode::CREATED, "It is stored", "BlobView", &["Location"])
        .answers_json(StatusCode::OK, "It was here already", "BlobView", &["Location"]);
    let remove =
        Endpoint::new(HttpMethod::Delete, "/v1/blobs/{hash}", "deleteBlob", "Removes content that nothing names")
            .tag("blobs")
            .path_parameter("hash", Ref::from_schema_name("BlobHash"), "Which content")
            .guarded()
            .problems(&[ProblemKind::InUse])
            .answers_empty(StatusCode::NO_CONTENT, "It is gone from here", &[]);
    router.routes(upload.on(post(blob::upload::post::<C>))).routes(remove.on(delete(blob::delete::<C>)))
}
