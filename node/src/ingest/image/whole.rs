//! Whether a picture's file goes on to its own end mark: a copy that was cut off is found without decoding it.

use std::{
    fs::File,
    io::{self, BufReader, Read, Seek, SeekFrom},
};

use super::super::{refusal::Refusal, sniff::Format};

/// Reads from the start of the file; TIFF is checked with its size, where its offsets are.
pub(super) fn check(reader: &mut BufReader<File>, format: Format, size_bytes: u64) -> Result<(), Refusal> {
    let whole = match format {
        Format::Jpeg => jpeg(reader),
        Format::Png => png(reader, size_bytes),
        Format::WebP => webp(reader, size_bytes),
        Format::Gif => gif(reader),
        _ => Ok(()),
    };
    whole.map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => {
            Refusal::Truncated { format: format.name(), missing: "it ends before its end mark" }
        }
        _ => Refusal::damaged(format.name(), error),
    })
}

/// Marker segments up to the end-of-image marker. The entropy-coded data behind a start of scan has no length; it is
/// passed over in looking for the next marker.
fn jpeg(reader: &mut BufReader<File>) -> io::Result<()> {
    const END_OF_IMAGE: u8 = 0xD9;
    skip(reader, 2)?;
    loop {
        let marker = next_marker(reader)?;
        match marker {
            END_OF_IMAGE => return Ok(()),
            // Stuffed zeros, restart markers and fill bytes have no length; they belong to the scan's data.
            0x00 | 0x01 | 0xD0..=0xD8 => {}
            _ => {
                let length = u64::from(u16::from_be_bytes(array(reader)?));
                skip(reader, length.checked_sub(2).ok_or(io::ErrorKind::InvalidData)?)?;
            }
        }
    }
}

fn next_marker(reader: &mut BufReader<File>) -> io::Result<u8> {
    let mut previous = 0;
    loop {
        let [byte] = array(reader)?;
        if previous == 0xFF && byte != 0xFF {
            return Ok(byte);
        }
        previous = byte;
    }
}

fn png(reader: &mut BufReader<File>, size_bytes: u64) -> io::Result<()> {
    skip(reader, 8)?;
    loop {
        let length = u64::from(u32::from_be_bytes(array(reader)?));
        let kind: [u8; 4] = array(reader)?;
        // The data and its checksum.
        skip(reader, length + 4)?;
        if reader.stream_position()? > size_bytes {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if kind == *b"IEND" {
            return Ok(());
        }
    }
}

fn webp(reader: &mut BufReader<File>, size_bytes: u64) -> io::Result<()> {
    skip(reader, 4)?;
    let riff_bytes = u64::from(u32::from_le_bytes(array(reader)?));
    if riff_bytes + 8 > size_bytes { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(()) }
}

fn gif(reader: &mut BufReader<File>) -> io::Result<()> {
    const IMAGE: u8 = 0x2C;
    const EXTENSION: u8 = 0x21;
    const TRAILER: u8 = 0x3B;
    skip(reader, 10)?;
    let [flags, _, _] = array(reader)?;
    skip(reader, color_table_bytes(flags))?;
    loop {
        match array(reader)? {
            [TRAILER] => return Ok(()),
            [EXTENSION] => skip(reader, 1)?,
            [IMAGE] => {
                let [.., flags] = array::<9>(reader)?;
                // After the colour table, the code size.
                skip(reader, color_table_bytes(flags) + 1)?;
            }
            _ => return Err(io::ErrorKind::InvalidData.into()),
        }
        loop {
            let [block_bytes] = array(reader)?;
            if block_bytes == 0 {
                break;
            }
            skip(reader, block_bytes.into())?;
        }
    }
}

fn color_table_bytes(flags: u8) -> u64 {
    if flags & 0x80 == 0 { 0 } else { 3 << ((flags & 7) + 1) }
}

fn array<const N: usize>(reader: &mut BufReader<File>) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    reader.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// Moves on without reading; a move past the end shows at the next read.
fn skip(reader: &mut BufReader<File>, bytes: u64) -> io::Result<()> {
    if let Ok(offset) = i64::try_from(bytes) {
        return reader.seek_relative(offset);
    }
    reader.seek(SeekFrom::End(0)).map(drop)
}
