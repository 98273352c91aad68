//! Still pictures: their size and what their EXIF says, from their headers; no pixel is decoded.
//!
//! Not here: whether the file is whole (`whole`), decoding and analysis (`alexandria-ml`).

mod whole;

use std::{
    fs::File,
    io::{BufReader, Cursor, Read, Seek},
};

use exif::{In, Tag, Value};
use imagesize::ImageType;
use tiff::{decoder::Decoder, tags::Tag as TiffTag};

use super::{Inspection, Limits, MediaKind, Source, refusal::Refusal, sniff::Format, wording};

pub(super) fn inspect(source: Source<'_>, format: Format) -> Result<Inspection, Refusal> {
    let mut reader = BufReader::new(source.file);
    let mut inspection = Inspection::bare(MediaKind::Image, mime(format), source.size_bytes);
    let (width_px, height_px) = if format == Format::Tiff {
        tiff_size(&mut reader, source.size_bytes)?
    } else {
        let size = imagesize::reader_size(&mut reader).map_err(|error| unreadable_size(format, error))?;
        (size.width as u64, size.height as u64)
    };
    check_size(width_px, height_px, source.limits)?;
    reader.rewind().map_err(Refusal::Io)?;
    whole::check(&mut reader, format, source.size_bytes)?;

    let (mut width_px, mut height_px) = (width_px as u32, height_px as u32);
    reader.rewind().map_err(Refusal::Io)?;
    if let Some(exif) = read_exif(&mut reader, format) {
        if is_turned(&exif) {
            (width_px, height_px) = (height_px, width_px);
        }
        inspection.title = exif_text(&exif, Tag::ImageDescription).unwrap_or_default();
        if let Some(name) = exif_text(&exif, Tag::Artist) {
            inspection.add_author(&name);
        }
        inspection.published = exif_text(&exif, Tag::DateTimeOriginal).and_then(|date| wording::date(&date));
    }
    (inspection.width_px, inspection.height_px) = (Some(width_px), Some(height_px));
    Ok(inspection)
}

/// The type of a picture found inside another file, if it is one that browsers show and is of bearable size.
pub(super) fn acceptable_mime(bytes: &[u8], limits: &Limits) -> Option<&'static str> {
    let mime = match imagesize::image_type(bytes).ok()? {
        ImageType::Jpeg => "image/jpeg",
        ImageType::Png => "image/png",
        ImageType::Webp => "image/webp",
        ImageType::Gif => "image/gif",
        _ => return None,
    };
    let size = imagesize::blob_size(bytes).ok()?;
    check_size(size.width as u64, size.height as u64, limits).ok()?;
    Some(mime)
}

fn mime(format: Format) -> &'static str {
    match format {
        Format::Jpeg => "image/jpeg",
        Format::Png => "image/png",
        Format::WebP => "image/webp",
        Format::Gif => "image/gif",
        _ => "image/tiff",
    }
}

fn check_size(width_px: u64, height_px: u64, limits: &Limits) -> Result<(), Refusal> {
    let side_max = u64::from(limits.picture_side_px_max);
    if width_px == 0 || height_px == 0 {
        return Err(Refusal::Incomplete { format: "a picture", part: "any pixels" });
    }
    if width_px > side_max || height_px > side_max || width_px * height_px > limits.picture_pixels_max {
        return Err(Refusal::PictureTooLarge { width_px, height_px });
    }
    Ok(())
}

fn unreadable_size(format: Format, error: imagesize::ImageError) -> Refusal {
    match error {
        imagesize::ImageError::IoError(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
            Refusal::Truncated { format: format.name(), missing: "its header is not whole" }
        }
        error => Refusal::damaged(format.name(), error),
    }
}

/// Width and height of the first picture, whose strips or tiles must all lie inside the file.
fn tiff_size(reader: &mut BufReader<File>, size_bytes: u64) -> Result<(u64, u64), Refusal> {
    let name = Format::Tiff.name();
    let damaged = |error| Refusal::damaged(name, error);
    let mut decoder = Decoder::new(reader).map_err(damaged)?;
    let (width_px, height_px) = decoder.dimensions().map_err(damaged)?;
    for (offsets, lengths) in
        [(TiffTag::StripOffsets, TiffTag::StripByteCounts), (TiffTag::TileOffsets, TiffTag::TileByteCounts)]
    {
        let offsets = decoder.find_tag_unsigned_vec::<u64>(offsets).map_err(damaged)?.unwrap_or_default();
        let lengths = decoder.find_tag_unsigned_vec::<u64>(lengths).map_err(damaged)?.unwrap_or_default();
        let outside = |(offset, length): (&u64, &u64)| offset.saturating_add(*length) > size_bytes;
        if offsets.iter().zip(&lengths).any(outside) {
            return Err(Refusal::Truncated { format: name, missing: "part of its pixels is missing" });
        }
    }
    Ok((width_px.into(), height_px.into()))
}

/// EXIF is an extra: a picture with none, or a bad one, is still a picture.
fn read_exif(reader: &mut BufReader<File>, format: Format) -> Option<exif::Exif> {
    /// The parser takes a TIFF whole, and other formats' EXIF segments; what lies beyond is not looked at.
    const EXIF_WITHIN_BYTES: u64 = 16 * 1024 * 1024;
    if !matches!(format, Format::Jpeg | Format::Png | Format::WebP | Format::Tiff) {
        return None;
    }
    let mut head = Vec::new();
    reader.take(EXIF_WITHIN_BYTES).read_to_end(&mut head).ok()?;
    let mut parser = exif::Reader::new();
    parser.continue_on_error(true);
    parser.read_from_container(&mut Cursor::new(head)).or_else(|error| error.distill_partial_result(|_| {})).ok()
}

/// Whether the picture is shown turned by a quarter.
fn is_turned(exif: &exif::Exif) -> bool {
    let orientation = exif.get_field(Tag::Orientation, In::PRIMARY).and_then(|field| field.value.get_uint(0));
    matches!(orientation, Some(5..=8))
}

fn exif_text(exif: &exif::Exif, tag: Tag) -> Option<String> {
    let Value::Ascii(parts) = &exif.get_field(tag, In::PRIMARY)?.value else { return None };
    wording::line(&String::from_utf8_lossy(parts.first()?))
}
