//! What a file is, from its first bytes, and whether its name may stay.
//!
//! Formats that share a container (ZIP, ISO media, Matroska, Ogg) are told apart as far as the first bytes go;
//! their parsers settle the rest.

use std::path::Path;

use super::refusal::Refusal;

/// Every format the library takes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Format {
    Epub,
    Cbz,
    Pdf,
    Mp3,
    M4a,
    OggVorbis,
    Opus,
    Flac,
    Mp4,
    WebM,
    Matroska,
    Jpeg,
    Png,
    WebP,
    Gif,
    Tiff,
    PlainText,
    Markdown,
    Html,
}

/// Formats whose extensions may stand for each other without anybody being misled.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Family {
    Epub,
    Comic,
    Pdf,
    AudioVideo,
    Picture,
    Text,
}

impl Format {
    /// A noun phrase, as messages use it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Epub => "an EPUB book",
            Self::Cbz => "a comic book archive",
            Self::Pdf => "a PDF document",
            Self::Mp3 => "an MP3 recording",
            Self::M4a => "an MPEG-4 recording",
            Self::OggVorbis => "an Ogg Vorbis recording",
            Self::Opus => "an Opus recording",
            Self::Flac => "a FLAC recording",
            Self::Mp4 => "an MPEG-4 file",
            Self::WebM => "a WebM file",
            Self::Matroska => "a Matroska file",
            Self::Jpeg => "a JPEG picture",
            Self::Png => "a PNG picture",
            Self::WebP => "a WebP picture",
            Self::Gif => "a GIF picture",
            Self::Tiff => "a TIFF picture",
            Self::PlainText => "a plain text",
            Self::Markdown => "a Markdown text",
            Self::Html => "a web page",
        }
    }

    pub(super) fn is_text(self) -> bool {
        self.family() == Family::Text
    }

    pub(super) fn is_picture(self) -> bool {
        self.family() == Family::Picture
    }

    fn family(self) -> Family {
        match self {
            Self::Epub => Family::Epub,
            Self::Cbz => Family::Comic,
            Self::Pdf => Family::Pdf,
            Self::Mp3
            | Self::M4a
            | Self::OggVorbis
            | Self::Opus
            | Self::Flac
            | Self::Mp4
            | Self::WebM
            | Self::Matroska => Family::AudioVideo,
            Self::Jpeg | Self::Png | Self::WebP | Self::Gif | Self::Tiff => Family::Picture,
            Self::PlainText | Self::Markdown | Self::Html => Family::Text,
        }
    }

    /// The format that an extension claims; `None` for extensions that are not ours.
    fn claimed_by(extension: &str) -> Option<Self> {
        Some(match extension {
            "epub" => Self::Epub,
            "cbz" => Self::Cbz,
            "pdf" => Self::Pdf,
            "mp3" => Self::Mp3,
            "m4a" | "m4b" => Self::M4a,
            "ogg" | "oga" => Self::OggVorbis,
            "opus" => Self::Opus,
            "flac" => Self::Flac,
            "mp4" | "m4v" => Self::Mp4,
            "webm" => Self::WebM,
            "mkv" | "mka" => Self::Matroska,
            "jpg" | "jpeg" | "jpe" => Self::Jpeg,
            "png" => Self::Png,
            "webp" => Self::WebP,
            "gif" => Self::Gif,
            "tif" | "tiff" => Self::Tiff,
            "txt" | "text" => Self::PlainText,
            "md" | "markdown" => Self::Markdown,
            "html" | "htm" | "xhtml" => Self::Html,
            _ => return None,
        })
    }
}

/// What the first bytes say.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Sniffed {
    Known(Format),
    /// A ZIP whose entries must say whether it is a book, a comic or neither.
    Zip,
}

impl Sniffed {
    /// What to call the file if its parser breaks down.
    pub(super) fn format_hint(self) -> &'static str {
        match self {
            Self::Known(format) => format.name(),
            Self::Zip => "a book archive",
        }
    }
}

/// The lower-case extension of a path.
pub(super) fn extension(path: &Path) -> Option<String> {
    Some(path.extension()?.to_str()?.to_ascii_lowercase())
}

/// Tells the format from the head of a file, and holds it against the extension.
///
/// # Errors
///
/// [`Refusal::Empty`], [`Refusal::Unsupported`] or [`Refusal::Mislabelled`].
pub(super) fn sniff(head: &[u8], extension: Option<&str>) -> Result<Sniffed, Refusal> {
    if head.is_empty() {
        return Err(Refusal::Empty);
    }
    let claimed = extension.and_then(Format::claimed_by);
    match content(head, claimed) {
        Content::Format(format) => match (claimed, extension) {
            (Some(claim), Some(extension)) if claim.family() != format.family() => {
                Err(Refusal::Mislabelled { extension: extension.to_owned(), actual: format.name() })
            }
            // Cameras write their raw pictures as TIFF of a dialect; only the name tells.
            (None, Some(_)) if format == Format::Tiff => {
                Err(Refusal::Unsupported { what: "a TIFF of a special kind, such as a camera's raw picture" })
            }
            _ => Ok(Sniffed::Known(format)),
        },
        Content::Zip => match (claimed, extension) {
            (Some(claim), Some(extension)) if !matches!(claim, Format::Epub | Format::Cbz) => {
                Err(Refusal::Mislabelled { extension: extension.to_owned(), actual: foreign(head) })
            }
            _ => Ok(Sniffed::Zip),
        },
        Content::Text => text(head, claimed, extension),
        Content::Foreign(what) => match (claimed, extension) {
            (Some(_), Some(extension)) => Err(Refusal::Mislabelled { extension: extension.to_owned(), actual: what }),
            _ => Err(Refusal::Unsupported { what }),
        },
    }
}

enum Content {
    Format(Format),
    Zip,
    Text,
    Foreign(&'static str),
}

fn content(head: &[u8], claimed: Option<Format>) -> Content {
    /// Where readers look for the mark of a PDF, which need not come first.
    const PDF_MARK_WITHIN: usize = 1024;
    use Content::{Foreign, Format as Is};

    let pdf_window = &head[..head.len().min(PDF_MARK_WITHIN)];
    match head {
        [0xFF, 0xD8, 0xFF, ..] => Is(Format::Jpeg),
        [0x89, b'P', b'N', b'G', b'\r', b'\n', 0x1A, b'\n', ..] => Is(Format::Png),
        [b'G', b'I', b'F', b'8', b'7' | b'9', b'a', ..] => Is(Format::Gif),
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => Is(Format::WebP),
        [b'I', b'I', b'*', 0, ..] | [b'M', b'M', 0, b'*', ..] => Is(Format::Tiff),
        [b'f', b'L', b'a', b'C', ..] => Is(Format::Flac),
        [b'I', b'D', b'3', ..] => Is(Format::Mp3),
        [b'O', b'g', b'g', b'S', ..] => ogg(head),
        [0x1A, 0x45, 0xDF, 0xA3, ..] => matroska(head),
        [_, _, _, _, b'f', b't', b'y', b'p', brand @ ..] => iso_media(brand),
        [b'P', b'K', 3, 4, ..] => Content::Zip,
        _ if memchr::memmem::find(pdf_window, b"%PDF-").is_some() => Is(Format::Pdf),
        // Two bytes of frame sync are weak evidence; the name has to agree.
        [0xFF, second, ..] if second & 0xE6 == 0xE2 && claimed.is_some_and(|it| it.family() == Family::AudioVideo) => {
            Is(Format::Mp3)
        }
        _ if looks_like_text(head) => Content::Text,
        _ => Foreign(foreign(head)),
    }
}

fn ogg(head: &[u8]) -> Content {
    // The codec's own header begins after the page header and its table of segments.
    let segments = usize::from(head.get(26).copied().unwrap_or(0));
    match head.get(27 + segments..).unwrap_or_default() {
        [b'O', b'p', b'u', b's', b'H', b'e', b'a', b'd', ..] => Content::Format(Format::Opus),
        [1, b'v', b'o', b'r', b'b', b'i', b's', ..] => Content::Format(Format::OggVorbis),
        [0x7F, b'F', b'L', b'A', b'C', ..] => Content::Foreign("a FLAC recording inside Ogg"),
        [0x80, b't', b'h', b'e', b'o', b'r', b'a', ..] => Content::Foreign("a Theora video"),
        [b'S', b'p', b'e', b'e', b'x', ..] => Content::Foreign("a Speex recording"),
        _ => Content::Foreign("an Ogg stream of an unknown kind"),
    }
}

fn matroska(head: &[u8]) -> Content {
    /// The document type stands in the first element, which is some forty bytes long.
    const EBML_HEADER_WITHIN: usize = 128;
    let header = &head[..head.len().min(EBML_HEADER_WITHIN)];
    if memchr::memmem::find(header, b"webm").is_some() {
        Content::Format(Format::WebM)
    } else if memchr::memmem::find(header, b"matroska").is_some() {
        Content::Format(Format::Matroska)
    } else {
        Content::Foreign("an EBML document of an unknown kind")
    }
}

fn iso_media(brand: &[u8]) -> Content {
    match brand.get(..4).unwrap_or_default() {
        b"qt  " => Content::Foreign("a QuickTime movie"),
        b"heic" | b"heix" | b"heim" | b"heis" | b"hevc" | b"mif1" | b"msf1" => Content::Foreign("a HEIF picture"),
        b"avif" | b"avis" => Content::Foreign("an AVIF picture"),
        b"crx " => Content::Foreign("a camera's raw picture"),
        [b'3', b'g', ..] => Content::Foreign("a 3GPP phone recording"),
        b"M4A " | b"M4B " => Content::Format(Format::M4a),
        _ => Content::Format(Format::Mp4),
    }
}

/// Text in any encoding that is not UTF-16 without a mark: no control characters but white space, escape and form feed.
fn looks_like_text(head: &[u8]) -> bool {
    matches!(head, [0xFF, 0xFE, ..] | [0xFE, 0xFF, ..])
        || head.iter().all(|&byte| byte >= 0x20 || matches!(byte, b'\t' | b'\n' | b'\r' | 0x0C | 0x1B))
}

fn text(head: &[u8], claimed: Option<Format>, extension: Option<&str>) -> Result<Sniffed, Refusal> {
    let found = if looks_like_html(head) { Format::Html } else { Format::PlainText };
    match (claimed, extension) {
        // Text is whatever text its name says: a page shown as plain text does no harm.
        (Some(claim), _) if claim.is_text() => Ok(Sniffed::Known(claim)),
        (Some(_), Some(extension)) => {
            Err(Refusal::Mislabelled { extension: extension.to_owned(), actual: found.name() })
        }
        (_, None) => Ok(Sniffed::Known(found)),
        (None, Some(_)) => Err(Refusal::Unsupported { what: "a text of some other kind" }),
    }
}

fn looks_like_html(head: &[u8]) -> bool {
    let start: Vec<u8> = head
        .trim_ascii_start()
        .iter()
        .skip_while(|byte| matches!(byte, 0xEF | 0xBB | 0xBF))
        .take(16)
        .map(u8::to_ascii_lowercase)
        .collect();
    start.starts_with(b"<!doctype html") || start.starts_with(b"<html")
}

/// The best name for something that is not ours.
pub(super) fn foreign(head: &[u8]) -> &'static str {
    let Some(known) = infer::get(head) else { return "data of no kind that is known here" };
    match known.extension() {
        "zip" => "a ZIP archive",
        "docx" | "doc" => "a Word document",
        "xlsx" | "xls" => "an Excel sheet",
        "pptx" | "ppt" => "a PowerPoint presentation",
        "odt" | "ods" | "odp" => "an OpenDocument file",
        "mobi" | "azw3" => "a Kindle book",
        "djvu" => "a DjVu document",
        "gz" | "bz2" | "xz" | "7z" | "rar" | "tar" | "zst" | "lz" => "a compressed archive",
        "exe" | "elf" | "dll" | "mach" | "wasm" | "deb" | "rpm" | "apk" => "a program",
        "wav" | "aac" | "aiff" | "amr" | "mid" => "an audio file of another type",
        "avi" | "wmv" | "flv" | "mpg" | "mov" => "a video of another type",
        "bmp" | "ico" | "psd" | "jxl" | "jxr" | "cr2" | "heif" | "avif" => "a picture of another type",
        _ => match known.matcher_type() {
            infer::MatcherType::Archive => "an archive of another type",
            infer::MatcherType::Audio => "an audio file of another type",
            infer::MatcherType::Video => "a video of another type",
            infer::MatcherType::Image => "a picture of another type",
            infer::MatcherType::Font => "a font",
            infer::MatcherType::App => "a program",
            _ => "a document of another type",
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_of_the_same_family_yields_to_the_content() {
        let png = b"\x89PNG\r\n\x1a\n........";
        assert!(matches!(sniff(png, Some("jpg")), Ok(Sniffed::Known(Format::Png))));
        assert!(matches!(sniff(png, Some("picture")), Ok(Sniffed::Known(Format::Png))));
        assert!(matches!(sniff(png, None), Ok(Sniffed::Known(Format::Png))));
    }

    #[test]
    fn a_name_of_another_family_is_refused_naming_the_content() {
        let refusal = sniff(b"\x89PNG\r\n\x1a\n........", Some("pdf")).expect_err("a PNG is no PDF");
        assert_eq!(refusal.to_string(), "its name ends in .pdf, but it is a PNG picture");
        let refusal = sniff(b"<!DOCTYPE html><script>", Some("jpg")).expect_err("a page is no picture");
        assert_eq!(refusal.to_string(), "its name ends in .jpg, but it is a web page");
        let program = [b"\x7fELF\x02\x01\x01".as_slice(), &[0; 64]].concat();
        let refusal = sniff(&program, Some("epub")).expect_err("a program is no book");
        assert_eq!(refusal.to_string(), "its name ends in .epub, but it is a program");
    }

    #[test]
    fn text_is_what_its_name_says_and_nothing_under_a_foreign_name() {
        assert!(matches!(sniff(b"<html>", Some("txt")), Ok(Sniffed::Known(Format::PlainText))));
        assert!(matches!(sniff("# Titre é".as_bytes(), Some("md")), Ok(Sniffed::Known(Format::Markdown))));
        assert!(matches!(sniff(b" \n<!doctype HTML>", None), Ok(Sniffed::Known(Format::Html))));
        assert!(matches!(sniff(b"import os", Some("py")), Err(Refusal::Unsupported { .. })));
        assert!(matches!(sniff(b"a\0b", Some("txt")), Err(Refusal::Mislabelled { .. })));
    }

    #[test]
    fn nothing_is_not_something() {
        assert!(matches!(sniff(b"", Some("txt")), Err(Refusal::Empty)));
    }
}
