//! A book's table of contents: EPUB 3's navigation document, or EPUB 2's NCX. Levels are flattened.

use super::{
    super::{
        Chapter, ChapterStart,
        archive::Archive,
        refusal::Refusal,
        wording,
        xml::{self, Seen, attribute},
    },
    Package, resolve,
};

/// The chapters in order; a book without a table of contents has none, which is no fault.
pub(super) fn read(archive: &mut Archive<'_>, package: &Package, package_path: &str) -> Result<Vec<Chapter>, Refusal> {
    let limits = archive.limits();
    if let Some(nav) = package.item_with_property("nav") {
        let path = resolve(package_path, &nav.href);
        if let Some(bytes) = archive.read(&path, "navigation document", limits.xml_bytes_max)? {
            return navigation(&bytes, &path, limits.chapters_max);
        }
    }
    let ncx = package
        .toc_id
        .as_deref()
        .and_then(|id| package.item(id))
        .or_else(|| package.items.iter().find(|item| item.media_type == "application/x-dtbncx+xml"));
    if let Some(ncx) = ncx {
        let path = resolve(package_path, &ncx.href);
        if let Some(bytes) = archive.read(&path, "table of contents", limits.xml_bytes_max)? {
            return ncx_points(&bytes, &path, limits.chapters_max);
        }
    }
    Ok(Vec::new())
}

/// The links inside `<nav epub:type="toc">`; of a document with no such mark, of its first `<nav>`.
fn navigation(bytes: &[u8], path: &str, chapters_max: usize) -> Result<Vec<Chapter>, Refusal> {
    /// The table of contents, landmarks, a list of pages, of figures, of tables.
    const NAVS_MAX: usize = 16;
    let mut navs: Vec<(bool, Vec<Chapter>)> = Vec::new();
    let mut inside = false;
    let mut link: Option<(String, String)> = None;
    xml::walk("navigation document", bytes, |seen| match seen {
        Seen::Start { name: "nav", attributes, .. } if navs.len() < NAVS_MAX => {
            inside = true;
            navs.push((attribute(attributes, "type").is_some_and(|kind| kind.contains("toc")), Vec::new()));
        }
        Seen::End { name: "nav", .. } => inside = false,
        Seen::Start { name: "a", attributes, .. } if inside => {
            link = attribute(attributes, "href").map(|href| (href.to_owned(), String::new()));
        }
        Seen::End { name, text } => {
            if let Some((_, title)) = &mut link {
                title.push_str(text);
            }
            if name == "a"
                && let Some((href, title)) = link.take()
                && let Some((_, chapters)) = navs.last_mut()
                && let Some(title) = wording::line(&title)
                && chapters.len() < chapters_max
            {
                chapters.push(Chapter { title, start: ChapterStart::Href(target(path, &href)) });
            }
        }
        Seen::Start { before, .. } => {
            if let Some((_, title)) = &mut link {
                title.push_str(before);
            }
        }
    })?;
    let chosen = navs.iter().position(|(is_toc, _)| *is_toc).unwrap_or(0);
    Ok(navs.into_iter().nth(chosen).map(|(_, chapters)| chapters).unwrap_or_default())
}

fn ncx_points(bytes: &[u8], path: &str, chapters_max: usize) -> Result<Vec<Chapter>, Refusal> {
    let mut chapters = Vec::new();
    let mut inside_point = false;
    let mut label = None;
    xml::walk("table of contents", bytes, |seen| match seen {
        Seen::Start { name: "navPoint", .. } => inside_point = true,
        Seen::End { name: "text", text } if inside_point => label = wording::line(text),
        Seen::Start { name: "content", attributes, .. } if inside_point => {
            if let (Some(title), Some(href)) = (label.take(), attribute(attributes, "src"))
                && chapters.len() < chapters_max
            {
                chapters.push(Chapter { title, start: ChapterStart::Href(target(path, href)) });
            }
        }
        _ => {}
    })?;
    Ok(chapters)
}

/// A link as a path from the archive's root, its fragment kept.
fn target(path: &str, href: &str) -> String {
    match href.split_once('#') {
        Some(("", fragment)) => format!("{path}#{fragment}"),
        Some((file, fragment)) => format!("{}#{fragment}", resolve(path, file)),
        None => resolve(path, href),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn href(chapter: &Chapter) -> (&str, &str) {
        let ChapterStart::Href(href) = &chapter.start else { panic!("a place in a book is an href") };
        (&chapter.title, href)
    }

    #[test]
    fn the_toc_is_found_among_other_lists() {
        let nav = br#"<html xmlns:epub="e"><nav epub:type="landmarks"><a href="x.xhtml">No</a></nav>
            <nav epub:type="toc"><ol><li><a href="one.xhtml"><span>1</span> One</a>
            <ol><li><a href="../t/two.xhtml#s">Two</a></li></ol></li></ol></nav></html>"#;
        let chapters = navigation(nav, "OEBPS/nav.xhtml", 10).expect("sound XML");
        let seen: Vec<_> = chapters.iter().map(href).collect();
        assert_eq!(seen, [("1 One", "OEBPS/one.xhtml"), ("Two", "t/two.xhtml#s")]);
        assert_eq!(navigation(nav, "nav.xhtml", 1).expect("sound XML").len(), 1);
    }

    #[test]
    fn an_ncx_gives_the_same() {
        let ncx =
            br#"<ncx><docTitle><text>Book</text></docTitle><navMap><navPoint><navLabel><text>One</text></navLabel>
            <content src="one.xhtml#a"/></navPoint></navMap></ncx>"#;
        let chapters = ncx_points(ncx, "OEBPS/toc.ncx", 10).expect("sound XML");
        assert_eq!(chapters.iter().map(href).collect::<Vec<_>>(), [("One", "OEBPS/one.xhtml#a")]);
    }
}
