//! What every format gives, what hostile files get, and that nothing panics past `inspect`.

mod hostile;
mod metadata;

use std::collections::HashSet;
use std::fs;

use alexandria_sync::chunk::{ChunkHash, Chunker, Chunking};
use proptest::prelude::*;

use super::{InspectError, Inspection, Limits, Refusal, inspect, samples};

/// Inspects `bytes` under `name`, with small limits so that hostile files can stay small.
fn inspect_bytes(name: &str, bytes: &[u8]) -> Result<Inspection, InspectError> {
    inspect_within(name, bytes, &Limits::default())
}

fn inspect_within(name: &str, bytes: &[u8], limits: &Limits) -> Result<Inspection, InspectError> {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join(name);
    fs::write(&path, bytes).expect("a file");
    inspect(&path, limits)
}

fn refusal(name: &str, bytes: &[u8]) -> Refusal {
    match inspect_bytes(name, bytes) {
        Ok(inspection) => panic!("{name} was taken: {inspection:?}"),
        Err(error) => error.reason,
    }
}

/// Bytes that nothing compresses.
fn picture(number: u8) -> Vec<u8> {
    let mut bytes = vec![0; 400_000];
    blake3::Hasher::new().update(&[number]).finalize_xof().fill(&mut bytes);
    bytes
}

/// Its pictures are where they were, or moved by what changed before them: a link carries what is new only.
#[test]
fn a_new_edition_of_a_book_shares_the_chunks_of_its_pictures() {
    let pictures: Vec<(String, Vec<u8>)> =
        (0..16).map(|number| (format!("O/pic/{number}.jpg"), picture(number))).collect();
    let edition = |chapter: &str| {
        let mut entries = vec![("O/p.opf", samples::PACKAGE.as_bytes()), ("O/t.xhtml", chapter.as_bytes())];
        entries.extend(pictures.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice())));
        let bytes = samples::epub_with(&entries);
        let mut chunker =
            Chunker::new(Chunking::for_media_type(inspect_bytes("book.epub", &bytes).expect("a book").mime));
        chunker.update(&bytes);
        chunker.finish().expect("not too many chunks")
    };
    let before = edition("<html>The first edition.</html>");
    let after = edition("<html>The second edition, with a word more.</html>");
    let known: HashSet<ChunkHash> = before.chunks().iter().map(|chunk| chunk.hash).collect();
    let new_bytes: u64 =
        after.chunks().iter().filter(|chunk| !known.contains(&chunk.hash)).map(|chunk| u64::from(chunk.len)).sum();
    assert!(new_bytes <= 2 << 20, "{new_bytes} of {} bytes are new", after.size_bytes());
}

#[test]
fn every_builtin_file_is_taken_with_a_title() {
    for file in crate::builtin::FILES {
        let inspection = inspect_bytes(file.name, file.bytes).expect(file.name);
        assert_eq!(inspection.size_bytes, file.bytes.len() as u64);
        assert!(!inspection.title.is_empty(), "{}", file.name);
    }
}

#[test]
fn every_sample_is_taken_by_its_content_alone() {
    for (name, bytes) in samples::all() {
        let named = inspect_bytes(name, &bytes).expect(name);
        // Without a name, weak marks do not count; these samples' are strong, but for text and comics.
        if !["comic.cbz", "notes.txt", "notes.md", "page.html"].contains(&name) {
            let unnamed = inspect_bytes("sample", &bytes).expect(name);
            assert_eq!((named.mime, named.pages), (unnamed.mime, unnamed.pages));
        }
    }
}

proptest! {
    /// Wherever a file is cut, it is taken or refused, in bounded time, without a panic.
    #[test]
    fn truncated_files_never_panic(sample in 0..samples::all().len(), cut in 0.0..1.0_f64) {
        let (name, bytes) = samples::all().swap_remove(sample);
        let kept = (bytes.len() as f64 * cut) as usize;
        let result = inspect_bytes(name, &bytes[..kept]);
        prop_assert!(!is_parser_failure(&result), "{name} cut to {kept}");
    }

    /// Whichever bytes of a file are flipped, the same.
    #[test]
    fn damaged_files_never_panic(
        sample in 0..samples::all().len(),
        flips in proptest::collection::vec((0.0..1.0_f64, any::<u8>()), 1..12),
    ) {
        let (name, mut bytes) = samples::all().swap_remove(sample);
        // Headers are where parsers live, so half of the flips go there.
        let length = bytes.len();
        for (index, (place, value)) in flips.iter().enumerate() {
            let range = if index % 2 == 0 { length } else { length.min(512) };
            let at = ((range as f64 * place) as usize).min(length - 1);
            bytes[at] ^= value | 1;
        }
        let result = inspect_bytes(name, &bytes);
        prop_assert!(!is_parser_failure(&result), "{name} with {flips:?}");
    }

    /// Bytes of no format at all, under any name.
    #[test]
    fn noise_never_panics(sample in 0..samples::all().len(), noise in proptest::collection::vec(any::<u8>(), 0..4096)) {
        let (name, bytes) = samples::all().swap_remove(sample);
        let mut behind_mark = bytes[..bytes.len().min(12)].to_vec();
        behind_mark.extend_from_slice(&noise);
        prop_assert!(!is_parser_failure(&inspect_bytes(name, &behind_mark)));
        prop_assert!(!is_parser_failure(&inspect_bytes(name, &noise)));
    }
}

fn is_parser_failure(result: &Result<Inspection, InspectError>) -> bool {
    matches!(result, Err(InspectError { reason: Refusal::ParserFailed { .. }, .. }))
}
