//! Plain text and Markdown.

use std::borrow::Cow;

use chardetng::{EncodingDetector, Iso2022JpDetection, Utf8Detection};
use encoding_rs::Encoding;
use pulldown_cmark::{Options, Parser, html};

use super::ReadError;

/// Of a plain text on one page.
const PART_BYTES: usize = 24 * 1024;
/// Looked at to guess an encoding.
const GUESSED_BYTES: usize = 64 * 1024;
/// Lines and punctuation of one Markdown document: a parser takes a hundred bytes of memory for each that might mean
/// something. Prose has a mark in twenty characters.
const MARKS_MAX: usize = 400_000;

/// Text in whatever encoding it is, by its mark or by its looks; bad sequences become U+FFFD.
pub(super) fn decode(bytes: &[u8]) -> Cow<'_, str> {
    if let Some((encoding, mark_bytes)) = Encoding::for_bom(bytes) {
        return encoding.decode_without_bom_handling(bytes.get(mark_bytes..).unwrap_or_default()).0;
    }
    if let Ok(text) = std::str::from_utf8(bytes) {
        return Cow::Borrowed(text);
    }
    let mut detector = EncodingDetector::new(Iso2022JpDetection::Deny);
    detector.feed(&bytes[..bytes.len().min(GUESSED_BYTES)], bytes.len() <= GUESSED_BYTES);
    detector.guess(None, Utf8Detection::Allow).decode_without_bom_handling(bytes).0
}

/// Cuts a text into pages, where lines end if they do. At least one.
pub(super) fn parts(text: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let mut rest = text;
    while rest.len() > PART_BYTES {
        let most = rest.floor_char_boundary(PART_BYTES);
        let head = &rest[..most];
        // A blank line is better than the end of a line, and that is better than the middle of one.
        let half = most / 2;
        let cut = head.rfind("\n\n").filter(|at| *at > half).map(|at| at + 2);
        let cut = cut.or_else(|| head.rfind('\n').map(|at| at + 1)).unwrap_or(most).max(1);
        let (part, next) = rest.split_at(cut);
        parts.push(part);
        rest = next;
    }
    if !rest.is_empty() || parts.is_empty() {
        parts.push(rest);
    }
    parts
}

/// The markup that Markdown means. What HTML it holds is still in it.
pub(super) fn markdown(text: &str) -> Result<String, ReadError> {
    let options = Options::ENABLE_TABLES
        | Options::ENABLE_STRIKETHROUGH
        | Options::ENABLE_FOOTNOTES
        | Options::ENABLE_HEADING_ATTRIBUTES
        | Options::ENABLE_YAML_STYLE_METADATA_BLOCKS
        | Options::ENABLE_PLUSES_DELIMITED_METADATA_BLOCKS;
    let is_mark = |byte: &u8| byte.is_ascii_punctuation() || *byte == b'\n';
    if text.bytes().filter(is_mark).count() > MARKS_MAX {
        return Err(ReadError::TooLarge { what: "the number of marks" });
    }
    let mut markup = String::new();
    html::push_html(&mut markup, Parser::new_ext(text, options));
    Ok(markup)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_bounded_end_where_lines_do_and_lose_nothing() {
        let text = "A line of some words.\n".repeat(5_000) + &"é".repeat(40_000);
        let parts = parts(&text);
        assert_eq!(parts.concat(), text);
        assert!(parts.iter().all(|part| part.len() <= PART_BYTES));
        assert!(parts[0].ends_with(".\n"));
        assert_eq!(super::parts(""), [""]);
        assert_eq!(super::parts(&"\n".repeat(PART_BYTES + 1)).concat().len(), PART_BYTES + 1);
    }

    #[test]
    fn markdown_that_means_more_than_a_page_may_hold_is_refused() {
        assert!(markdown(&"Some *words* of a line.\n".repeat(20_000)).is_ok());
        for many in ["*a*_b_ ", "a\n", "- "] {
            assert!(markdown(&many.repeat(MARKS_MAX + 1)).is_err(), "{many}");
        }
    }

    #[test]
    fn text_in_any_encoding_is_read() {
        assert_eq!(decode("été".as_bytes()), "été");
        assert_eq!(decode(b"\xFF\xFE\xe9\x00"), "é");
        assert_eq!(decode(b"Le caf\xe9 \xe9tait ferm\xe9 cet \xe9t\xe9."), "Le café était fermé cet été.");
    }
}
