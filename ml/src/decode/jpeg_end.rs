//! Whether a JPEG file reaches its end-of-image marker.
//!
//! Walks the segments as ITU-T T.81 annex B lays them out, decoding none. Thumbnails inside a segment are stepped over
//! with it, so that their end is not taken for the image's; what follows the end is nobody's business.

const MARKER: u8 = 0xFF;
const START_OF_IMAGE: u8 = 0xD8;
const END_OF_IMAGE: u8 = 0xD9;
const START_OF_SCAN: u8 = 0xDA;

/// Whether the whole image is there. Ends with the bytes at the latest.
pub(super) fn is_reached(bytes: &[u8]) -> bool {
    let mut rest = bytes;
    loop {
        // Before a marker only fill bytes are in order, but decoders forgive others: so does this.
        let Some(at) = rest.iter().position(|&byte| byte == MARKER) else { return false };
        let Some(&kind) = rest.get(at + 1) else { return false };
        rest = &rest[at + 1..];
        match kind {
            END_OF_IMAGE => return true,
            // A fill byte, a stuffed 0xFF, a restart, TEM, the start: no segment follows.
            MARKER | 0x00 | 0x01 | 0xD0..=0xD7 | START_OF_IMAGE => {}
            _ => {
                let Some(&[high, low]) = rest.get(1..3).and_then(|length| length.first_chunk()) else { return false };
                let segment = 1 + usize::from(u16::from_be_bytes([high, low]));
                let Some(after) = rest.get(segment..) else { return false };
                rest = if kind == START_OF_SCAN { after_scan(after) } else { after };
            }
        }
    }
}

/// From the marker on that ends the coded data of a scan.
fn after_scan(coded: &[u8]) -> &[u8] {
    let end = coded.windows(2).position(|pair| pair[0] == MARKER && !matches!(pair[1], 0x00 | 0xD0..=0xD7 | MARKER));
    end.map_or(&[], |end| &coded[end..])
}

#[cfg(test)]
mod tests {
    use super::is_reached;

    const WHOLE: &[u8] = &[
        0xFF, 0xD8, 0xFF, 0xE1, 0x00, 0x06, 0xFF, 0xD9, 0xFF, 0xD9, // an EXIF segment with an end inside
        0xFF, 0xDA, 0x00, 0x02, 0x12, 0xFF, 0x00, 0xD9, 0xFF, 0xD3,
        0x34, // a scan with a stuffed byte and a restart
        0xFF, 0xD9,
    ];

    #[test]
    fn a_whole_image_ends_and_none_of_its_beginnings_does() {
        assert!(is_reached(WHOLE));
        for end in 0..WHOLE.len() {
            assert!(!is_reached(&WHOLE[..end]), "{end} bytes");
        }
    }

    #[test]
    fn what_follows_the_end_changes_nothing() {
        assert!(is_reached(&[WHOLE, &[0xFF, 0xDA, 0xFF]].concat()));
    }
}
