//! What a request for a page asks for: the language, the address and its parameters.
//!
//! The language is the one asked for by `?lang=`, else the one asked for before (a cookie), else what the browser likes
//! best, else English. Parameters that a page does not know are ignored: links are kept and passed on for years.

use std::convert::Infallible;

use axum::extract::{FromRequestParts, OriginalUri};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, header};

use super::language::Language;
use super::wording::Texts;

/// The parameter and the cookie that choose the language.
pub(super) const LANGUAGE: &str = "lang";
/// Parameters that are looked at.
const PARAMETERS_MAX: usize = 32;
/// Characters of a parameter's value that count.
const VALUE_CHARS_MAX: usize = 300;
/// Of the part of an address that is put in links.
const ADDRESS_BYTES_MAX: usize = 2_000;

/// One request for a page.
#[derive(Clone, Debug)]
pub struct Visit {
    pub(super) language: Language,
    /// The language that this request asks to go on with.
    pub(super) language_to_keep: Option<Language>,
    pub(super) path: String,
    /// What the browser has kept of the same page.
    pub(super) if_none_match: Option<HeaderValue>,
    /// Whether a person most likely looks at the answer: not at a `HEAD`, a prefetch, or a mere change of language.
    pub(super) looks: bool,
    parameters: Vec<(String, String)>,
}

impl<S: Send + Sync> FromRequestParts<S> for Visit {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Infallible> {
        let OriginalUri(uri) = OriginalUri::from_request_parts(parts, state).await?;
        Ok(Self::new(&parts.method, uri.path(), uri.query().unwrap_or_default(), &parts.headers))
    }
}

impl Visit {
    fn new(method: &Method, path: &str, query: &str, headers: &HeaderMap) -> Self {
        let parameters: Vec<(String, String)> = form_urlencoded::parse(query.as_bytes())
            .take(PARAMETERS_MAX)
            .map(|(name, value)| (name.into_owned(), value.trim().chars().take(VALUE_CHARS_MAX).collect()))
            .collect();
        let asked = parameters.iter().find(|(name, _)| name == LANGUAGE).and_then(|(_, tag)| Language::from_tag(tag));
        let accepted = || Language::accepted(text(headers, &header::ACCEPT_LANGUAGE)?);
        let is_prefetch = ["sec-purpose", "purpose", "x-moz"]
            .iter()
            .any(|name| headers.get(*name).is_some_and(|purpose| purpose.as_bytes().starts_with(b"prefetch")));
        Self {
            language: asked.or_else(|| kept_language(headers)).or_else(accepted).unwrap_or_default(),
            language_to_keep: asked,
            path: if is_linkable(path) { path.to_owned() } else { "/".to_owned() },
            if_none_match: headers.get(header::IF_NONE_MATCH).cloned(),
            looks: method == Method::GET && asked.is_none() && !is_prefetch,
            parameters,
        }
    }

    /// The words to speak to the visitor with.
    pub(super) fn texts(&self) -> &'static Texts {
        self.language.texts()
    }

    /// The value of a parameter, if it has one.
    pub(super) fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters
            .iter()
            .find(|(held, _)| held == name)
            .map(|(_, value)| value.as_str())
            .filter(|it| !it.is_empty())
    }

    /// This very address with some parameters set or, if `None`, taken away.
    pub(super) fn address_with(&self, changes: &[(&str, Option<&str>)]) -> String {
        let kept = self.parameters.iter().filter(|(name, value)| {
            !value.is_empty() && name != LANGUAGE && !changes.iter().any(|(changed, _)| changed == name)
        });
        let kept = kept.map(|(name, value)| (name.as_str(), value.as_str()));
        let set = changes.iter().filter_map(|(name, value)| Some((*name, (*value)?)));
        address(&self.path, kept.chain(set))
    }
}

/// A path with parameters.
pub(super) fn address<'a>(path: &str, parameters: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
    let query = form_urlencoded::Serializer::new(String::new()).extend_pairs(parameters).finish();
    if query.is_empty() || path.len() + query.len() > ADDRESS_BYTES_MAX * 4 {
        path.to_owned()
    } else {
        format!("{path}?{query}")
    }
}

/// Whether a link to `path` stays here: one that begins with two slashes, which may be backslashes, names another host.
fn is_linkable(path: &str) -> bool {
    path.len() <= ADDRESS_BYTES_MAX && !["//", "/\\"].iter().any(|start| path.starts_with(start))
}

fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

fn kept_language(headers: &HeaderMap) -> Option<Language> {
    let cookies = text(headers, &header::COOKIE)?;
    cookies.split(';').find_map(|cookie| Language::from_tag(cookie.trim().strip_prefix(LANGUAGE)?.strip_prefix('=')?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn visit(query: &str, headers: &[(HeaderName, &'static str)]) -> Visit {
        let headers = headers.iter().map(|(name, value)| (name.clone(), HeaderValue::from_static(value))).collect();
        Visit::new(&Method::GET, "/browse", query, &headers)
    }

    #[test]
    fn the_address_beats_the_cookie_and_the_cookie_beats_the_browser() {
        let browser = (header::ACCEPT_LANGUAGE, "fr");
        let cookie = (header::COOKIE, "a=b; lang=es; c=d");
        assert_eq!(visit("", &[]).language, Language::English);
        assert_eq!(visit("", std::slice::from_ref(&browser)).language, Language::French);
        assert_eq!(visit("", &[browser.clone(), cookie.clone()]).language, Language::Spanish);
        assert_eq!(visit("lang=ar", &[browser.clone(), cookie]).language, Language::Arabic);
        assert_eq!(visit("lang=tlh", &[browser]).language, Language::French);
    }

    #[test]
    fn an_address_keeps_what_is_not_changed() {
        let visit = visit("q=caf%C3%A9+%26&kind=book&lang=ar&empty=", &[]);
        assert_eq!(visit.address_with(&[]), "/browse?q=caf%C3%A9+%26&kind=book");
        assert_eq!(visit.address_with(&[("kind", None), ("lang", Some("fr"))]), "/browse?q=caf%C3%A9+%26&lang=fr");
    }

    #[test]
    fn an_address_never_leads_to_another_host() {
        for path in ["//evil.example/x", "/\\evil.example/x", &format!("/{}", "x".repeat(ADDRESS_BYTES_MAX))] {
            let visit = Visit::new(&Method::GET, path, "", &HeaderMap::new());
            assert_eq!(visit.address_with(&[("lang", Some("fr"))]), "/?lang=fr", "{path}");
        }
    }

    #[test]
    fn changing_the_language_is_not_looking_again() {
        assert!(visit("", &[]).looks);
        assert!(!visit("lang=fr", &[]).looks);
        assert!(!visit("", &[(HeaderName::from_static("sec-purpose"), "prefetch;prerender")]).looks);
    }
}
