//! The boxes of an ISO media file: that they all lie inside the file; and what the demuxer leaves out, which is the
//! chapter list and the languages of the sound.

use std::{
    fs::File,
    io::{self, BufReader, Read, Seek, SeekFrom},
};

use super::super::{Chapter, ChapterStart, Limits, refusal::Refusal, sniff::Format, wording};

/// What the demuxer does not tell.
pub(super) struct Scanned {
    pub(super) chapters: Vec<Chapter>,
    /// ISO 639-2 codes.
    pub(super) languages: Vec<String>,
}

/// Walks the top-level boxes, then looks for Nero's chapter list (`moov/udta/chpl`), which ffmpeg and most podcast
/// tools write.
///
/// # Errors
///
/// [`Refusal::Truncated`] if a box ends past the end of the file or the index is missing, [`Refusal::PartTooLarge`]
/// for an index that no honest file needs.
pub(super) fn scan(file: &mut File, size_bytes: u64, limits: &Limits) -> Result<Scanned, Refusal> {
    /// A day of live recording in one-second fragments.
    const TOP_LEVEL_BOXES_MAX: usize = 200_000;
    let truncated = |missing| Refusal::Truncated { format: Format::Mp4.name(), missing };
    let mut reader = BufReader::new(file);
    let mut movie = None;
    let mut at = 0;
    for _ in 0..TOP_LEVEL_BOXES_MAX {
        let Some(found) = read_box(&mut reader, at, size_bytes).map_err(Refusal::Io)? else { break };
        if found.end > size_bytes {
            return Err(truncated("part of its recording is missing"));
        }
        if found.kind == *b"moov" {
            movie = Some(found);
        }
        at = found.end;
    }
    let Some(movie) = movie else { return Err(truncated("its index is missing")) };
    if movie.end - movie.body > limits.media_index_bytes_max {
        return Err(Refusal::PartTooLarge { part: "index", bytes_max: limits.media_index_bytes_max });
    }
    let chapters = chapter_list(&mut reader, movie, limits).unwrap_or_default();
    let languages = sound_languages(&mut reader, movie);
    reader.rewind().map_err(Refusal::Io)?;
    Ok(Scanned { chapters, languages })
}

#[derive(Clone, Copy)]
struct MediaBox {
    kind: [u8; 4],
    body: u64,
    end: u64,
}

/// The box at `at`, or `None` where no further box fits before `end`.
fn read_box(reader: &mut BufReader<&mut File>, at: u64, end: u64) -> io::Result<Option<MediaBox>> {
    const HEADER_BYTES: u64 = 8;
    const LARGE_HEADER_BYTES: u64 = 16;
    if at.saturating_add(HEADER_BYTES) > end {
        return Ok(None);
    }
    reader.seek(SeekFrom::Start(at))?;
    let mut header = [0; 8];
    reader.read_exact(&mut header)?;
    let [s0, s1, s2, s3, kind @ ..] = header;
    let (body, size) = match u32::from_be_bytes([s0, s1, s2, s3]) {
        0 => (at + HEADER_BYTES, end - at),
        1 if at.saturating_add(LARGE_HEADER_BYTES) <= end => {
            let mut large = [0; 8];
            reader.read_exact(&mut large)?;
            (at + LARGE_HEADER_BYTES, u64::from_be_bytes(large))
        }
        size => (at + HEADER_BYTES, u64::from(size)),
    };
    // A box smaller than its own header would be walked for ever.
    Ok((size >= body - at).then_some(MediaBox { kind, body, end: at.saturating_add(size) }))
}

fn find(reader: &mut BufReader<&mut File>, inside: MediaBox, kind: [u8; 4]) -> Option<MediaBox> {
    children(reader, inside).into_iter().find(|child| child.kind == kind)
}

fn children(reader: &mut BufReader<&mut File>, inside: MediaBox) -> Vec<MediaBox> {
    /// The children looked at are tracks, and the parts of tracks and tags.
    const CHILDREN_MAX: usize = 1_000;
    let mut found = Vec::new();
    let mut at = inside.body;
    while let Ok(Some(child)) = read_box(reader, at, inside.end) {
        if child.end > inside.end || found.len() == CHILDREN_MAX {
            break;
        }
        found.push(child);
        at = child.end;
    }
    found
}

fn sound_languages(reader: &mut BufReader<&mut File>, movie: MediaBox) -> Vec<String> {
    let tracks = children(reader, movie).into_iter().filter(|child| child.kind == *b"trak");
    tracks.filter_map(|track| sound_language(reader, track)).collect()
}

/// The language in a sound track's media header: three letters of five bits each.
fn sound_language(reader: &mut BufReader<&mut File>, track: MediaBox) -> Option<String> {
    let media = find(reader, track, *b"mdia")?;
    let handler = find(reader, media, *b"hdlr")?;
    let mut kind = [0; 4];
    reader.seek(SeekFrom::Start(handler.body + 8)).ok()?;
    reader.read_exact(&mut kind).ok()?;
    if kind != *b"soun" {
        return None;
    }
    let header = find(reader, media, *b"mdhd")?;
    let mut version = [0; 1];
    reader.seek(SeekFrom::Start(header.body)).ok()?;
    reader.read_exact(&mut version).ok()?;
    let mut packed = [0; 2];
    // After the times, which are wider in version 1.
    reader.seek(SeekFrom::Start(header.body + if version == [1] { 32 } else { 20 })).ok()?;
    reader.read_exact(&mut packed).ok()?;
    let packed = u16::from_be_bytes(packed);
    Some([10, 5, 0].iter().map(|shift| char::from(0x60 + (packed >> shift & 0x1F) as u8)).collect())
}

fn chapter_list(reader: &mut BufReader<&mut File>, movie: MediaBox, limits: &Limits) -> Option<Vec<Chapter>> {
    /// The list counts its entries in one byte, and each title's length in one.
    const CHAPTER_LIST_BYTES_MAX: u64 = 9 + 255 * (9 + 255);
    let user_data = find(reader, movie, *b"udta")?;
    let list = find(reader, user_data, *b"chpl")?;
    reader.seek(SeekFrom::Start(list.body)).ok()?;
    let mut bytes = Vec::new();
    reader.take((list.end - list.body).min(CHAPTER_LIST_BYTES_MAX)).read_to_end(&mut bytes).ok()?;

    let version = *bytes.first()?;
    let mut rest = bytes.get(if version == 0 { 4 } else { 8 }..)?;
    let count = *rest.split_off_first()?;
    let mut chapters = Vec::new();
    for _ in 0..usize::from(count).min(limits.chapters_max) {
        let start = u64::from_be_bytes(rest.split_off(..8)?.try_into().ok()?);
        let length = usize::from(*rest.split_off_first()?);
        let title = String::from_utf8_lossy(rest.split_off(..length)?);
        // Starts count tenths of a microsecond.
        let start_ms = start / 10_000;
        let title = wording::line(&title).unwrap_or_else(|| (chapters.len() + 1).to_string());
        chapters.push(Chapter { title, start: ChapterStart::Ms(start_ms) });
    }
    Some(chapters)
}
