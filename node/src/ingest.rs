//! From one file on disk to what the library can say about it: kind, title, people, languages, chapters, cover.
//!
//! [`inspect`] decides what a file is from its content, reads the metadata that the file itself carries, and refuses
//! what is broken, hostile or of no use, with a reason a librarian can act on. [`walk()`] finds the files below folders.
//!
//! The name against the content: a file whose extension names another format of the same family (`.jpg` on a PNG,
//! `.mp4` on an audio-only M4A, `.txt` on Markdown) is taken under its real type, because its readers and its dangers
//! are the same. So is one with no extension, or with one the library does not know. A file whose extension names
//! another family (`.pdf` on a ZIP, `.jpg` on a web page) is refused, naming what it really is: somebody was mistaken
//! about it, or wants somebody to be.
//!
//! Invariants:
//! - Nothing is written, and nothing is remembered between two files.
//! - Memory is bounded by [`Limits`], whatever the size of the file: large media are never read whole.
//! - Every byte of a file may be hostile. A third-party parser that panics costs that file, never the process: parsers
//!   run on a thread of their own with a known stack, and none of those chosen here recurses on its input without bound.
//!
//! Not here: hashing and storing (`library`), and pictures' pixels (`alexandria-ml`).

mod archive;
mod av;
mod comic;
mod epub;
mod image;
mod language;
mod pdf;
mod refusal;
mod sniff;
mod text;
mod walk;
mod wording;
mod xml;

#[cfg(test)]
mod samples;
#[cfg(test)]
mod tests;

use std::{
    fs::File,
    io::{Read, Seek},
    path::Path,
    thread,
};

pub(crate) use epub::resolve;
pub use refusal::{InspectError, Refusal};
pub use sniff::Format;
pub use walk::{Found, Skipped, WalkError, walk};

use sniff::Sniffed;

/// The kinds a library item comes in.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum MediaKind {
    /// EPUB, CBZ.
    Book,
    /// PDF, text, Markdown, HTML.
    Doc,
    /// Anything that is only heard.
    Podcast,
    /// Anything with a moving picture.
    Video,
    /// A still picture.
    Image,
}

/// What one file says about itself. Text is cleaned (one line, no control characters) and bounded.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Inspection {
    pub media_kind: MediaKind,
    pub mime: &'static str,
    /// Never empty: a file without a title is called by its tidied file name.
    pub title: String,
    pub authors: Vec<String>,
    /// BCP 47, shortest form, without repeats.
    pub languages: Vec<String>,
    pub description: Option<String>,
    pub publisher: Option<String>,
    /// `YYYY`, `YYYY-MM` or `YYYY-MM-DD`.
    pub published: Option<String>,
    pub duration_ms: Option<u64>,
    pub pages: Option<u32>,
    pub chapters: Vec<Chapter>,
    pub cover: Option<Cover>,
    /// As shown, that is after the EXIF orientation.
    pub width_px: Option<u32>,
    pub height_px: Option<u32>,
    pub size_bytes: u64,
}

/// A place a reader can jump to.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Chapter {
    pub title: String,
    pub start: ChapterStart,
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub enum ChapterStart {
    Ms(u64),
    /// The first page is 1.
    Page(u32),
    /// Inside an EPUB: a path from the archive's root, with its fragment. Inside a web page: a fragment.
    Href(String),
}

/// A picture carried by the file, exactly as it is there.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Cover {
    pub bytes: Vec<u8>,
    pub mime: &'static str,
}

/// How much of a file, and of what it unpacks to, is looked at before it is refused.
#[derive(Clone, Debug)]
pub struct Limits {
    pub archive_entries_max: u64,
    pub archive_unpacked_bytes_max: u64,
    /// Unpacked size over packed size, of the archive as a whole.
    pub archive_ratio_max: u64,
    /// Any archive may unpack to this much: a small one may well be all white pages.
    pub archive_ratio_floor_bytes: u64,
    /// Any single package, navigation or metadata document inside an archive.
    pub xml_bytes_max: u64,
    /// A larger cover is left out; the file is taken.
    pub cover_bytes_max: u64,
    pub picture_side_px_max: u32,
    pub picture_pixels_max: u64,
    /// PDF is parsed in memory; a larger one is taken under its file name.
    pub pdf_parsed_bytes_max: u64,
    /// What the object and cross-reference streams of a PDF may unpack to, together.
    pub pdf_structure_bytes_max: u64,
    /// The index, the tags and the attachments of a recording or video; an hour's index takes about 2 MB.
    pub media_index_bytes_max: u64,
    /// How much of a text, Markdown or HTML file is searched for its title and headings.
    pub text_searched_bytes_max: u64,
    pub chapters_max: usize,
    pub walk_files_max: usize,
    pub walk_depth_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        const MIB: u64 = 1024 * 1024;
        Self {
            archive_entries_max: 20_000,
            archive_unpacked_bytes_max: 4096 * MIB,
            archive_ratio_max: 100,
            archive_ratio_floor_bytes: 32 * MIB,
            xml_bytes_max: 8 * MIB,
            cover_bytes_max: 8 * MIB,
            picture_side_px_max: 30_000,
            picture_pixels_max: 200_000_000,
            pdf_parsed_bytes_max: 128 * MIB,
            pdf_structure_bytes_max: 64 * MIB,
            media_index_bytes_max: 64 * MIB,
            text_searched_bytes_max: MIB,
            chapters_max: 2_000,
            walk_files_max: 1_000_000,
            walk_depth_max: 64,
        }
    }
}

/// Reads what the file at `path` is and what it says about itself.
///
/// # Errors
///
/// [`InspectError`], naming the file and the [`Refusal`].
pub fn inspect(path: &Path, limits: &Limits) -> Result<Inspection, InspectError> {
    inspect_inner(path, limits).map_err(|reason| InspectError { path: path.to_owned(), reason })
}

/// Enough for the deepest parser used here with a wide margin, and little enough to have on a small board.
const PARSER_STACK_BYTES: usize = 4 * 1024 * 1024;

fn inspect_inner(path: &Path, limits: &Limits) -> Result<Inspection, Refusal> {
    // Opening a FIFO would wait for its writer, so the type is looked at first.
    if !std::fs::metadata(path).map_err(Refusal::Io)?.is_file() {
        return Err(Refusal::NotAFile);
    }
    let mut file = File::open(path).map_err(Refusal::Io)?;
    let size_bytes = file.metadata().map_err(Refusal::Io)?.len();
    let head = read_head(&mut file).map_err(Refusal::Io)?;
    let extension = sniff::extension(path);
    let sniffed = sniff::sniff(&head, extension.as_deref())?;

    let mut inspection = contained(sniffed.format_hint(), || {
        let source = Source { file, size_bytes, limits };
        match sniffed {
            Sniffed::Known(Format::Pdf) => pdf::inspect(source),
            Sniffed::Known(format) if format.is_text() => text::inspect(source, format),
            Sniffed::Known(format) if format.is_picture() => image::inspect(source, format),
            Sniffed::Known(format) => av::inspect(source, format),
            Sniffed::Zip => archive::inspect(source, extension.as_deref()),
        }
    })?;
    if inspection.title.is_empty() {
        inspection.title = wording::title_from_file_name(path);
    }
    inspection.chapters.truncate(limits.chapters_max);
    Ok(inspection)
}

/// An open file on its way through one parser.
struct Source<'a> {
    file: File,
    size_bytes: u64,
    limits: &'a Limits,
}

impl Inspection {
    fn bare(media_kind: MediaKind, mime: &'static str, size_bytes: u64) -> Self {
        Self {
            media_kind,
            mime,
            title: String::new(),
            authors: Vec::new(),
            languages: Vec::new(),
            description: None,
            publisher: None,
            published: None,
            duration_ms: None,
            pages: None,
            chapters: Vec::new(),
            cover: None,
            width_px: None,
            height_px: None,
            size_bytes,
        }
    }

    fn add_author(&mut self, name: &str) {
        /// Anthologies have many authors; a list longer than this is noise.
        const AUTHORS_MAX: usize = 64;
        if let Some(name) = wording::line(name)
            && self.authors.len() < AUTHORS_MAX
            && !self.authors.contains(&name)
        {
            self.authors.push(name);
        }
    }

    fn add_language(&mut self, tag: &str) {
        const LANGUAGES_MAX: usize = 32;
        if let Some(tag) = language::bcp47(tag)
            && self.languages.len() < LANGUAGES_MAX
            && !self.languages.contains(&tag)
        {
            self.languages.push(tag);
        }
    }
}

impl Cover {
    /// Takes `bytes` as a cover if they are a picture of bearable size; a bad cover is no reason to refuse its book.
    fn accept(bytes: Vec<u8>, limits: &Limits) -> Option<Self> {
        if bytes.len() as u64 > limits.cover_bytes_max {
            return None;
        }
        let mime = image::acceptable_mime(&bytes, limits)?;
        Some(Self { bytes, mime })
    }
}

/// Runs a parser where its panic is an error of this file, and its stack does not depend on who called.
fn contained(
    format: &'static str,
    parse: impl FnOnce() -> Result<Inspection, Refusal> + Send,
) -> Result<Inspection, Refusal> {
    thread::scope(|scope| {
        thread::Builder::new()
            .name("inspect".to_owned())
            .stack_size(PARSER_STACK_BYTES)
            .spawn_scoped(scope, parse)
            .map_err(Refusal::Io)?
            .join()
            .unwrap_or(Err(Refusal::ParserFailed { format }))
    })
}

/// The first bytes of a file, from which its format is told.
fn read_head(file: &mut File) -> std::io::Result<Vec<u8>> {
    /// The longest of the marks looked for is the `%PDF-` that may stand anywhere in the first kilobyte; text needs more.
    const HEAD_BYTES: u64 = 8 * 1024;
    let mut head = Vec::with_capacity(HEAD_BYTES as usize);
    file.by_ref().take(HEAD_BYTES).read_to_end(&mut head)?;
    file.rewind()?;
    Ok(head)
}
