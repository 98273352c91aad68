//! Whether the parts of a PDF that its parser unpacks into memory are of bearable size, before it does.
//!
//! The parser inflates object streams and cross-reference streams with no bound of its own, so a small file could ask
//! for any amount of memory. Every stream that could be one of these is inflated here first, to nowhere. Streams of
//! pages and pictures are never unpacked by what this crate asks of the parser, so they may be of any size.

use flate2::read::ZlibDecoder;
use memchr::memmem;

use std::io::{self, Read};

use super::super::{Limits, refusal::Refusal, sniff::Format};

/// Whether the file says anywhere that it is encrypted.
pub(super) fn is_encrypted(bytes: &[u8]) -> bool {
    memmem::find(bytes, b"/Encrypt").is_some()
}

/// Refuses a file whose structural streams unpack to more than [`Limits::pdf_structure_bytes_max`], or are packed in a
/// way that honest producers do not use and that cannot be measured.
pub(super) fn check(bytes: &[u8], limits: &Limits) -> Result<(), Refusal> {
    let unpacked_bytes_max = limits.pdf_structure_bytes_max;
    let mut left = unpacked_bytes_max;
    for at in memmem::find_iter(bytes, b"stream") {
        let Some(data) = data_after(bytes, at) else { continue };
        let dictionary = dictionary_before(bytes, at);
        if !is_structural(dictionary) {
            continue;
        }
        match packing(dictionary) {
            Packing::None => {}
            Packing::Flate => {
                let mut inflated = ZlibDecoder::new(data).take(left + 1);
                // The parser would try other ways to inflate a damaged stream, which are not measured here.
                let unpacked = io::copy(&mut inflated, &mut io::sink()).map_err(|_| unmeasurable())?;
                left = left.checked_sub(unpacked).ok_or(Refusal::Bomb { unpacked_bytes_max })?;
            }
            Packing::Unmeasurable => return Err(unmeasurable()),
        }
    }
    Ok(())
}

/// What follows the keyword `stream` and its line end; `None` for `endstream` and for the word in running text.
fn data_after(bytes: &[u8], at: usize) -> Option<&[u8]> {
    if bytes[..at].ends_with(b"end") {
        return None;
    }
    match bytes.get(at + b"stream".len()..)? {
        [b'\r', b'\n', data @ ..] | [b'\n' | b'\r', data @ ..] => Some(data),
        _ => None,
    }
}

/// The stream's dictionary and whatever stands between it and the object's beginning.
fn dictionary_before(bytes: &[u8], at: usize) -> &[u8] {
    /// Dictionaries of structural streams take a few hundred bytes; one that hides its beginning is looked at as it is.
    const DICTIONARY_BYTES_MAX: usize = 64 * 1024;
    let window = &bytes[at.saturating_sub(DICTIONARY_BYTES_MAX)..at];
    // "endobj" holds "obj" too, and ends the object before this one.
    memmem::rfind(window, b"obj").map_or(window, |start| &window[start..])
}

/// Object streams have `/First`, cross-reference streams `/W`; a name may hide its letters behind `#xx`.
fn is_structural(dictionary: &[u8]) -> bool {
    let holds = |name: &[u8]| memmem::find(dictionary, name).is_some();
    let widths =
        memmem::find_iter(dictionary, b"/W").any(|at| !dictionary.get(at + 2).is_some_and(u8::is_ascii_alphabetic));
    let hidden = memmem::find_iter(dictionary, b"/").any(|at| {
        let name = &dictionary[at + 1..];
        let end = name.iter().position(|byte| b" \t\r\n\x0C\0/<>[]()%".contains(byte)).unwrap_or(name.len());
        // Only the names that matter here need to be hidden; other escaped names are ordinary.
        name[..end].contains(&b'#') && matters(&unescaped(&name[..end]))
    });
    holds(b"/First") || holds(b"/ObjStm") || holds(b"/XRef") || widths || hidden
}

fn matters(name: &[u8]) -> bool {
    matches!(name, b"First" | b"ObjStm" | b"XRef" | b"W" | b"Filter" | b"F" | b"Encrypt") || name.ends_with(b"Decode")
}

fn unescaped(name: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(name.len());
    let mut rest = name;
    while let [byte, tail @ ..] = rest {
        if *byte == b'#'
            && let Some(value) =
                tail.get(..2).and_then(|hex| u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok())
        {
            out.push(value);
            rest = &tail[2..];
        } else {
            out.push(*byte);
            rest = tail;
        }
    }
    out
}

enum Packing {
    None,
    Flate,
    /// Chained or exotic filters, or hidden names.
    Unmeasurable,
}

fn packing(dictionary: &[u8]) -> Packing {
    let filters = memmem::find_iter(dictionary, b"Decode")
        // `/DecodeParms` is not a filter.
        .filter(|at| !dictionary[at + b"Decode".len()..].starts_with(b"Parms"))
        .count();
    let flate = memmem::find_iter(dictionary, b"/FlateDecode").count();
    let abbreviated = [&b"/Fl "[..], b"/Fl/", b"/Fl>", b"/Fl]", b"/Fl\n", b"/Fl\r", b"/LZW", b"/AHx", b"/A85", b"/RL"]
        .iter()
        .any(|name| memmem::find(dictionary, name).is_some());
    // A filter given by reference cannot be seen from here. `/F` is its short name.
    let values = memmem::find_iter(dictionary, b"/F").filter_map(|at| {
        let name = &dictionary[at + 1..];
        name.strip_prefix(b"Filter")
            .or(name.strip_prefix(b"F"))
            .filter(|value| !value.first().is_some_and(u8::is_ascii_alphabetic))
    });
    let mut filtered = false;
    let mut by_reference = false;
    for value in values {
        let value = value.trim_ascii_start();
        let first = value.strip_prefix(b"[").unwrap_or(value).trim_ascii_start();
        filtered = true;
        by_reference |= first.first().is_some_and(u8::is_ascii_digit);
    }
    match (filters, flate) {
        _ if abbreviated || by_reference || dictionary.contains(&b'#') => Packing::Unmeasurable,
        (0, 0) if !filtered => Packing::None,
        (1, 1) => Packing::Flate,
        _ => Packing::Unmeasurable,
    }
}

fn unmeasurable() -> Refusal {
    Refusal::Incomplete { format: Format::Pdf.name(), part: "a structure that can be unpacked safely" }
}
