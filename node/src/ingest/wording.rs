//! Text from inside files, made fit to show: one line, bounded, without control characters; dates in one form.

use std::path::Path;

const LINE_CHARS_MAX: usize = 500;
const DESCRIPTION_CHARS_MAX: usize = 10_000;

/// A name or a title: white space collapsed, control and invisible formatting characters gone. `None` if nothing is left.
pub(super) fn line(text: &str) -> Option<String> {
    bounded(text, LINE_CHARS_MAX)
}

/// A longer text, as one paragraph, with any HTML tags taken out.
pub(super) fn description(text: &str) -> Option<String> {
    // Twice what is kept: tags take room too.
    let head: String = text.chars().take(4 * DESCRIPTION_CHARS_MAX).collect();
    if !head.contains('<') && !head.contains('&') {
        return bounded(&head, DESCRIPTION_CHARS_MAX);
    }
    let mut plain = String::new();
    for Ok(token) in html5gum::Tokenizer::new(&head) {
        match token {
            html5gum::Token::String(text) => plain.push_str(&String::from_utf8_lossy(&text.value)),
            // A block's end parts words; an inline tag's would too, which is wrong less often than gluing them.
            html5gum::Token::StartTag(_) | html5gum::Token::EndTag(_) => plain.push(' '),
            _ => {}
        }
    }
    bounded(&plain, DESCRIPTION_CHARS_MAX)
}

/// A title from a file's name: `the_little-book.epub` becomes `The little book`.
pub(super) fn title_from_file_name(path: &Path) -> String {
    let stem = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    let spaced = stem.replace(['_', '+'], " ");
    // A name without spaces has its words joined by something else; one with spaces uses hyphens as hyphens.
    let spaced = if spaced.contains(' ') { spaced } else { spaced.replace(['-', '.'], " ") };
    let Some(title) = line(&spaced) else { return "Untitled".to_owned() };
    let mut letters = title.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

/// `YYYY`, `YYYY-MM` or `YYYY-MM-DD` from the beginning of a date in any of the orders that put the year first.
pub(super) fn date(text: &str) -> Option<String> {
    let text = text.trim().trim_start_matches("D:");
    let year = digits(text, 0, 4)?;
    if !(1000..=2999).contains(&year) {
        return None;
    }
    let separated = text.get(4..5).is_some_and(|separator| "-:/.".contains(separator));
    let (month_at, day_at) = if separated { (5, 8) } else { (4, 6) };
    let Some(month) = digits(text, month_at, 2).filter(|month| (1..=12).contains(month)) else {
        return Some(format!("{year:04}"));
    };
    let Some(day) = digits(text, day_at, 2).filter(|day| (1..=31).contains(day)) else {
        return Some(format!("{year:04}-{month:02}"));
    };
    Some(format!("{year:04}-{month:02}-{day:02}"))
}

fn digits(text: &str, start: usize, length: usize) -> Option<u32> {
    let part = text.get(start..start + length)?;
    part.bytes().all(|byte| byte.is_ascii_digit()).then(|| part.parse().ok())?
}

fn bounded(text: &str, chars_max: usize) -> Option<String> {
    let mut out = String::new();
    let mut length = 0;
    let mut gap = false;
    for letter in text.chars() {
        if letter.is_whitespace() || letter.is_control() {
            gap = true;
            continue;
        }
        if is_invisible(letter) {
            continue;
        }
        if gap && !out.is_empty() {
            out.push(' ');
            length += 1;
        }
        gap = false;
        if length >= chars_max {
            out.push('…');
            break;
        }
        out.push(letter);
        length += 1;
    }
    (!out.is_empty()).then_some(out)
}

/// Directional overrides and byte-order marks: in a title they can only mislead. Joiners stay, scripts need them.
fn is_invisible(letter: char) -> bool {
    matches!(letter, '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}' | '\u{FEFF}' | '\u{FFFE}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_name_becomes_a_readable_title() {
        for (name, title) in [
            ("the_little-book.epub", "The little-book"),
            ("the-little-book.epub", "The little book"),
            ("Chemistry 101 - Acids.pdf", "Chemistry 101 - Acids"),
            ("été.txt", "Été"),
            ("IMG_2024", "IMG 2024"),
            ("___.png", "Untitled"),
        ] {
            assert_eq!(title_from_file_name(Path::new(name)), title);
        }
    }

    #[test]
    fn a_line_is_one_line_without_tricks() {
        assert_eq!(line("  a\n\tb\u{0}c "), Some("a b c".to_owned()));
        assert_eq!(line("evil\u{202E}gpj.exe"), Some("evilgpj.exe".to_owned()));
        assert_eq!(line(" \u{FEFF}\n"), None);
        assert_eq!(line(&"x".repeat(10_000)).map(|line| line.chars().count()), Some(LINE_CHARS_MAX + 1));
    }

    #[test]
    fn a_description_loses_its_tags_and_keeps_its_words() {
        let text = description("<p>One &amp; <b>two</b></p><p>three</p>");
        assert_eq!(text.as_deref(), Some("One & two three"));
    }

    #[test]
    fn dates_come_out_in_one_form() {
        for (raw, date_out) in [
            ("2024", Some("2024")),
            ("2024-05", Some("2024-05")),
            ("2024-05-06T07:08:09Z", Some("2024-05-06")),
            ("2024:05:06 07:08:09", Some("2024-05-06")),
            ("D:20240506070809+02'00'", Some("2024-05-06")),
            ("20249999", Some("2024")),
            ("1844/13/01", Some("1844")),
            ("May 2024", None),
            ("", None),
            ("2024é", Some("2024")),
        ] {
            assert_eq!(date(raw).as_deref(), date_out, "{raw}");
        }
    }
}
