//! The reading order of an EPUB: its container names a package, the package lists files and puts chapters in order.
//!
//! Not here: what a book says about itself, which was read when it came in (`ingest`).

use std::borrow::Cow;
use std::collections::HashMap;

use alexandria_api::catalogue::Content;
use quick_xml::Reader;
use quick_xml::events::{BytesStart, Event};

use super::archive::Archive;
use super::{ReadError, text};
use crate::ingest::resolve;

const CONTAINER: &str = "META-INF/container.xml";
/// Of the container or the package, unpacked.
const PACKAGE_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// Files and chapters of a book.
const ITEMS_MAX: usize = 20_000;

/// The paths of the chapters in the archive, in reading order. At least one.
pub(super) fn spine<T: Content>(archive: &mut Archive<T>) -> Result<Vec<String>, ReadError> {
    let container = read(archive, CONTAINER)?;
    let mut package_path = None;
    walk(&container, |name, element| {
        if name == "rootfile" && package_path.is_none() {
            package_path = attribute(element, "full-path");
        }
    });
    let package_path = package_path.ok_or(ReadError::Damaged("it names no package"))?;
    let package = read(archive, &package_path)?;
    let spine = chapters(&package, &package_path);
    if spine.is_empty() { Err(ReadError::Damaged("it has no reading order")) } else { Ok(spine) }
}

fn read<T: Content>(archive: &mut Archive<T>, path: &str) -> Result<String, ReadError> {
    let bytes = archive.read(path, "the package", PACKAGE_BYTES_MAX)?.ok_or(ReadError::Damaged("a part is missing"))?;
    Ok(text::decode(&bytes).into_owned())
}

fn chapters(package: &str, package_path: &str) -> Vec<String> {
    let mut files: HashMap<String, String> = HashMap::new();
    let mut order = Vec::new();
    walk(package, |name, element| match name {
        "item" if files.len() < ITEMS_MAX => {
            if let (Some(id), Some(href)) = (attribute(element, "id"), attribute(element, "href")) {
                files.insert(id, resolve(package_path, &href));
            }
        }
        "itemref" if order.len() < ITEMS_MAX => order.extend(attribute(element, "idref")),
        _ => {}
    });
    order.iter().filter_map(|id| files.get(id).cloned()).collect()
}

/// Tells `visit` of every element. Broken XML is read as far as it goes, as every book reader does.
fn walk(xml: &str, mut visit: impl FnMut(&str, &BytesStart<'_>)) {
    let mut reader = Reader::from_str(xml);
    reader.config_mut().check_end_names = false;
    reader.config_mut().allow_unmatched_ends = true;
    loop {
        match reader.read_event() {
            Ok(Event::Start(element) | Event::Empty(element)) => visit(element.local_name().as_ref(), &element),
            Ok(Event::Eof) | Err(_) => return,
            Ok(_) => {}
        }
    }
}

fn attribute(element: &BytesStart<'_>, name: &str) -> Option<String> {
    /// No element of these documents has more than a dozen.
    const ATTRIBUTES_MAX: usize = 64;
    let mut attributes = element.html_attributes();
    let mut sound = attributes.with_checks(false).take(ATTRIBUTES_MAX).filter_map(Result::ok);
    let found = sound.find(|attribute| attribute.key.local_name().as_ref() == name)?;
    Some(quick_xml::escape::unescape(&found.value).map_or_else(|_| found.value.to_string(), Cow::into_owned))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chapters_come_in_the_order_of_the_spine_with_paths_from_the_root() {
        let package = r#"<package><manifest><item id="b" href="two%20b.xhtml"/><item href="../one.xhtml" id='a' />
            </manifest><opf:spine><itemref idref="a"/><itemref idref="gone"/><itemref idref="b"/></opf:spine>"#;
        assert_eq!(chapters(package, "OEBPS/p.opf"), ["one.xhtml", "OEBPS/two b.xhtml"]);
    }
}
