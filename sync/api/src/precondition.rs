//! Conditional requests (RFC 9110, section 13): `If-Match` and `If-None-Match` against one strong entity tag.
//!
//! A header that is not a list of entity tags is refused, not ignored: a client that means to protect an edit must not
//! make it unprotected by a slip. An empty list is one that names no version.

use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, header};

use crate::catalogue::Version;
use crate::limits::ENTITY_TAGS_MAX;
use crate::problem::{Problem, ProblemKind};

/// A strong entity tag: the text between the quotes.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct ETag(String);

impl ETag {
    /// The tag with this text, which has neither quotes nor spaces.
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// As a header.
    pub(crate) fn to_header(&self) -> HeaderValue {
        HeaderValue::try_from(format!("\"{}\"", self.0)).expect("a tag is made of hexadecimal digits")
    }

    /// Whether the header's value is exactly this tag, as `If-Range` demands.
    pub(crate) fn is(&self, value: &HeaderValue) -> bool {
        *value == self.to_header()
    }
}

impl From<Version> for ETag {
    fn from(version: Version) -> Self {
        Self(hex::encode(version.as_bytes()))
    }
}

/// What the request makes its effect depend on.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Preconditions {
    if_match: Option<Tags>,
    if_none_match: Option<Tags>,
}

/// What becomes of a request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Verdict {
    /// Go on.
    Proceed,
    /// Answer 304: the client has it already.
    NotModified,
}

#[derive(Clone, Debug, Eq, PartialEq)]
enum Tags {
    Any,
    /// Each with whether it is weak.
    Listed(Vec<(bool, String)>),
}

impl Preconditions {
    /// Reads them from the headers.
    pub(crate) fn of(headers: &HeaderMap) -> Result<Self, Problem> {
        Ok(Self { if_match: tags(headers, &header::IF_MATCH)?, if_none_match: tags(headers, &header::IF_NONE_MATCH)? })
    }

    /// Holds them against what is there now, in the order of RFC 9110, section 13.2.2.
    pub(crate) fn check(&self, method: &Method, current: &ETag) -> Result<Verdict, Problem> {
        let stale = || {
            let detail = format!("it is at \"{}\" now", current.0);
            Problem::new(ProblemKind::Stale, detail).with_header(header::ETAG, current.to_header())
        };
        if let Some(Tags::Listed(tags)) = &self.if_match
            && !tags.iter().any(|(weak, tag)| !weak && *tag == current.0)
        {
            return Err(stale());
        }
        let known = match &self.if_none_match {
            None => false,
            Some(Tags::Any) => true,
            Some(Tags::Listed(tags)) => tags.iter().any(|(_, tag)| *tag == current.0),
        };
        match (known, method == Method::GET || method == Method::HEAD) {
            (false, _) => Ok(Verdict::Proceed),
            (true, true) => Ok(Verdict::NotModified),
            (true, false) => Err(stale()),
        }
    }
}

fn tags(headers: &HeaderMap, name: &HeaderName) -> Result<Option<Tags>, Problem> {
    let refused = || {
        let detail = format!("it must be * or a list of at most {ENTITY_TAGS_MAX} entity tags such as \"0a1b\"");
        Problem::new(ProblemKind::InvalidHeader, detail).at(name.as_str())
    };
    let mut listed = Vec::new();
    let mut given = false;
    for value in headers.get_all(name) {
        given = true;
        let mut rest = value.to_str().map_err(|_| refused())?.trim();
        if rest == "*" {
            return Ok(Some(Tags::Any));
        }
        while !rest.is_empty() {
            let weak = rest.starts_with("W/");
            let opened = rest.strip_prefix("W/").unwrap_or(rest).strip_prefix('"').ok_or_else(refused)?;
            let (tag, after) = opened.split_once('"').ok_or_else(refused)?;
            listed.push((weak, tag.to_owned()));
            let after = after.trim_start();
            rest = match after.strip_prefix(',') {
                Some(next) => next.trim_start(),
                None if after.is_empty() => after,
                None => return Err(refused()),
            };
        }
    }
    if listed.len() > ENTITY_TAGS_MAX {
        return Err(refused());
    }
    Ok(given.then_some(Tags::Listed(listed)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: HeaderName, value: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(name, HeaderValue::from_static(value))])
    }

    fn verdict(method: &Method, name: HeaderName, value: &'static str) -> Result<Verdict, ProblemKind> {
        Preconditions::of(&headers(name, value))
            .and_then(|preconditions| preconditions.check(method, &ETag::new("ab")))
            .map_err(|problem| problem.kind())
    }

    #[test]
    fn if_match_needs_the_strong_tag_of_what_is_there() {
        for passes in ["\"ab\"", "\"x\", \"ab\"", "*", "\"ab\" , W/\"y\""] {
            assert_eq!(verdict(&Method::PUT, header::IF_MATCH, passes), Ok(Verdict::Proceed), "{passes}");
        }
        for fails in ["\"x\"", "W/\"ab\"", "\"abc\"", ""] {
            assert_eq!(verdict(&Method::PUT, header::IF_MATCH, fails), Err(ProblemKind::Stale), "{fails}");
        }
    }

    #[test]
    fn if_none_match_saves_a_read_and_stops_a_write() {
        assert_eq!(verdict(&Method::GET, header::IF_NONE_MATCH, "W/\"ab\""), Ok(Verdict::NotModified));
        assert_eq!(verdict(&Method::GET, header::IF_NONE_MATCH, "\"x\""), Ok(Verdict::Proceed));
        assert_eq!(verdict(&Method::PUT, header::IF_NONE_MATCH, "*"), Err(ProblemKind::Stale));
    }

    #[test]
    fn what_is_not_a_list_of_tags_is_refused() {
        for wrong in ["ab", "\"ab", "\"ab\" \"x\"", "\"ab\";"] {
            assert_eq!(verdict(&Method::PUT, header::IF_MATCH, wrong), Err(ProblemKind::InvalidHeader), "{wrong}");
        }
    }
}
