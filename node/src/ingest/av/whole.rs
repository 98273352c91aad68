//! Whether a recording was cut short, by what its container promises about its own length.
//!
//! An MP3 without a Xing header promises nothing: cut short, it is a shorter MP3.

use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom},
};

use symphonia::core::{
    formats::{FormatReader, SeekMode, SeekTo, TrackType},
    units::Timestamp,
};

use super::super::{Limits, refusal::Refusal, sniff::Format};

/// The last page must be whole: pages are some kilobytes, so nearly every cut falls inside one.
pub(super) fn ogg(file: &mut File, size_bytes: u64, format: Format) -> Result<(), Refusal> {
    /// The largest page has 255 segments of 255 bytes behind a header of 282.
    const PAGE_BYTES_MAX: u64 = 282 + 255 * 255;
    let tail = read_at(file, size_bytes.saturating_sub(PAGE_BYTES_MAX), PAGE_BYTES_MAX).map_err(Refusal::Io)?;
    // The mark may occur in the data by chance, so any mark whose page ends the file will do.
    let is_whole = memchr::memmem::find_iter(&tail, b"OggS").any(|at| {
        let page = &tail[at..];
        let segments = page.get(26).map_or(usize::MAX, |count| usize::from(*count));
        let table = page.get(27..).and_then(|rest| rest.get(..segments));
        table.is_some_and(|table| {
            27 + segments + table.iter().map(|length| usize::from(*length)).sum::<usize>() == page.len()
        })
    });
    if is_whole { Ok(()) } else { Err(cut(format)) }
}

/// The Xing or Info header in the first frame says how many bytes there are.
pub(super) fn mp3(file: &mut File, size_bytes: u64, limits: &Limits) -> Result<(), Refusal> {
    /// Some encoders count one frame more than they write; a real cut loses more than this.
    const SLACK_BYTES: u64 = 2048;
    const FIRST_FRAME_WITHIN_BYTES: u64 = 4096;
    const HAS_FRAMES: u32 = 1;
    const HAS_BYTES: u32 = 2;
    let head = read_at(file, 0, 10).map_err(Refusal::Io)?;
    let audio_start = match head.as_slice() {
        [b'I', b'D', b'3', _, _, _, s0, s1, s2, s3] => {
            10 + [s0, s1, s2, s3].iter().fold(0_u64, |size, byte| size << 7 | u64::from(**byte & 0x7F))
        }
        _ => 0,
    };
    if audio_start > limits.media_index_bytes_max {
        return Err(Refusal::PartTooLarge { part: "tag", bytes_max: limits.media_index_bytes_max });
    }
    if audio_start >= size_bytes {
        return Err(Refusal::Truncated { format: Format::Mp3.name(), missing: "there is nothing after its tags" });
    }
    let frame = read_at(file, audio_start, FIRST_FRAME_WITHIN_BYTES).map_err(Refusal::Io)?;
    let header = memchr::memmem::find(&frame, b"Xing").or_else(|| memchr::memmem::find(&frame, b"Info"));
    let declared = header.and_then(|at| {
        let word =
            |index: usize| Some(u32::from_be_bytes(frame.get(at + 4 * index..at + 4 * index + 4)?.try_into().ok()?));
        let flags = word(1)?;
        if flags & HAS_BYTES == 0 { None } else { word(if flags & HAS_FRAMES == 0 { 2 } else { 3 }) }
    });
    if declared.is_some_and(|bytes| u64::from(bytes) > size_bytes - audio_start + SLACK_BYTES) {
        return Err(cut(Format::Mp3));
    }
    Ok(())
}

/// The metadata blocks before a FLAC's first frame are read into memory; their pictures may be of any size and number.
pub(super) fn flac_tags(file: &mut File, limits: &Limits) -> Result<(), Refusal> {
    const LAST_BLOCK: u8 = 0x80;
    let mut at = 4;
    loop {
        let header = read_at(file, at, 4).map_err(Refusal::Io)?;
        let [kind, s0, s1, s2] = header[..] else { return Err(cut(Format::Flac)) };
        at += 4 + u64::from(u32::from_be_bytes([0, s0, s1, s2]));
        if at > limits.media_index_bytes_max {
            return Err(Refusal::PartTooLarge { part: "tags", bytes_max: limits.media_index_bytes_max });
        }
        if kind & LAST_BLOCK != 0 {
            return Ok(());
        }
    }
}

/// FLAC's header counts its samples; the last of them must be reachable.
pub(super) fn flac_samples(reader: &mut dyn FormatReader) -> Result<(), Refusal> {
    /// The last frame alone may be missing unnoticed.
    const FRAME_SAMPLES: u64 = 65_536;
    let Some(track) = reader.first_track(TrackType::Audio) else { return Ok(()) };
    let Some(samples) = track.num_frames.filter(|samples| *samples > FRAME_SAMPLES) else { return Ok(()) };
    let track_id = track.id;
    let Ok(last) = i64::try_from(samples - 1) else { return Err(cut(Format::Flac)) };
    let to = SeekTo::Timestamp { ts: Timestamp::new(last), track_id };
    let reached = reader.seek(SeekMode::Accurate, to);
    let packet = reached.and_then(|_| reader.next_packet());
    if matches!(packet, Ok(Some(_))) { Ok(()) } else { Err(cut(Format::Flac)) }
}

fn cut(format: Format) -> Refusal {
    Refusal::Truncated { format: format.name(), missing: "it is shorter than it says" }
}

/// Up to `length` bytes from `start`; leaves the file at its beginning.
fn read_at(file: &mut File, start: u64, length: u64) -> io::Result<Vec<u8>> {
    file.seek(SeekFrom::Start(start))?;
    let mut bytes = Vec::new();
    file.take(length).read_to_end(&mut bytes)?;
    file.rewind()?;
    Ok(bytes)
}
