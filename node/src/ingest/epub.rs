//! EPUB 2 and 3: the container names a package, the package describes the book.
//!
//! Not here: the table of contents (`contents`), the archive's safety (`archive`).

mod contents;

use std::collections::HashMap;

use percent_encoding::percent_decode_str;

use super::{
    Cover, Inspection, MediaKind,
    archive::Archive,
    refusal::Refusal,
    sniff::Format,
    wording,
    xml::{self, Seen, attribute},
};

/// Where every EPUB says which package it holds.
pub(super) const CONTAINER: &str = "META-INF/container.xml";

/// Marks of Adobe's, Apple's and Readium's copy protection: such a book opens for one person on one device.
const LOCKS: [&str; 3] = ["META-INF/rights.xml", "META-INF/sinf.xml", "META-INF/license.lcpl"];

pub(super) fn inspect(archive: &mut Archive<'_>, size_bytes: u64) -> Result<Inspection, Refusal> {
    if LOCKS.iter().any(|lock| archive.holds(lock)) {
        return Err(Refusal::Locked);
    }
    let limits = archive.limits();
    let package_path = package_path(archive)?;
    let package_bytes =
        archive.read(&package_path, "package document", limits.xml_bytes_max)?.ok_or(incomplete("its package"))?;
    let package = Package::parse(&package_bytes)?;
    if package.spine.is_empty() {
        return Err(incomplete("any text in its reading order"));
    }

    let mut inspection = Inspection::bare(MediaKind::Book, "application/epub+zip", size_bytes);
    inspection.title = package.title().unwrap_or_default();
    package.authors().for_each(|author| inspection.add_author(author));
    package.languages.iter().for_each(|tag| inspection.add_language(tag));
    inspection.description = package.description.as_deref().and_then(wording::description);
    inspection.publisher = package.publisher.as_deref().and_then(wording::line);
    inspection.published = package.date.as_deref().and_then(wording::date);
    inspection.chapters = contents::read(archive, &package, &package_path)?;
    if let Some(item) = package.cover() {
        let path = resolve(&package_path, &item.href);
        // A cover that is too large or missing is left out; the book is still a book.
        if let Ok(Some(bytes)) = archive.read(&path, "cover", limits.cover_bytes_max) {
            inspection.cover = Cover::accept(bytes, limits);
        }
    }
    Ok(inspection)
}

fn package_path(archive: &mut Archive<'_>) -> Result<String, Refusal> {
    let bytes_max = archive.limits().xml_bytes_max;
    let container = archive.read(CONTAINER, "container", bytes_max)?.ok_or(incomplete("its container"))?;
    let mut path = None;
    xml::walk("container", &container, |seen| {
        if let Seen::Start { name: "rootfile", attributes, .. } = seen
            && path.is_none()
        {
            path = attribute(attributes, "full-path").map(str::to_owned);
        }
    })?;
    path.ok_or(incomplete("a package in its container"))
}

fn incomplete(part: &'static str) -> Refusal {
    Refusal::Incomplete { format: Format::Epub.name(), part }
}

/// One file that the package lists.
struct Item {
    id: String,
    href: String,
    media_type: String,
    properties: String,
}

struct Creator {
    id: Option<String>,
    role: Option<String>,
    name: String,
}

#[derive(Default)]
struct Package {
    titles: Vec<(Option<String>, String)>,
    creators: Vec<Creator>,
    languages: Vec<String>,
    description: Option<String>,
    publisher: Option<String>,
    date: Option<String>,
    /// EPUB 3 says more about an element by pointing at its id: (id, property) to value.
    refinements: HashMap<(String, String), String>,
    /// EPUB 2's way of naming the cover's item.
    cover_id: Option<String>,
    items: Vec<Item>,
    /// The ids of the items in reading order.
    spine: Vec<String>,
    /// The item that holds EPUB 2's table of contents.
    toc_id: Option<String>,
}

impl Package {
    fn parse(bytes: &[u8]) -> Result<Self, Refusal> {
        /// Of everything that repeats; real books stay in the thousands.
        const REPEATS_MAX: usize = 50_000;
        let mut package = Self::default();
        let mut opened: Vec<(String, String)> = Vec::new();
        xml::walk("package document", bytes, |seen| match seen {
            Seen::Start { name, attributes, .. } => {
                opened = attributes.to_vec();
                package.start(name, attributes, REPEATS_MAX);
            }
            Seen::End { name, text } => package.end(name, text, &std::mem::take(&mut opened), REPEATS_MAX),
        })?;
        Ok(package)
    }

    fn start(&mut self, name: &str, attributes: &[(String, String)], repeats_max: usize) {
        let value = |key| attribute(attributes, key).map(str::to_owned);
        match name {
            "item" if self.items.len() < repeats_max => {
                if let (Some(id), Some(href)) = (value("id"), value("href")) {
                    self.items.push(Item {
                        id,
                        href,
                        media_type: value("media-type").unwrap_or_default(),
                        properties: value("properties").unwrap_or_default(),
                    });
                }
            }
            "spine" => self.toc_id = value("toc"),
            "itemref" if self.spine.len() < repeats_max => self.spine.extend(value("idref")),
            "meta" if value("name").as_deref() == Some("cover") => self.cover_id = value("content"),
            _ => {}
        }
    }

    fn end(&mut self, name: &str, text: &str, attributes: &[(String, String)], repeats_max: usize) {
        let value = |key| attribute(attributes, key).map(str::to_owned);
        let text = text.trim();
        if text.is_empty() {
            return;
        }
        match name {
            "title" if self.titles.len() < repeats_max => self.titles.push((value("id"), text.to_owned())),
            "creator" if self.creators.len() < repeats_max => {
                self.creators.push(Creator { id: value("id"), role: value("role"), name: text.to_owned() });
            }
            "language" if self.languages.len() < repeats_max => self.languages.push(text.to_owned()),
            "description" => _ = self.description.get_or_insert_with(|| text.to_owned()),
            "publisher" => _ = self.publisher.get_or_insert_with(|| text.to_owned()),
            // EPUB 2 may give several dates; the publication's is the one meant.
            "date" if self.date.is_none() || value("event").as_deref() == Some("publication") => {
                self.date = Some(text.to_owned());
            }
            "meta" if self.refinements.len() < repeats_max => {
                if let (Some(refined), Some(property)) = (value("refines"), value("property")) {
                    let id = refined.trim_start_matches('#').to_owned();
                    self.refinements.insert((id, property), text.to_owned());
                }
            }
            _ => {}
        }
    }

    fn refinement(&self, id: Option<&String>, property: &str) -> Option<&str> {
        self.refinements.get(&(id?.clone(), property.to_owned())).map(String::as_str)
    }

    /// The title marked as the main one, or the first, with the subtitle if one is marked.
    fn title(&self) -> Option<String> {
        let of_type = |wanted: &str| {
            self.titles.iter().find(|(id, _)| self.refinement(id.as_ref(), "title-type") == Some(wanted))
        };
        let (_, main) = of_type("main").or(self.titles.first())?;
        let title = match of_type("subtitle") {
            Some((_, subtitle)) if subtitle != main => format!("{main}: {subtitle}"),
            _ => main.clone(),
        };
        wording::line(&title)
    }

    /// Those who wrote it; if nobody is marked as its author, everybody named.
    fn authors(&self) -> impl Iterator<Item = &str> {
        let role = |creator: &Creator| {
            creator.role.clone().or_else(|| self.refinement(creator.id.as_ref(), "role").map(str::to_owned))
        };
        let is_author = move |creator: &&Creator| role(creator).is_none_or(|role| role == "aut");
        let anybody = !self.creators.iter().any(|creator| is_author(&creator));
        self.creators.iter().filter(move |creator| anybody || is_author(creator)).map(|it| it.name.as_str())
    }

    fn item(&self, id: &str) -> Option<&Item> {
        self.items.iter().find(|item| item.id == id)
    }

    fn item_with_property(&self, property: &str) -> Option<&Item> {
        self.items.iter().find(|item| item.properties.split_whitespace().any(|held| held == property))
    }

    fn cover(&self) -> Option<&Item> {
        let is_picture = |item: &&Item| item.media_type.starts_with("image/");
        self.item_with_property("cover-image")
            .or_else(|| self.item(self.cover_id.as_deref()?))
            .filter(is_picture)
            .or_else(|| self.items.iter().filter(is_picture).find(|item| item.id.to_lowercase().contains("cover")))
    }
}

/// The archive path that `href` means inside the document at `base`; a path that climbs out stops at the root.
pub(crate) fn resolve(base: &str, href: &str) -> String {
    let decoded = percent_decode_str(href).decode_utf8_lossy();
    let folder = base.rsplit_once('/').map_or("", |(folder, _)| folder);
    let mut parts: Vec<&str> = folder.split('/').filter(|part| !part.is_empty()).collect();
    for part in decoded.split('/') {
        match part {
            "" | "." => {}
            ".." => _ = parts.pop(),
            part => parts.push(part),
        }
    }
    parts.join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hrefs_resolve_within_the_archive() {
        for (base, href, path) in [
            ("OEBPS/package.opf", "text/ch%201.xhtml", "OEBPS/text/ch 1.xhtml"),
            ("OEBPS/nav/toc.xhtml", "../a.xhtml", "OEBPS/a.xhtml"),
            ("package.opf", "../../../etc/passwd", "etc/passwd"),
            ("a/b.opf", "%2e%2e/%2e%2e/etc/passwd", "etc/passwd"),
            ("a/b.opf", "%zz%", "a/%zz%"),
            ("a/b.opf", "%C3%A9.xhtml", "a/é.xhtml"),
        ] {
            assert_eq!(resolve(base, href), path);
        }
    }

    #[test]
    fn the_main_title_and_the_authors_are_told_from_the_rest() {
        let package = Package::parse(
            br##"<package xmlns:dc="d" xmlns:opf="o"><metadata>
            <dc:title id="s">Part two</dc:title><dc:title id="m">The Sea</dc:title>
            <meta refines="#m" property="title-type">main</meta><meta refines="#s" property="title-type">subtitle</meta>
            <dc:creator id="c1">Ana</dc:creator><meta refines="#c1" property="role">ill</meta>
            <dc:creator opf:role="aut">Ben</dc:creator>
            </metadata></package>"##,
        )
        .expect("sound XML");
        assert_eq!(package.title().as_deref(), Some("The Sea: Part two"));
        assert_eq!(package.authors().collect::<Vec<_>>(), ["Ben"]);
    }
}
