//! Lists: their parameters, their pages and their page tokens.
//!
//! A page token is the place of the last entry shown, with a fingerprint of the list that it belongs to, so that it cannot
//! be used on another list by mistake. It is opaque to clients, and holds nothing secret.

use alexandria_sync::id::{BucketId, RecordId};
use axum::Json;
use axum::extract::State;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{Resource, View};
use crate::Api;
use crate::catalogue::{Catalogue, LinkedTo, ListQuery, OrderBy, Place, Sort};
use crate::extract::Query;
use crate::limits::{PAGE_SIZE_DEFAULT, PAGE_SIZE_MAX, QUERY_CHARS_MAX};
use crate::problem::{Problem, ProblemKind};

/// Hexadecimal digits of a page token.
pub(crate) const PAGE_TOKEN_DIGITS: usize = 2 * PAGE_TOKEN_BYTES;
/// The fingerprint, the key and the id.
const PAGE_TOKEN_BYTES: usize = FINGERPRINT_BYTES + 8 + 16;
const FINGERPRINT_BYTES: usize = 4;

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct ListParameters {
    page_size: Option<u64>,
    page_token: Option<String>,
    query: Option<String>,
    filter_by: OrderBy,
    sort: Sort,
    pub(crate) show_disabled: bool,
    /// Of the media only.
    collection: Option<RecordId>,
}

/// What a list is confined to by its path.
#[derive(Clone, Copy, Default)]
pub(crate) struct Confines {
    pub(crate) bucket: Option<BucketId>,
    pub(crate) linked_to: Option<LinkedTo>,
}

/// One page of a list.
#[derive(Serialize)]
pub(crate) struct Page<T> {
    items: Vec<T>,
    /// Where the next page starts; absent on the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_page_token: Option<String>,
}

impl<T: Serialize> Page<T> {
    /// A page that is followed by the one that starts at the token.
    pub(crate) fn new(items: Vec<T>, next_page_token: Option<String>) -> Self {
        Self { items, next_page_token }
    }

    /// As an answer.
    pub(crate) fn into_answer(self) -> Response {
        ([(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"))], Json(self)).into_response()
    }
}

/// `GET /v1/{kind}`: one page of all records of a kind.
pub(crate) async fn list<R: Resource, C: Catalogue>(
    State(api): State<Api<C>>,
    Query(parameters): Query<ListParameters>,
) -> Result<Response, Problem> {
    page::<R, C>(&api.catalogue, parameters, Confines::default()).await
}

/// One page of the records of a kind within `confines`.
pub(crate) async fn page<R: Resource, C: Catalogue>(
    catalogue: &C,
    parameters: ListParameters,
    confines: Confines,
) -> Result<Response, Problem> {
    let (query, fingerprint) = parse::<R>(parameters, confines)?;
    let order_by = query.order_by;
    let listing = catalogue.list(query).await?;
    let last = listing.items.last().filter(|_| listing.more);
    let next = last.map(|last| encode_token(fingerprint, last.place(order_by)));
    let items = View::<R>::listed(catalogue, &listing.items).await?;
    Ok(Page::new(items, next).into_answer())
}

/// The entries of a page, or the problem that there cannot be so many.
pub(crate) fn page_size(asked: Option<u64>) -> Result<usize, Problem> {
    match asked {
        None => Ok(PAGE_SIZE_DEFAULT),
        Some(size) if (1..=PAGE_SIZE_MAX as u64).contains(&size) => Ok(size as usize),
        Some(size) => {
            let detail = format!("it is {size}; between 1 and {PAGE_SIZE_MAX} are allowed");
            Err(Problem::new(ProblemKind::InvalidQuery, detail).at("page_size"))
        }
    }
}

fn parse<R: Resource>(
    parameters: ListParameters,
    confines: Confines,
) -> Result<(ListQuery, [u8; FINGERPRINT_BYTES]), Problem> {
    if parameters.collection.is_some() && (confines.bucket.is_some() || !R::IN_COLLECTION) {
        let detail = "unknown parameter: this list does not reach across collections";
        return Err(Problem::new(ProblemKind::InvalidQuery, detail).at("collection"));
    }
    let text = match parameters.query {
        Some(text) if text.chars().count() > QUERY_CHARS_MAX => {
            let detail = format!("it has more than {QUERY_CHARS_MAX} characters");
            return Err(Problem::new(ProblemKind::InvalidQuery, detail).at("query"));
        }
        // A search form that was sent empty asks for everything.
        text => text.map(|text| text.trim().to_owned()).filter(|text| !text.is_empty()),
    };
    let mut query = ListQuery {
        kind: R::KIND,
        page_size: page_size(parameters.page_size)?,
        after: None,
        text,
        order_by: parameters.filter_by,
        sort: parameters.sort,
        show_disabled: parameters.show_disabled,
        bucket: confines.bucket.or(parameters.collection.map(BucketId::Collection)),
        linked_to: confines.linked_to,
    };
    let fingerprint = fingerprint(&query);
    query.after = parameters.page_token.map(|token| decode_token(fingerprint, &token)).transpose()?;
    Ok((query, fingerprint))
}

/// The same for every page of one list, on every replica.
fn fingerprint(query: &ListQuery) -> [u8; FINGERPRINT_BYTES] {
    let ListQuery { kind, page_size: _, after: _, text, order_by, sort, show_disabled, bucket, linked_to } = query;
    let described = format!("{kind:?} {text:?} {order_by:?} {sort:?} {show_disabled} {bucket:?} {linked_to:?}");
    let mut fingerprint = [0; FINGERPRINT_BYTES];
    fingerprint.copy_from_slice(&Sha256::digest(described)[..FINGERPRINT_BYTES]);
    fingerprint
}

fn encode_token(fingerprint: [u8; FINGERPRINT_BYTES], place: Place) -> String {
    let mut bytes = [0; PAGE_TOKEN_BYTES];
    bytes[..FINGERPRINT_BYTES].copy_from_slice(&fingerprint);
    bytes[FINGERPRINT_BYTES..][..8].copy_from_slice(&place.key.to_be_bytes());
    bytes[FINGERPRINT_BYTES + 8..].copy_from_slice(place.id.as_bytes());
    hex::encode(bytes)
}

fn decode_token(fingerprint: [u8; FINGERPRINT_BYTES], token: &str) -> Result<Place, Problem> {
    let mut bytes = [0; PAGE_TOKEN_BYTES];
    if hex::decode_to_slice(token, &mut bytes).is_err() {
        let detail = "it must be a next_page_token, unchanged";
        return Err(Problem::new(ProblemKind::InvalidQuery, detail).at("page_token"));
    }
    if bytes[..FINGERPRINT_BYTES] != fingerprint {
        let detail = "it belongs to a list with other parameters; start again without it";
        return Err(Problem::new(ProblemKind::TokenExpired, detail).at("page_token"));
    }
    let mut key = [0; 8];
    key.copy_from_slice(&bytes[FINGERPRINT_BYTES..][..8]);
    let mut id = [0; 16];
    id.copy_from_slice(&bytes[FINGERPRINT_BYTES + 8..]);
    // Places stay below 2^63, so that a store whose integers are signed can hold them.
    Ok(Place { key: u64::from_be_bytes(key) & (u64::MAX >> 1), id: RecordId::from_bytes(id) })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_page_token_names_its_place(fingerprint: [u8; 4], key in 0..u64::MAX >> 1, id: [u8; 16]) {
            let place = Place { key, id: RecordId::from_bytes(id) };
            let token = encode_token(fingerprint, place);
            prop_assert_eq!(token.len(), PAGE_TOKEN_DIGITS);
            prop_assert_eq!(decode_token(fingerprint, &token).unwrap(), place);
        }

        #[test]
        fn no_text_makes_decoding_a_token_panic(token in ".{0,80}") {
            let _ = decode_token([0; 4], &token);
        }
    }

    #[test]
    fn a_token_of_another_list_is_refused() {
        let token = encode_token([1; 4], Place { key: 0, id: RecordId::default() });
        assert_eq!(decode_token([2; 4], &token).unwrap_err().kind(), ProblemKind::TokenExpired);
    }
}
