//! `POST /v1/blobs`: content on its way in, streamed, so that memory stays flat whatever its size.
//!
//! The body is bounded, and checked against `Content-Digest` (RFC 9530) before its end reaches the catalogue: content
//! that breaks a promise never becomes a blob.

use std::pin::pin;

use alexandria_sync::chunk::BlobHash;
use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::stream::{BoxStream, StreamExt};
use serde::Deserialize;
use sfv::{BareItem, Dictionary, ListEntry, Parser};
use sha2::{Digest, Sha256, Sha512};

use super::BlobView;
use crate::Api;
use crate::catalogue::{Catalogue, Upload, UploadError};
use crate::extract::Query;
use crate::limits::MEDIA_TYPE_CHARS_MAX;
use crate::problem::{Problem, ProblemKind};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct UploadParameters {
    /// The hash that the content must turn out to have.
    hash: Option<BlobHash>,
}

/// `POST /v1/blobs`: takes in content and tells its name.
pub(crate) async fn post<C: Catalogue>(
    State(api): State<Api<C>>,
    Query(parameters): Query<UploadParameters>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let limit_bytes = api.limits.upload_bytes_max;
    let size_bytes = content_length(&headers, limit_bytes)?;
    let upload = Upload {
        media_type: media_type(&headers)?,
        expected: parameters.hash,
        size_bytes,
        body: checked(body, limit_bytes, promised(&headers)?),
    };
    let put = api.catalogue.put_blob(upload).await?;
    let status = if put.created { StatusCode::CREATED } else { StatusCode::OK };
    let location = HeaderValue::try_from(format!("/v1/blobs/{}", put.info.hash)).expect("a hash is visible ASCII");
    Ok((status, [(header::LOCATION, location)], Json(BlobView::from(put.info))).into_response())
}

/// The digests that `Content-Digest` promises, as far as this version can check them.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
struct Promised {
    sha256: Option<Vec<u8>>,
    sha512: Option<Vec<u8>>,
}

/// The body, ending with an error where it grows over the limit, breaks off, or is not what was promised.
fn checked(body: Body, limit_bytes: u64, promised: Promised) -> BoxStream<'static, Result<Bytes, UploadError>> {
    let checked = async_stream::try_stream! {
        let mut data = pin!(body.into_data_stream());
        let mut sha256 = promised.sha256.as_ref().map(|_| Sha256::new());
        let mut sha512 = promised.sha512.as_ref().map(|_| Sha512::new());
        let mut seen_bytes = 0;
        while let Some(bytes) = data.next().await {
            let bytes = bytes.map_err(|_| UploadError::Interrupted)?;
            seen_bytes += bytes.len() as u64;
            if seen_bytes > limit_bytes {
                Err(UploadError::TooLarge { limit_bytes })?;
            }
            if let Some(hasher) = &mut sha256 {
                hasher.update(&bytes);
            }
            if let Some(hasher) = &mut sha512 {
                hasher.update(&bytes);
            }
            yield bytes;
        }
        let found = Promised {
            sha256: sha256.map(|hasher| hasher.finalize().to_vec()),
            sha512: sha512.map(|hasher| hasher.finalize().to_vec()),
        };
        if found != promised {
            Err(UploadError::DigestMismatch)?;
        }
    };
    checked.boxed()
}

fn content_length(headers: &HeaderMap, limit_bytes: u64) -> Result<Option<u64>, Problem> {
    // What is not a number never gets here: the HTTP parser refuses it.
    let length = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    match length {
        Some(length) if length > limit_bytes => Err(UploadError::TooLarge { limit_bytes }.into()),
        length => Ok(length),
    }
}

impl From<UploadError> for Problem {
    fn from(error: UploadError) -> Self {
        crate::catalogue::CatalogueError::from(error).into()
    }
}

fn media_type(headers: &HeaderMap) -> Result<String, Problem> {
    let Some(given) = headers.get(header::CONTENT_TYPE) else { return Ok("application/octet-stream".to_owned()) };
    let text = given.to_str().ok().filter(|text| text.len() <= MEDIA_TYPE_CHARS_MAX);
    if let Some(parsed) = text.and_then(|text| text.parse::<mime::Mime>().ok()) {
        return Ok(parsed.to_string());
    }
    let detail = format!("it must be a media type of at most {MEDIA_TYPE_CHARS_MAX} characters");
    Err(Problem::new(ProblemKind::InvalidHeader, detail).at("Content-Type"))
}

fn promised(headers: &HeaderMap) -> Result<Promised, Problem> {
    let refused = |detail: &str| Problem::new(ProblemKind::InvalidHeader, detail).at("Content-Digest");
    let Some(given) = headers.get("content-digest") else { return Ok(Promised::default()) };
    let digests: Dictionary = Parser::new(given.as_bytes())
        .parse()
        .map_err(|_| refused("it must be a dictionary of byte sequences, such as sha-256=:base64:"))?;
    let mut promised = Promised::default();
    for (algorithm, entry) in digests {
        let ListEntry::Item(item) = entry else { return Err(refused("a digest must be a byte sequence")) };
        let BareItem::ByteSequence(digest) = item.bare_item else {
            return Err(refused("a digest must be a byte sequence"));
        };
        match algorithm.as_str() {
            "sha-256" => promised.sha256 = Some(digest),
            "sha-512" => promised.sha512 = Some(digest),
            // RFC 9530, section 2: a recipient may ignore any or all digests.
            _ => {}
        }
    }
    Ok(promised)
}
