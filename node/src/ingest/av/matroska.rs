//! The level-1 elements of a Matroska or WebM file: that they lie inside the file, that none would fill the memory, and
//! the chapters.
//!
//! The demuxer refuses chapters without an edition's UID, which is how ffmpeg writes every WebM. So chapters are read
//! here, and the demuxer is shown padding in their place ([`Masked`]).

use std::{
    fs::File,
    io::{self, BufReader, Read, Seek, SeekFrom},
};

use symphonia::core::io::MediaSource;

use super::super::{Chapter, ChapterStart, Limits, refusal::Refusal, sniff::Format, wording};

const SEGMENT: u32 = 0x1853_8067;
const CLUSTER: u32 = 0x1F43_B675;
const CUES: u32 = 0x1C53_BB6B;
const VOID: u32 = 0xEC;
const CHAPTERS: u32 = 0x1043_A770;
const EDITION: u32 = 0x45B9;
const ATOM: u32 = 0xB6;
const TIME_START: u32 = 0x91;
const DISPLAY: u32 = 0x80;
const STRING: u32 = 0x85;

/// What the demuxer is not told.
#[derive(Default)]
pub(super) struct Scanned {
    pub(super) chapters: Vec<Chapter>,
    pub(super) mask: Option<Mask>,
}

/// # Errors
///
/// [`Refusal::Truncated`] if an element ends past the end of the file, [`Refusal::PartTooLarge`] for tags, attachments
/// or an index that would be read into memory.
pub(super) fn scan(file: &mut File, size_bytes: u64, format: Format, limits: &Limits) -> Result<Scanned, Refusal> {
    /// A day in clusters of half a second.
    const ELEMENTS_MAX: usize = 200_000;
    let cut = || Refusal::Truncated { format: format.name(), missing: "it is shorter than it says" };
    let mut reader = BufReader::new(file);
    let mut scanned = Scanned::default();
    let mut at = 0;
    for _ in 0..ELEMENTS_MAX {
        let Some(element) = read_element(&mut reader, at, size_bytes).map_err(Refusal::Io)? else { break };
        // A live recording does not know its own length, nor that of its clusters.
        let Some(end) = element.end else {
            if element.id == SEGMENT {
                at = element.body;
                continue;
            }
            break;
        };
        if end > size_bytes {
            return Err(cut());
        }
        if element.id == SEGMENT {
            at = element.body;
            continue;
        }
        if !matches!(element.id, CLUSTER | VOID) && end - element.body > limits.media_index_bytes_max {
            let part = if element.id == CUES { "index" } else { "tags or attachments" };
            return Err(Refusal::PartTooLarge { part, bytes_max: limits.media_index_bytes_max });
        }
        if element.id == CHAPTERS && scanned.mask.is_none() {
            scanned.mask = Mask::over(at, end);
            let mut bytes = Vec::new();
            reader.seek(SeekFrom::Start(element.body)).map_err(Refusal::Io)?;
            reader.by_ref().take(end - element.body).read_to_end(&mut bytes).map_err(Refusal::Io)?;
            scanned.chapters = chapters(&bytes, limits.chapters_max);
        }
        at = end;
    }
    reader.rewind().map_err(Refusal::Io)?;
    Ok(scanned)
}

struct Element {
    id: u32,
    body: u64,
    /// `None` if the size is unknown.
    end: Option<u64>,
}

fn read_element(reader: &mut BufReader<&mut File>, at: u64, size_bytes: u64) -> io::Result<Option<Element>> {
    const HEADER_BYTES_MAX: u64 = 12;
    if at >= size_bytes {
        return Ok(None);
    }
    reader.seek(SeekFrom::Start(at))?;
    let mut header = Vec::with_capacity(HEADER_BYTES_MAX as usize);
    reader.by_ref().take(HEADER_BYTES_MAX).read_to_end(&mut header)?;
    Ok(parse_header(&header).map(|(id, size, header_bytes)| {
        let body = at + header_bytes as u64;
        Element { id, body, end: size.map(|size| body.saturating_add(size)) }
    }))
}

/// An element's id, its size unless that is unknown, and the length of both.
fn parse_header(bytes: &[u8]) -> Option<(u32, Option<u64>, usize)> {
    let id_length = bytes.first()?.leading_zeros() as usize + 1;
    if id_length > 4 {
        return None;
    }
    let id = bytes.get(..id_length)?.iter().fold(0_u32, |id, byte| id << 8 | u32::from(*byte));
    let size_bytes = &bytes[id_length..];
    let size_length = size_bytes.first()?.leading_zeros() as usize + 1;
    if size_length > 8 {
        return None;
    }
    let mask = (1_u64 << (7 * size_length)) - 1;
    let size = size_bytes.get(..size_length)?.iter().fold(0_u64, |size, byte| size << 8 | u64::from(*byte)) & mask;
    // All bits set means that the size is not known.
    Some((id, (size != mask).then_some(size), id_length + size_length))
}

fn chapters(bytes: &[u8], chapters_max: usize) -> Vec<Chapter> {
    let atoms = Children(bytes)
        .filter(|(id, _)| *id == EDITION)
        .flat_map(|(_, edition)| Children(edition))
        .filter(|(id, _)| *id == ATOM);
    let mut chapters = Vec::new();
    for (_, atom) in atoms.take(chapters_max) {
        let mut start_ms = 0;
        let mut title = None;
        for (id, body) in Children(atom) {
            match id {
                TIME_START => start_ms = unsigned(body) / 1_000_000,
                DISPLAY if title.is_none() => {
                    let mut strings = Children(body).filter(|(id, _)| *id == STRING);
                    title = strings.next().and_then(|(_, text)| wording::line(&String::from_utf8_lossy(text)));
                }
                _ => {}
            }
        }
        let title = title.unwrap_or_else(|| (chapters.len() + 1).to_string());
        chapters.push(Chapter { title, start: ChapterStart::Ms(start_ms) });
    }
    chapters
}

/// The elements side by side in some bytes, as far as they are whole.
struct Children<'a>(&'a [u8]);

impl<'a> Iterator for Children<'a> {
    type Item = (u32, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let (id, size, header_bytes) = parse_header(self.0)?;
        let body_end = usize::try_from(size?).ok()?.checked_add(header_bytes)?;
        let body = self.0.get(header_bytes..body_end)?;
        self.0 = &self.0[body_end..];
        Some((id, body))
    }
}

fn unsigned(bytes: &[u8]) -> u64 {
    bytes.iter().take(8).fold(0, |value, byte| value << 8 | u64::from(*byte))
}

/// A header of padding, to be read in place of what stands at `at`.
#[derive(Clone, Copy)]
pub(super) struct Mask {
    at: u64,
    header: [u8; 9],
}

impl Mask {
    fn over(at: u64, end: u64) -> Option<Self> {
        let mut header = [0; 9];
        // Chapters take at least this much; a shorter element holds nothing that could be refused.
        let size = (end - at).checked_sub(header.len() as u64)?;
        header[0] = VOID as u8;
        // One bit that says eight bytes, then the size.
        header[1..].copy_from_slice(&(size | 1 << 56).to_be_bytes());
        Some(Self { at, header })
    }
}

/// A file with a [`Mask`] over some of its bytes.
pub(super) struct Masked {
    file: File,
    position: u64,
    size_bytes: u64,
    mask: Mask,
}

impl Masked {
    pub(super) fn new(file: File, size_bytes: u64, mask: Mask) -> Self {
        Self { file, position: 0, size_bytes, mask }
    }
}

impl Read for Masked {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read(buffer)?;
        for (offset, byte) in buffer[..read].iter_mut().enumerate() {
            let inside = (self.position + offset as u64).checked_sub(self.mask.at);
            if let Some(masked) = inside.and_then(|inside| self.mask.header.get(usize::try_from(inside).ok()?)) {
                *byte = *masked;
            }
        }
        self.position += read as u64;
        Ok(read)
    }
}

impl Seek for Masked {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.position = self.file.seek(to)?;
        Ok(self.position)
    }
}

impl MediaSource for Masked {
    fn is_seekable(&self) -> bool {
        true
    }

    fn byte_len(&self) -> Option<u64> {
        Some(self.size_bytes)
    }
}
