//! From hostile markup to harmless: only what text needs is left, by the allowlist of `ammonia`.
//!
//! - No script, style, form, frame or foreign element is left, and no address but those of this book and of the web.
//! - Every id is prefixed, so that a book cannot take the place of an element of the page around it.
//! - Links and pictures of a chapter lead to where this site serves them.

use std::borrow::Cow;
use std::collections::HashSet;

use alexandria_sync::id::RecordId;
use ammonia::{Builder, UrlRelative};
use html5gum::{HtmlString, Token, Tokenizer};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use quick_xml::Reader;
use quick_xml::events::{BytesStart, Event};

use super::{AT, ReadError, address};
use crate::ingest::resolve;

/// Before every id of a book.
const ID_PREFIX: &str = "x-";
/// Elements open at once. The time that a parser takes for each tag grows with it.
const DEPTH_MAX: usize = 500;
/// Elements of one page. Each takes hundreds of bytes of memory while the page is made.
const ELEMENTS_MAX: usize = 100_000;

/// What stays as it is in a path.
const PATH: &AsciiSet = &NON_ALPHANUMERIC.remove(b'/').remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// A chapter of a book: XHTML, or what passes for it, at `path` in its archive.
pub(super) fn chapter(markup: &str, media: RecordId, path: &str) -> Result<String, ReadError> {
    let html = xhtml_as_html(markup).map_or(Cow::Borrowed(markup), Cow::Owned);
    let base = path.to_owned();
    clean(&html, move |element, attribute, value| chapter_address(media, &base, element, attribute, value))
}

/// A web page or a Markdown document, which has no files of its own beside it.
pub(super) fn document(markup: &str) -> Result<String, ReadError> {
    let is_xml = markup.trim_start().starts_with("<?xml");
    let html = is_xml.then(|| xhtml_as_html(markup)).flatten().map_or(Cow::Borrowed(markup), Cow::Owned);
    clean(&html, |element, attribute, value| match (element, attribute) {
        (_, "href") if value.starts_with('#') => Some(fragment(&value[1..])),
        (_, "href") if is_absolute(value) => Some(value.to_owned()),
        _ => None,
    })
}

/// `#` and the id as it stands in cleaned markup; nothing for nothing.
pub(super) fn fragment(id: &str) -> String {
    let id = id.trim_start_matches('#');
    if id.is_empty() { String::new() } else { format!("#{ID_PREFIX}{id}") }
}

/// Where this site serves a picture of a book.
pub(super) fn picture_address(media: RecordId, path: &str) -> String {
    format!("/read/{media}/file/{}", utf8_percent_encode(path, PATH))
}

fn chapter_address(media: RecordId, base: &str, element: &str, attribute: &str, value: &str) -> Option<String> {
    match (element, attribute) {
        (_, "href") if value.starts_with('#') => Some(fragment(&value[1..])),
        (_, "href") if is_absolute(value) => Some(value.to_owned()),
        (_, "href") => {
            let (file, id) = value.split_once('#').unwrap_or((value, ""));
            Some(address(&format!("/read/{media}"), [(AT, resolve(base, file).as_str())]) + &fragment(id))
        }
        ("img", "src") if !is_absolute(value) => Some(picture_address(media, &resolve(base, value))),
        _ => None,
    }
}

/// Whether it leads out of the book. Only schemes that the allowlist lets pass come here.
fn is_absolute(address: &str) -> bool {
    address.starts_with("//")
        || address.split_once(':').is_some_and(|(scheme, _)| scheme.bytes().all(|byte| byte.is_ascii_alphanumeric()))
}

fn clean(
    html: &str,
    address_of: impl Fn(&str, &str, &str) -> Option<String> + Send + Sync + 'static,
) -> Result<String, ReadError> {
    // Which HTML has only inside foreign elements, and none of those is left. Without it, tokens are the same everywhere.
    let html = html.replace("<![CDATA[", "");
    check_elements(&html)?;
    let unseen = [
        "script", "style", "title", "head", "noscript", "template", "textarea", "select", "iframe", "object", "svg",
        "math",
    ];
    let cleaned = Builder::default()
        .clean_content_tags(HashSet::from(unseen))
        .add_generic_attributes(["dir", "id"])
        .id_prefix(Some(ID_PREFIX))
        .url_schemes(HashSet::from(["http", "https", "mailto"]))
        .url_relative(UrlRelative::PassThrough)
        .attribute_filter(move |element, attribute, value| match attribute {
            "href" | "src" | "cite" => address_of(element, attribute, value.trim()).map(Cow::Owned),
            _ => Some(Cow::Borrowed(value)),
        })
        .set_tag_attribute_value("img", "loading", "lazy")
        .clean(&html);
    Ok(cleaned.to_string())
}

/// Refuses more than [`ELEMENTS_MAX`] elements, and where more than [`DEPTH_MAX`] may be open at once. Errs on the side of
/// depth: an end tag counts only right where its element could end, so a page that closes nothing is deep.
fn check_elements(html: &str) -> Result<(), ReadError> {
    let mut count = 0;
    let mut open: Vec<HtmlString> = Vec::new();
    for token in Tokenizer::new(html) {
        count += usize::from(token.as_ref().is_ok_and(may_make_an_element));
        if count > ELEMENTS_MAX {
            return Err(ReadError::TooLarge { what: "the number of elements" });
        }
        match token {
            Ok(Token::StartTag(tag)) => {
                if !leaves_nothing_open(&tag.name) {
                    open.push(tag.name);
                }
                if open.len() > DEPTH_MAX {
                    return Err(ReadError::TooLarge { what: "the nesting" });
                }
            }
            Ok(Token::EndTag(tag)) if open.last().is_some_and(|last| *last == tag.name) => _ = open.pop(),
            _ => {}
        }
    }
    Ok(())
}

/// Also the end of a paragraph or of a line that never began.
fn may_make_an_element(token: &Token) -> bool {
    match token {
        Token::StartTag(_) => true,
        Token::EndTag(tag) => [b"p".as_slice(), b"br"].contains(&tag.name.as_slice()),
        _ => false,
    }
}

/// Elements that have no content, or that the next of their kind closes, so that many of them are not deep.
fn leaves_nothing_open(name: &[u8]) -> bool {
    const NAMES: [&str; 23] = [
        "a", "area", "base", "br", "col", "dd", "dt", "embed", "hr", "image", "img", "input", "li", "link", "meta",
        "option", "p", "param", "source", "td", "th", "tr", "wbr",
    ];
    NAMES.iter().any(|known| known.as_bytes() == name)
}

/// Rewrites XHTML so that a parser of HTML reads the same: `<a id="x"/>` is closed, CDATA is text, and a drawing that
/// only wraps a picture (as covers are) is that picture. `None` if it is no sound XML.
fn xhtml_as_html(xhtml: &str) -> Option<String> {
    let mut reader = Reader::from_str(xhtml);
    reader.config_mut().expand_empty_elements = true;
    let mut html = String::with_capacity(xhtml.len());
    let mut unseen = Unseen::default();
    loop {
        match reader.read_event().ok()? {
            Event::Start(element) => {
                let name = element.local_name().as_ref().to_ascii_lowercase();
                unseen.enter(&name);
                if name == "image" && unseen.drawing > 0 && unseen.head == 0 {
                    html.push_str(&picture_of(&element));
                } else if !unseen.is_inside() {
                    html.extend(["<", &name, element.attributes_raw(), ">"]);
                }
            }
            Event::End(element) => {
                let name = element.local_name().as_ref().to_ascii_lowercase();
                if !unseen.is_inside() && !is_void(&name) {
                    html.extend(["</", &name, ">"]);
                }
                unseen.leave(&name);
            }
            Event::Text(text) if !unseen.is_inside() => html.push_str(&text),
            Event::CData(text) if !unseen.is_inside() => html.push_str(&quick_xml::escape::escape(&*text)),
            Event::GeneralRef(reference) if !unseen.is_inside() => html.extend(["&", &reference, ";"]),
            Event::Eof => return Some(html),
            _ => {}
        }
    }
}

/// What is passed over: the head, and drawings.
#[derive(Default)]
struct Unseen {
    head: usize,
    drawing: usize,
}

impl Unseen {
    fn enter(&mut self, name: &str) {
        match name {
            "head" => self.head += 1,
            "svg" => self.drawing += 1,
            _ => {}
        }
    }

    fn leave(&mut self, name: &str) {
        match name {
            "head" => self.head = self.head.saturating_sub(1),
            "svg" => self.drawing = self.drawing.saturating_sub(1),
            _ => {}
        }
    }

    fn is_inside(&self) -> bool {
        self.head > 0 || self.drawing > 0
    }
}

fn picture_of(element: &BytesStart<'_>) -> String {
    let mut attributes = element.html_attributes();
    let mut sound = attributes.with_checks(false).filter_map(Result::ok);
    let source = sound.find(|attribute| attribute.key.local_name().as_ref() == "href");
    source.map(|source| format!("<img alt=\"\" src=\"{}\">", source.value.replace('"', "&quot;"))).unwrap_or_default()
}

fn is_void(name: &str) -> bool {
    ["area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "param", "source", "track", "wbr"]
        .contains(&name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn media() -> RecordId {
        RecordId::from_bytes([0x11; 16])
    }

    fn chapter_of(markup: &str) -> String {
        chapter(markup, media(), "OEBPS/text/one.xhtml").expect("within limits")
    }

    #[test]
    fn what_could_run_or_call_home_is_gone() {
        let hostile = r#"<html><head><title>x</title><script src="a.js"></script></head><body onload="x()">
            <p onclick="x()" style="background:url(http://evil.example)">Hello</p><script>alert(1)</script>
            <a href="javascript:alert(1)">a</a><a href=" java&#x0A;script:alert(1)">b</a><a href="data:text/html,x">c</a>
            <img src="http://evil.example/pixel.png"/><img src="x" onerror="x()"/><iframe src="/"></iframe>
            <form action="/search"><input name="q"/></form><svg onload="x()"><script>x</script></svg>
            <math><mtext><style><img src="x" onerror="y()"/></style></mtext></math><object data="x"/><base href="//evil.example/"/>
            <link rel="stylesheet" href="x.css"/><meta http-equiv="refresh" content="0;url=//evil.example"/></body></html>"#;
        for cleaned in [chapter_of(hostile), document(hostile).expect("within limits")] {
            let lower = cleaned.to_lowercase();
            for gone in [
                "script", "onload", "onclick", "onerror", "style", "evil", "data:", "<form", "<input", "<iframe",
                "svg", "math", "object", "base", "link rel", "meta",
            ] {
                assert!(!lower.contains(gone), "{gone} in {cleaned}");
            }
            assert!(cleaned.contains("Hello"));
        }
    }

    #[test]
    fn elements_closed_the_way_of_xml_do_not_swallow_the_rest() {
        let cleaned = chapter_of(
            r#"<html xmlns="http://www.w3.org/1999/xhtml"><head><title/><script src="a.js"/></head><body><a id="p1"/><p>One<br/>two &eacute; <![CDATA[<3]]></p><p>Three</p></body></html>"#,
        );
        assert_eq!(
            cleaned.trim(),
            r#"<a id="x-p1" rel="noopener noreferrer"></a><p>One<br>two é &lt;3</p><p>Three</p>"#
        );
    }

    #[test]
    fn links_and_pictures_lead_to_where_this_site_serves_them() {
        let id = media();
        let cleaned = chapter_of(
            r##"<p><a href="two.xhtml#s1">two</a><a href="#n">n</a><a href="https://example.org/">web</a>
            <img src="../img/a%20b.png" alt="A"/></p><svg><image xlink:href="../c.jpg"/></svg>"##,
        );
        for part in [
            format!("href=\"/read/{id}?at=OEBPS%2Ftext%2Ftwo.xhtml#x-s1\""),
            "href=\"#x-n\"".to_owned(),
            "href=\"https://example.org/\"".to_owned(),
            format!("src=\"/read/{id}/file/OEBPS/img/a%20b.png\""),
            format!("src=\"/read/{id}/file/OEBPS/c.jpg\""),
        ] {
            assert!(cleaned.contains(&part), "{part} in {cleaned}");
        }
    }

    #[test]
    fn markup_nested_beyond_reason_is_refused_and_much_of_it_is_quick() {
        for deep in ["<div>", "<b><i>", "<div><!--</div>-->", "<div><br x='</div>'>", "<b><button></b>", "<div></p>"] {
            assert!(document(&deep.repeat(100_000)).is_err(), "{deep}");
        }
        let started = std::time::Instant::now();
        let long = "<p>Words and <b>more</b> of them.<br><a href='#x'>x</a>".repeat(20_000);
        assert!(document(&long).is_ok());
        assert!(started.elapsed().as_secs() < 20, "{:?}", started.elapsed());
    }

    #[test]
    fn markup_of_more_elements_than_a_page_may_have_is_refused() {
        for many in ["<em>a</em>", "<br>", "</p>"] {
            assert!(check_elements(&many.repeat(ELEMENTS_MAX)).is_ok(), "{many}");
            assert!(document(&many.repeat(ELEMENTS_MAX + 1)).is_err(), "{many}");
        }
    }
}
