//! PDF: what the information dictionary, the catalogue and the outline say; the cover of a scanned document.
//!
//! The parser needs the file in memory, so a very large one is taken under its file name alone, and so is an encrypted
//! one, whose structure cannot be checked (`structure`) before the parser unpacks it.
//!
//! Not here: the outline (`outline`).

mod outline;
mod structure;

use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    sync::Arc,
};

use hayro_syntax::{
    Filter, LoadPdfError, Pdf,
    object::{DateTime, Dict, Name, Stream, String as PdfString},
};

use super::{Cover, Inspection, Limits, MediaKind, Source, refusal::Refusal, sniff::Format, wording};

pub(super) fn inspect(mut source: Source<'_>) -> Result<Inspection, Refusal> {
    let limits = source.limits;
    check_end(&mut source.file, source.size_bytes)?;
    let mut inspection = Inspection::bare(MediaKind::Doc, "application/pdf", source.size_bytes);
    if source.size_bytes > limits.pdf_parsed_bytes_max {
        return Ok(inspection);
    }
    let mut bytes = Vec::with_capacity(source.size_bytes as usize);
    source.file.take(limits.pdf_parsed_bytes_max).read_to_end(&mut bytes).map_err(Refusal::Io)?;
    if structure::is_encrypted(&bytes) {
        return Ok(inspection);
    }
    structure::check(&bytes, limits)?;

    let pdf = Pdf::new(Arc::new(bytes)).map_err(|error| match error {
        LoadPdfError::Decryption(_) => Refusal::Locked,
        LoadPdfError::Invalid => {
            Refusal::Incomplete { format: Format::Pdf.name(), part: "a readable catalogue of its pages" }
        }
    })?;
    let pages = pdf.pages().len();
    if pages == 0 {
        return Err(Refusal::Incomplete { format: Format::Pdf.name(), part: "any pages" });
    }
    inspection.pages = u32::try_from(pages).ok();
    read_information(&pdf, &mut inspection);
    if let Some(root) = pdf.xref().get::<Dict<'_>>(pdf.xref().root_id()) {
        if let Some(tag) = root.get::<PdfString<'_>>("Lang") {
            inspection.add_language(&text(tag.as_bytes()));
        }
        inspection.chapters = outline::read(&pdf, &root, limits.chapters_max);
    }
    inspection.cover = scanned_cover(&pdf, limits);
    Ok(inspection)
}

/// Every PDF ends with `%%EOF`; readers forgive bytes after it, so this does.
fn check_end(file: &mut File, size_bytes: u64) -> Result<(), Refusal> {
    const END_WITHIN_BYTES: u64 = 16 * 1024;
    let tail = (|| -> io::Result<Vec<u8>> {
        file.seek(SeekFrom::Start(size_bytes.saturating_sub(END_WITHIN_BYTES)))?;
        let mut tail = Vec::new();
        file.take(END_WITHIN_BYTES).read_to_end(&mut tail)?;
        file.rewind()?;
        Ok(tail)
    })()
    .map_err(Refusal::Io)?;
    if memchr::memmem::rfind(&tail, b"%%EOF").is_none() {
        return Err(Refusal::Truncated { format: Format::Pdf.name(), missing: "its end mark is missing" });
    }
    Ok(())
}

fn read_information(pdf: &Pdf, inspection: &mut Inspection) {
    let information = pdf.metadata();
    let line = |bytes: &Option<Box<[u8]>>| wording::line(&text(bytes.as_ref()?));
    inspection.title = line(&information.title).map(|title| meant_title(&title)).unwrap_or_default();
    if let Some(authors) = line(&information.author) {
        authors.split(';').for_each(|author| inspection.add_author(author));
    }
    inspection.description = information.subject.as_ref().and_then(|subject| wording::description(&text(subject)));
    inspection.published = information.creation_date.as_ref().and_then(date);
}

/// Word processors put their own name and the draft's file name into the title.
fn meant_title(title: &str) -> String {
    let title = title.strip_prefix("Microsoft Word - ").unwrap_or(title);
    let is_placeholder = ["untitled", "(anonymous)", "document"].contains(&title.to_lowercase().as_str());
    if is_placeholder { String::new() } else { title.to_owned() }
}

fn date(date: &DateTime) -> Option<String> {
    wording::date(&format!("{:04}-{:02}-{:02}", date.year, date.month, date.day))
}

/// A text string: UTF-16 or UTF-8 by its mark, else PDF's own encoding.
fn text(bytes: &[u8]) -> String {
    if let Some((encoding, mark_bytes)) = encoding_rs::Encoding::for_bom(bytes) {
        return encoding.decode_without_bom_handling(bytes.get(mark_bytes..).unwrap_or_default()).0.into_owned();
    }
    bytes.iter().map(|&byte| document_encoding(byte)).collect()
}

/// PDFDocEncoding: Latin-1 but for these.
fn document_encoding(byte: u8) -> char {
    const FROM_0X80: [char; 33] = [
        '•', '†', '‡', '…', '—', '–', 'ƒ', '⁄', '‹', '›', '−', '‰', '„', '“', '”', '‘', '’', '‚', '™', 'ﬁ', 'ﬂ', 'Ł',
        'Œ', 'Š', 'Ÿ', 'Ž', 'ı', 'ł', 'œ', 'š', 'ž', '\u{FFFD}', '€',
    ];
    match byte {
        0x80..=0xA0 => FROM_0X80[usize::from(byte - 0x80)],
        other => char::from(other),
    }
}

/// The picture of a first page that is nothing but one JPEG, as scanners and designed covers make them.
fn scanned_cover(pdf: &Pdf, limits: &Limits) -> Option<Cover> {
    /// A page of many objects is a composed page.
    const OBJECTS_LOOKED_AT: usize = 8;
    let page = pdf.pages().first()?;
    let resources: Dict<'_> = page.raw().get("Resources")?;
    let objects: Dict<'_> = resources.get("XObject")?;
    let mut pictures = objects.keys().take(OBJECTS_LOOKED_AT).filter_map(|name| {
        let stream: Stream<'_> = objects.get(name)?;
        (stream.dict().get::<Name<'_>>("Subtype")?.as_str() == "Image").then_some(stream)
    });
    let picture = pictures.next()?;
    if pictures.next().is_some() || picture.filters().as_slice() != [Filter::DctDecode] {
        return None;
    }
    // CMYK and the like need the document's colour space to be seen as they should.
    let color_space = picture.dict().get::<Name<'_>>("ColorSpace")?;
    if !matches!(color_space.as_str(), "DeviceRGB" | "DeviceGray") {
        return None;
    }
    Cover::accept(picture.raw_data().into_owned(), limits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_strings_come_in_three_encodings() {
        assert_eq!(text(b"\xFE\xFF\x00\xE9\x06\x43"), "éك");
        assert_eq!(text("\u{FEFF}é".as_bytes()), "é");
        assert_eq!(text(b"caf\xE9 \x84 \xA0"), "café — €");
    }

    #[test]
    fn titles_made_by_word_processors_are_mended() {
        assert_eq!(meant_title("Microsoft Word - report.doc"), "report.doc");
        assert_eq!(meant_title("Untitled"), "");
        assert_eq!(meant_title("Soil"), "Soil");
    }
}
