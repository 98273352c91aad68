//! The XML documents inside archives, as a flat stream of elements and their text.
//!
//! quick-xml expands no entities, and neither does this. A document that defines some is refused, because the
//! readers it will be served to may not be so careful. Nesting is counted, never recursed into.

use std::borrow::Cow;

use quick_xml::{
    Reader,
    events::{BytesStart, Event},
};

use super::refusal::Refusal;

const DEPTH_MAX: usize = 256;
/// Of the text kept for one element; the rest is dropped.
const TEXT_BYTES_MAX: usize = 64 * 1024;

/// One thing seen. Names are local: prefixes are dropped, since books get them wrong.
pub(super) enum Seen<'a> {
    /// With the text between the tag before and this one.
    Start { before: &'a str, name: &'a str, attributes: &'a [(String, String)] },
    /// With the text between the tag before and this one: all of it, for an element without children.
    End { name: &'a str, text: &'a str },
}

/// Walks `bytes` as XML, telling `visit` of every element in document order. Broken XML is read as far as it goes,
/// as every book reader does; `visit` decides whether that was enough.
pub(super) fn walk(document: &'static str, bytes: &[u8], mut visit: impl FnMut(Seen<'_>)) -> Result<(), Refusal> {
    let text = decode(bytes);
    let mut reader = Reader::from_str(&text);
    let config = reader.config_mut();
    config.check_end_names = false;
    config.allow_unmatched_ends = true;
    config.expand_empty_elements = true;
    let mut depth = 0_usize;
    let mut gathered = String::new();
    loop {
        match reader.read_event() {
            Ok(Event::Start(start)) => {
                depth += 1;
                if depth > DEPTH_MAX {
                    return Err(Refusal::damaged(document, TooDeep));
                }
                let attributes = attributes(&start);
                visit(Seen::Start { before: &gathered, name: start.local_name().as_ref(), attributes: &attributes });
                gathered.clear();
            }
            Ok(Event::End(end)) => {
                depth = depth.saturating_sub(1);
                visit(Seen::End { name: end.local_name().as_ref(), text: &gathered });
                gathered.clear();
            }
            Ok(Event::Text(part)) => gather(&mut gathered, &part),
            Ok(Event::CData(part)) => gather(&mut gathered, &part),
            Ok(Event::GeneralRef(reference)) => {
                if let Ok(Some(letter)) = reference.resolve_char_ref() {
                    gather(&mut gathered, letter.encode_utf8(&mut [0; 4]));
                } else {
                    gather(&mut gathered, entity(&reference));
                }
            }
            Ok(Event::DocType(doctype)) if doctype.contains("<!ENTITY") => {
                return Err(Refusal::EntityDeclarations { document });
            }
            Ok(Event::Eof) | Err(_) => return Ok(()),
            Ok(_) => {}
        }
    }
}

/// The value of an attribute by its local name.
pub(super) fn attribute<'a>(attributes: &'a [(String, String)], name: &str) -> Option<&'a str> {
    attributes.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
}

#[derive(Debug, thiserror::Error)]
#[error("elements are nested more than {DEPTH_MAX} deep")]
struct TooDeep;

fn gather(gathered: &mut String, part: &str) {
    if gathered.len() + part.len() <= TEXT_BYTES_MAX {
        gathered.push_str(part);
    }
}

fn attributes(start: &BytesStart<'_>) -> Vec<(String, String)> {
    /// No element of these documents has more than a dozen.
    const ATTRIBUTES_MAX: usize = 64;
    start
        .html_attributes()
        .with_checks(false)
        .take(ATTRIBUTES_MAX)
        .filter_map(Result::ok)
        .map(|attribute| {
            let value = quick_xml::escape::unescape(&attribute.value)
                .map_or_else(|_| attribute.value.clone().into_owned(), Cow::into_owned);
            (attribute.key.local_name().as_ref().to_owned(), value)
        })
        .collect()
}

/// The predefined entities, and the one HTML entity that is everywhere. Any other was never defined.
fn entity(name: &str) -> &'static str {
    match name {
        "amp" => "&",
        "lt" => "<",
        "gt" => ">",
        "quot" => "\"",
        "apos" => "'",
        "nbsp" => " ",
        _ => "",
    }
}

/// UTF-16 by its mark, else the declared encoding, else UTF-8; bad sequences become U+FFFD.
fn decode(bytes: &[u8]) -> Cow<'_, str> {
    const DECLARATION_WITHIN: usize = 128;
    if let Some((encoding, mark_bytes)) = encoding_rs::Encoding::for_bom(bytes) {
        return encoding.decode_without_bom_handling(bytes.get(mark_bytes..).unwrap_or_default()).0;
    }
    let declaration = String::from_utf8_lossy(&bytes[..bytes.len().min(DECLARATION_WITHIN)]);
    let declared = declaration
        .split_once("encoding=")
        .and_then(|(_, rest)| rest.get(1..)?.split(['"', '\'']).next())
        .and_then(|label| encoding_rs::Encoding::for_label(label.as_bytes()));
    declared.unwrap_or(encoding_rs::UTF_8).decode_without_bom_handling(bytes).0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ends(xml: &[u8]) -> Result<Vec<(String, String)>, Refusal> {
        let mut out = Vec::new();
        walk("document", xml, |seen| {
            if let Seen::End { name, text } = seen {
                out.push((name.to_owned(), text.to_owned()));
            }
        })?;
        Ok(out)
    }

    #[test]
    fn text_is_gathered_across_references_and_cdata() {
        let seen = ends(b"<a><dc:b>x &amp; &#233;<![CDATA[<y>]]>&nbsp;&undefined;z</dc:b></a>").expect("sound XML");
        assert_eq!(seen[0], ("b".to_owned(), "x & é<y> z".to_owned()));
    }

    #[test]
    fn a_document_with_its_own_entities_is_refused() {
        let laughs = br#"<!DOCTYPE a [<!ENTITY l "lol"><!ENTITY m "&l;&l;&l;&l;">]><a>&m;</a>"#;
        assert!(matches!(ends(laughs), Err(Refusal::EntityDeclarations { document: "document" })));
    }

    #[test]
    fn nesting_is_bounded() {
        assert!(matches!(ends("<a>".repeat(100_000).as_bytes()), Err(Refusal::Damaged { .. })));
    }

    #[test]
    fn declared_and_marked_encodings_are_honoured() {
        let latin = b"<?xml version=\"1.0\" encoding=\"iso-8859-1\"?><a>\xE9t\xE9</a>";
        assert_eq!(ends(latin).expect("latin"), [("a".to_owned(), "été".to_owned())]);
        let mut utf16 = vec![0xFF, 0xFE];
        utf16.extend("<a>é</a>".encode_utf16().flat_map(u16::to_le_bytes));
        assert_eq!(ends(&utf16).expect("utf-16"), [("a".to_owned(), "é".to_owned())]);
    }
}
