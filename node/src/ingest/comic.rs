//! CBZ: a ZIP of pictures in the order of their names, perhaps with a `ComicInfo.xml`.

use std::cmp::Ordering;

use super::{
    Cover, Inspection, MediaKind,
    archive::Archive,
    refusal::Refusal,
    wording,
    xml::{self, Seen},
};

const INFO: &str = "ComicInfo.xml";

/// Whether an entry is a page: a picture that is not a file system's leftover.
pub(super) fn is_page(name: &str) -> bool {
    let base = name.rsplit('/').next().unwrap_or(name);
    let picture = base.rsplit_once('.').is_some_and(|(_, ending)| {
        matches!(ending.to_ascii_lowercase().as_str(), "jpg" | "jpeg" | "png" | "webp" | "gif" | "avif")
    });
    picture && !base.starts_with('.') && !name.starts_with("__MACOSX/")
}

pub(super) fn inspect(archive: &mut Archive<'_>, size_bytes: u64) -> Result<Inspection, Refusal> {
    let limits = archive.limits();
    let mut inspection = Inspection::bare(MediaKind::Book, "application/vnd.comicbook+zip", size_bytes);

    let mut pages: Vec<String> = archive.names().iter().filter(|name| is_page(name)).cloned().collect();
    pages.sort_by(|left, right| by_number_and_name(left, right));
    inspection.pages = u32::try_from(pages.len()).ok();
    if let Some(first) = pages.first() {
        // A first page too large for a cover is still a page.
        if let Ok(Some(bytes)) = archive.read(first, "first page", limits.cover_bytes_max) {
            inspection.cover = Cover::accept(bytes, limits);
        }
    }

    let info = archive.names().iter().find(|name| name.rsplit('/').next() == Some(INFO)).cloned();
    if let Some(info) = info
        && let Some(bytes) = archive.read(&info, INFO, limits.xml_bytes_max)?
    {
        read_info(&bytes, &mut inspection)?;
    }
    Ok(inspection)
}

fn read_info(bytes: &[u8], inspection: &mut Inspection) -> Result<(), Refusal> {
    let (mut title, mut series, mut number) = (None, None, None);
    let (mut year, mut month, mut day) = (None, None, None);
    xml::walk(INFO, bytes, |seen| {
        let Seen::End { name, text } = seen else { return };
        match name {
            "Title" => title = wording::line(text),
            "Series" => series = wording::line(text),
            "Number" => number = wording::line(text),
            "Writer" | "Penciller" => text.split(',').for_each(|name| inspection.add_author(name)),
            "Publisher" => inspection.publisher = wording::line(text),
            "Summary" => inspection.description = wording::description(text),
            "LanguageISO" => inspection.add_language(text),
            "Year" => year = text.trim().parse::<u32>().ok(),
            "Month" => month = text.trim().parse::<u32>().ok(),
            "Day" => day = text.trim().parse::<u32>().ok(),
            _ => {}
        }
    })?;
    let issue = series.map(|series| match number {
        Some(number) => format!("{series} {number}"),
        None => series,
    });
    inspection.title = match (issue, title) {
        (Some(issue), Some(title)) => format!("{issue}: {title}"),
        (issue, title) => title.or(issue).unwrap_or_default(),
    };
    if let Some(year) = year {
        inspection.published = wording::date(&format!("{year:04}-{:02}-{:02}", month.unwrap_or(0), day.unwrap_or(0)));
    }
    Ok(())
}

/// `page2` before `page10`, whatever the padding.
fn by_number_and_name(left: &str, right: &str) -> Ordering {
    let (mut left_rest, mut right_rest) = (left, right);
    loop {
        let (left_part, left_next) = next_part(left_rest);
        let (right_part, right_next) = next_part(right_rest);
        if left_part.is_empty() || right_part.is_empty() {
            return left_part.len().cmp(&right_part.len()).then_with(|| left.cmp(right));
        }
        let numbers = left_part.as_bytes()[0].is_ascii_digit() && right_part.as_bytes()[0].is_ascii_digit();
        let order = if numbers {
            let (left_number, right_number) = (left_part.trim_start_matches('0'), right_part.trim_start_matches('0'));
            left_number.len().cmp(&right_number.len()).then_with(|| left_number.cmp(right_number))
        } else {
            left_part.to_lowercase().cmp(&right_part.to_lowercase())
        };
        if order != Ordering::Equal {
            return order;
        }
        (left_rest, right_rest) = (left_next, right_next);
    }
}

/// The longest run of only digits, or of none, at the start.
fn next_part(text: &str) -> (&str, &str) {
    let digits = text.as_bytes().first().is_some_and(u8::is_ascii_digit);
    let end = text.find(|letter: char| letter.is_ascii_digit() != digits).unwrap_or(text.len());
    text.split_at(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_in_the_order_a_person_means() {
        let mut names = vec!["p10.jpg", "p2.jpg", "P1.jpg", "p02b.jpg", "cover.jpg", "p002.jpg"];
        names.sort_by(|left, right| by_number_and_name(left, right));
        assert_eq!(names, ["cover.jpg", "P1.jpg", "p002.jpg", "p2.jpg", "p02b.jpg", "p10.jpg"]);
    }

    #[test]
    fn leftovers_are_not_pages() {
        assert!(is_page("a/b/001.JPG"));
        for name in ["__MACOSX/001.jpg", "a/._001.jpg", "ComicInfo.xml", "a.jpg/", "jpg"] {
            assert!(!is_page(name), "{name}");
        }
    }
}
