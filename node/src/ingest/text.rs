//! Plain text, Markdown and web pages: title, people and headings from the beginning of the file.
//!
//! The encoding is guessed when it is not declared; a file in any encoding is taken, since its bytes are what is served.

use std::{collections::BTreeMap, io::Read};

use html5gum::{HtmlString, Token, Tokenizer};
use pulldown_cmark::{Event, HeadingLevel, Options, Parser, Tag, TagEnd};

use super::{Chapter, ChapterStart, Inspection, MediaKind, Source, refusal::Refusal, sniff::Format, wording};

pub(super) fn inspect(source: Source<'_>, format: Format) -> Result<Inspection, Refusal> {
    let mime = match format {
        Format::Markdown => "text/markdown",
        Format::Html => "text/html",
        _ => "text/plain",
    };
    let mut inspection = Inspection::bare(MediaKind::Doc, mime, source.size_bytes);
    let mut head = Vec::new();
    source.file.take(source.limits.text_searched_bytes_max).read_to_end(&mut head).map_err(Refusal::Io)?;
    let text = decode(&head);
    match format {
        Format::Markdown => markdown(&text, &mut inspection),
        Format::Html => html(&text, source.limits.chapters_max, &mut inspection),
        // The first line of a plain text is as often a licence or a file path as it is a title.
        _ => {}
    }
    Ok(inspection)
}

fn decode(bytes: &[u8]) -> String {
    if let Some((encoding, mark_bytes)) = encoding_rs::Encoding::for_bom(bytes) {
        return encoding.decode_without_bom_handling(bytes.get(mark_bytes..).unwrap_or_default()).0.into_owned();
    }
    let mut detector = chardetng::EncodingDetector::new(chardetng::Iso2022JpDetection::Deny);
    detector.feed(bytes, true);
    detector.guess(None, chardetng::Utf8Detection::Allow).decode_without_bom_handling(bytes).0.into_owned()
}

/// The `title:`, `author:`, `lang:` of a front matter, or else the first heading.
fn markdown(text: &str, inspection: &mut Inspection) {
    let options = Options::ENABLE_YAML_STYLE_METADATA_BLOCKS | Options::ENABLE_PLUSES_DELIMITED_METADATA_BLOCKS;
    let mut in_metadata = false;
    let mut heading: Option<String> = None;
    for event in Parser::new_ext(text, options) {
        match event {
            Event::Start(Tag::MetadataBlock(_)) => in_metadata = true,
            Event::End(TagEnd::MetadataBlock(_)) => in_metadata = false,
            Event::Text(block) if in_metadata => front_matter(&block, inspection),
            Event::Start(Tag::Heading { level: HeadingLevel::H1 | HeadingLevel::H2, .. }) => {
                heading = Some(String::new());
            }
            Event::End(TagEnd::Heading(_)) => break,
            Event::Text(part) | Event::Code(part) => {
                if let Some(heading) = &mut heading {
                    heading.push_str(&part);
                }
            }
            _ => {}
        }
    }
    if inspection.title.is_empty() {
        inspection.title = heading.and_then(|heading| wording::line(&heading)).unwrap_or_default();
    }
}

fn front_matter(block: &str, inspection: &mut Inspection) {
    for line in block.lines() {
        let Some((key, value)) = line.split_once([':', '=']) else { continue };
        let value = value.trim().trim_matches(['"', '\'']);
        match key.trim().to_ascii_lowercase().as_str() {
            "title" => inspection.title = wording::line(value).unwrap_or_default(),
            "author" => inspection.add_author(value),
            "lang" | "language" => inspection.add_language(value),
            "date" => inspection.published = wording::date(value),
            "description" | "summary" => inspection.description = wording::description(value),
            _ => {}
        }
    }
}

/// `<title>`, `<meta>`, the page's language, and the headings that have an id to jump to.
fn html(text: &str, chapters_max: usize, inspection: &mut Inspection) {
    /// Of the text inside one heading or title.
    const CAPTURED_BYTES_MAX: usize = 4096;
    enum Capturing {
        Title,
        Heading { id: Option<String> },
    }
    let mut capturing: Option<(Capturing, String)> = None;
    let mut first_heading = None;
    for Ok(token) in Tokenizer::new(text) {
        match token {
            Token::StartTag(tag) => {
                let attributes = Attributes(&tag.attributes);
                match tag.name.as_slice() {
                    b"html" => {
                        attributes.value("lang").into_iter().for_each(|lang| inspection.add_language(&lang));
                    }
                    b"meta" => meta(&attributes, inspection),
                    b"title" if inspection.title.is_empty() => capturing = Some((Capturing::Title, String::new())),
                    b"h1" | b"h2" => {
                        capturing = Some((Capturing::Heading { id: attributes.value("id") }, String::new()));
                    }
                    _ => {}
                }
            }
            Token::String(part) => {
                if let Some((_, captured)) = &mut capturing
                    && captured.len() < CAPTURED_BYTES_MAX
                {
                    captured.push_str(&String::from_utf8_lossy(&part.value));
                }
            }
            Token::EndTag(tag) if matches!(tag.name.as_slice(), b"title" | b"h1" | b"h2") => {
                let Some((what, captured)) = capturing.take() else { continue };
                let Some(title) = wording::line(&captured) else { continue };
                match what {
                    Capturing::Title => inspection.title = title,
                    Capturing::Heading { id } => {
                        first_heading.get_or_insert_with(|| title.clone());
                        if let Some(id) = id
                            && inspection.chapters.len() < chapters_max
                        {
                            inspection.chapters.push(Chapter { title, start: ChapterStart::Href(format!("#{id}")) });
                        }
                    }
                }
            }
            _ => {}
        }
    }
    if inspection.title.is_empty() {
        inspection.title = first_heading.unwrap_or_default();
    }
}

fn meta(attributes: &Attributes<'_>, inspection: &mut Inspection) {
    let Some(content) = attributes.value("content") else { return };
    let Some(name) = attributes.value("name") else { return };
    match name.to_ascii_lowercase().as_str() {
        "author" | "dc.creator" | "dcterms.creator" => inspection.add_author(&content),
        "description" | "dc.description" => inspection.description = wording::description(&content),
        "dc.language" => inspection.add_language(&content),
        "dc.publisher" => inspection.publisher = wording::line(&content),
        "date" | "dc.date" | "dcterms.date" => inspection.published = wording::date(&content),
        _ => {}
    }
}

struct Attributes<'a>(&'a BTreeMap<HtmlString, html5gum::Spanned<HtmlString, ()>>);

impl Attributes<'_> {
    fn value(&self, name: &str) -> Option<String> {
        let value = self.0.get(name.as_bytes())?;
        Some(String::from_utf8_lossy(&value.value).into_owned())
    }
}
