//! A small library, and a visitor to it.

use std::io::{Cursor, Write};

use alexandria_api::catalogue::{Catalogue, Link, NewRecord, Relation, Upload};
use alexandria_sync::chunk::BlobHash;
use alexandria_sync::domain::{Author, Category, Collection, FileRole, Media, MediaFile, Typed};
use alexandria_sync::id::{BucketId, RecordId};
use axum::body::Body;
use axum::http::{HeaderMap, Request, StatusCode};
use axum::response::Response;
use bytes::Bytes;
use futures::StreamExt;
use http_body_util::BodyExt;
use tower::ServiceExt;
use zip::write::SimpleFileOptions;

#[path = "../../../../../sync/api/tests/api/memory.rs"]
mod memory;

pub(super) use memory::MemoryCatalogue;

/// A page, or whatever else came.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) text: String,
}

impl Answer {
    pub(super) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map(|value| value.to_str().expect("a visible header")).unwrap_or_default()
    }

    /// The addresses of all links whose address starts so.
    pub(super) fn links(&self, start: &str) -> Vec<String> {
        let pieces = self.text.split("href=\"").skip(1).filter_map(|piece| piece.split('"').next());
        pieces.filter(|link| link.starts_with(start)).map(|link| link.replace("&amp;", "&")).collect()
    }

    /// The address behind `rel="next"` or `rel="prev"`.
    pub(super) fn step(&self, rel: &str) -> Option<String> {
        let pager = self.text.split("<nav class=\"pager\"").nth(1)?;
        let link = pager.split(&format!("rel=\"{rel}\" href=\"")).nth(1)?;
        Some(link.split('"').next()?.replace("&amp;", "&"))
    }
}

/// Records and content, and the pages that show them.
#[derive(Clone)]
pub(super) struct Library {
    pub(super) catalogue: MemoryCatalogue,
    router: axum::Router,
}

impl Library {
    pub(super) fn new() -> Self {
        let catalogue = MemoryCatalogue::default();
        Self { router: super::super::router(catalogue.clone()), catalogue }
    }

    pub(super) async fn get(&self, address: &str) -> Answer {
        self.get_with(address, &[]).await
    }

    pub(super) async fn get_with(&self, address: &str, headers: &[(&str, &str)]) -> Answer {
        let address = address.split('#').next().unwrap_or_default();
        let mut request = Request::get(address);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.send(request.body(Body::empty()).expect("a sound request")).await
    }

    pub(super) async fn send(&self, request: Request<Body>) -> Answer {
        let response: Response = self.router.clone().oneshot(request).await.expect("routers do not fail");
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.expect("a body in memory").to_bytes();
        Answer { status: parts.status, headers: parts.headers, text: String::from_utf8_lossy(&bytes).into_owned() }
    }

    pub(super) async fn add<T: Typed>(&self, bucket: BucketId, record: &T) -> RecordId {
        let fields = record.changes_since(&T::default());
        let new = NewRecord { bucket, kind: T::KIND, fields, blobs: Vec::new() };
        self.catalogue.create(new).await.expect("the bucket is here").record.key.id
    }

    pub(super) async fn collection(&self, title: &str) -> RecordId {
        self.add(BucketId::Catalogue, &Collection { title: title.into(), ..Collection::default() }).await
    }

    pub(super) async fn author(&self, name: &str) -> RecordId {
        self.add(BucketId::Catalogue, &Author { name: name.into(), ..Author::default() }).await
    }

    pub(super) async fn category(&self, name: &str) -> RecordId {
        self.add(BucketId::Catalogue, &Category { name: name.into(), ..Category::default() }).await
    }

    pub(super) async fn media(&self, media: &Media) -> RecordId {
        let collection = self.catalogue.default_collection().await.expect("always made");
        self.add(BucketId::Collection(collection), media).await
    }

    pub(super) async fn titled(&self, title: &str) -> RecordId {
        self.media(&Media { title: title.into(), ..Media::default() }).await
    }

    pub(super) async fn link(&self, relation: Relation, left: RecordId, right: RecordId) {
        let link = Link { relation, bucket: BucketId::Catalogue, left, right };
        self.catalogue.set_link(link, true).await.expect("links are records");
    }

    pub(super) async fn content(&self, media_type: &str, bytes: &[u8]) -> BlobHash {
        let bytes = Bytes::copy_from_slice(bytes);
        let body = futures::stream::iter([Ok(bytes)]).boxed();
        let upload = Upload { media_type: media_type.into(), expected: None, size_bytes: None, body };
        self.catalogue.put_blob(upload).await.expect("memory has room").info.hash
    }

    /// A medium that is one file.
    pub(super) async fn filed(&self, media: Media, media_type: &str, name: &str, bytes: &[u8]) -> RecordId {
        let blob = self.content(media_type, bytes).await;
        let file = MediaFile {
            blob,
            media_type: media_type.into(),
            name: name.into(),
            size_bytes: bytes.len() as u64,
            role: FileRole::Main,
        };
        self.media(&Media { files: vec![file], ..media }).await
    }

    pub(super) async fn opens(&self, media: RecordId) -> u64 {
        self.catalogue.get(Media::KIND, media).await.expect("memory does not fail").expect("it is here").popularity
    }
}

/// A ZIP with these entries.
pub(super) fn archive(entries: &[(&str, &[u8])]) -> Vec<u8> {
    let mut writer = zip::ZipWriter::new(Cursor::new(Vec::new()));
    for (name, bytes) in entries {
        writer.start_file(*name, SimpleFileOptions::default()).expect("a new entry");
        writer.write_all(bytes).expect("memory has room");
    }
    writer.finish().expect("an archive").into_inner()
}

/// A book with these chapters, `c1.xhtml` and on, and what else it holds.
pub(super) fn epub(chapters: &[&str], extra: &[(&str, &[u8])]) -> Vec<u8> {
    let container = r#"<container><rootfiles><rootfile full-path="O/p.opf"/></rootfiles></container>"#;
    let numbers = 1..=chapters.len();
    let items: Vec<_> = numbers.clone().map(|n| format!(r#"<item id="c{n}" href="c{n}.xhtml"/>"#)).collect();
    let spine: Vec<_> = numbers.map(|n| format!(r#"<itemref idref="c{n}"/>"#)).collect();
    let package =
        format!("<package><manifest>{}</manifest><spine>{}</spine></package>", items.concat(), spine.concat());
    let names: Vec<String> = (1..=chapters.len()).map(|n| format!("O/c{n}.xhtml")).collect();
    let mut entries: Vec<(&str, &[u8])> =
        vec![("META-INF/container.xml", container.as_bytes()), ("O/p.opf", package.as_bytes())];
    entries.extend(names.iter().zip(chapters).map(|(name, chapter)| (name.as_str(), chapter.as_bytes())));
    entries.extend(extra);
    archive(&entries)
}
