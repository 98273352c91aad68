//! Files that are broken, mislabelled or made to do harm are refused with a reason that names what is wrong.

use std::{
    fs::{self, File},
    io::{Seek, SeekFrom, Write},
    path::Path,
};

use flate2::{Compression, write::ZlibEncoder};

use super::{
    super::{Limits, MediaKind, Refusal, inspect, samples},
    inspect_bytes, inspect_within, refusal,
};

const ZEROS_BYTES: usize = 80 * 1024 * 1024;

#[test]
fn a_zip_bomb_is_refused() {
    let bomb = samples::epub_with(&[("O/t.xhtml", &vec![b' '; ZEROS_BYTES])]);
    assert!(bomb.len() < 200_000, "the bomb is small");
    assert!(matches!(refusal("bomb.epub", &bomb), Refusal::Bomb { .. }));
}

#[test]
fn a_zip_bomb_that_lies_about_its_size_is_refused() {
    let mut bomb = samples::epub_with(&[("O/t.xhtml", &vec![b' '; ZEROS_BYTES])]);
    let claimed = (ZEROS_BYTES as u32).to_le_bytes();
    for at in memchr::memmem::find_iter(&bomb.clone(), &claimed) {
        bomb[at..at + 4].copy_from_slice(&100_u32.to_le_bytes());
    }
    assert!(matches!(refusal("bomb.epub", &bomb), Refusal::Bomb { .. } | Refusal::Damaged { .. }));
}

#[test]
fn an_archive_of_very_many_entries_is_refused() {
    let limits = Limits { archive_entries_max: 4, ..Limits::default() };
    let error = inspect_within("book.epub", &samples::epub(), &limits).expect_err("six entries");
    assert!(matches!(error.reason, Refusal::TooManyEntries { entries: 6, entries_max: 4 }));
}

#[test]
fn a_path_traversal_is_refused_naming_the_entry() {
    for name in ["../../etc/passwd", "/etc/passwd", "O\\..\\..\\x"] {
        let refused = refusal("book.epub", &samples::epub_with(&[(name, b"x")]));
        assert!(matches!(&refused, Refusal::UnsafeEntryName { entry } if entry == name), "{refused}");
    }
    let comic = samples::archive(&[("1.png", &samples::png(3, 2)), ("../x.png", b"x")]);
    assert!(matches!(refusal("comic.cbz", &comic), Refusal::UnsafeEntryName { .. }));
}

#[test]
fn entities_defined_inside_a_book_are_refused() {
    let package = samples::PACKAGE.replace(
        "<package",
        r#"<!DOCTYPE package [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;"><!ENTITY x SYSTEM "file:///etc/passwd">]><package"#,
    );
    let refused = refusal("book.epub", &samples::epub_with(&[("O/p.opf", package.as_bytes())]));
    assert!(matches!(refused, Refusal::EntityDeclarations { .. }), "{refused}");
}

#[test]
fn a_huge_package_document_is_refused() {
    let package = samples::PACKAGE.replace("</metadata>", &format!("<!--{}--></metadata>", "é".repeat(5_000_000)));
    let refused = refusal("book.epub", &samples::epub_with(&[("O/p.opf", package.as_bytes())]));
    assert!(matches!(refused, Refusal::PartTooLarge { part: "package document", .. }), "{refused}");
}

#[test]
fn a_locked_book_is_refused() {
    let locked = samples::epub_with(&[("META-INF/rights.xml", b"<rights/>")]);
    assert!(matches!(refusal("book.epub", &locked), Refusal::Locked));
}

#[test]
fn a_book_without_a_text_or_package_is_refused() {
    let empty = samples::PACKAGE.replace("<itemref idref=\"t\"/>", "");
    let refused = refusal("book.epub", &samples::epub_with(&[("O/p.opf", empty.as_bytes())]));
    assert_eq!(refused.to_string(), "it is an EPUB book without any text in its reading order");
    let missing = samples::epub_with(&[("META-INF/container.xml", b"<container/>")]);
    assert!(matches!(refusal("book.epub", &missing), Refusal::Incomplete { .. }));
}

#[test]
fn a_picture_of_60000_by_60000_is_refused_by_its_header() {
    let refused = refusal("huge.png", &samples::png(60_000, 60_000));
    assert!(matches!(refused, Refusal::PictureTooLarge { width_px: 60_000, height_px: 60_000 }));
    assert!(matches!(refusal("wide.png", &samples::png(60_000, 1)), Refusal::PictureTooLarge { .. }));
    assert!(matches!(refusal("none.png", &samples::png(0, 5)), Refusal::Incomplete { .. } | Refusal::Damaged { .. }));
}

#[test]
fn a_huge_cover_is_left_out_and_its_book_taken() {
    let book = samples::epub_with(&[
        ("O/p.opf", samples::PACKAGE.as_bytes()),
        ("O/pic/cover.png", &samples::png(60_000, 60_000)),
    ]);
    assert_eq!(inspect_bytes("book.epub", &book).expect("a book").cover, None);
}

#[test]
fn a_pdf_cut_in_half_is_refused() {
    for bytes in [samples::pdf(), crate::builtin::FILES[2].bytes.to_vec()] {
        let refused = refusal("half.pdf", &bytes[..bytes.len() / 2]);
        assert_eq!(refused.to_string(), "it is a PDF document that was cut short: its end mark is missing");
    }
}

#[test]
fn every_half_of_a_structured_file_is_refused() {
    for (name, bytes) in samples::all() {
        if [".txt", ".md", ".html"].iter().any(|ending| name.ends_with(ending)) {
            continue;
        }
        let refused = refusal(name, &bytes[..bytes.len() / 2]);
        assert!(
            matches!(refused, Refusal::Truncated { .. } | Refusal::Damaged { .. } | Refusal::Incomplete { .. }),
            "{name}: {refused}"
        );
    }
}

#[test]
fn a_pdf_whose_structure_is_a_bomb_is_refused() {
    let mut packed = ZlibEncoder::new(Vec::new(), Compression::best());
    packed.write_all(&vec![b' '; ZEROS_BYTES]).expect("memory");
    let packed = packed.finish().expect("memory");
    let catalog: &[u8] = b"<</Type/Catalog/Pages 2 0 R>>";
    for dictionary in [
        "/Type/ObjStm/N 1/First 4/Filter/FlateDecode",
        "/Type/ObjStm/N 1/F#69rst 4/Filter/FlateDecode",
        "/N 1/First 4/Filter[/FlateDecode]",
        "/N 1/First 4/Filter[/FlateDecode/FlateDecode]",
        "/N 1/First 4/Filter[/ASCIIHexDecode/FlateDecode]",
        "/N 1/First 4/F/Fl",
        "/N 1/First 4/Filter 9 0 R",
    ] {
        let mut stream = format!("<<{dictionary}/Length {}>>\nstream\n", packed.len()).into_bytes();
        stream.extend_from_slice(&packed);
        stream.extend_from_slice(b"\nendstream");
        let bytes = samples::pdf_of(&[catalog, b"<</Type/Pages/Count 0/Kids[]>>", &stream]);
        let refused = refusal("bomb.pdf", &bytes);
        assert!(
            matches!(
                refused,
                Refusal::Bomb { .. } | Refusal::Incomplete { part: "a structure that can be unpacked safely", .. }
            ),
            "{dictionary}: {refused}"
        );
    }
}

#[test]
fn a_pdf_nested_a_million_deep_is_contained() {
    let deep = [b"[".repeat(1_000_000), b"]".repeat(1_000_000)].concat();
    let kids = [b"<</Type/Pages/Count 1/Kids".as_slice(), &deep, b">>"].concat();
    let bytes = samples::pdf_of(&[b"<</Type/Catalog/Pages 2 0 R>>", &kids, b"<</Title(x)>>"]);
    assert!(inspect_bytes("deep.pdf", &bytes).is_err());
    let dictionaries = [b"<</A".repeat(500_000), b">>".repeat(500_000)].concat();
    let bytes = samples::pdf_of(&[&dictionaries, b"<</Title(x)>>"]);
    assert!(inspect_bytes("deep.pdf", &bytes).is_err());
}

#[test]
fn an_encrypted_pdf_is_taken_under_its_name() {
    let bytes = [samples::pdf().as_slice(), b"\ntrailer<</Encrypt 9 0 R>>\n%%EOF"].concat();
    let inspection = inspect_bytes("secret-plans.pdf", &bytes).expect("a document");
    assert_eq!((inspection.title.as_str(), inspection.pages), ("Secret plans", None));
}

#[test]
fn mislabelled_files_are_refused_naming_what_they_are() {
    for (name, bytes, actual) in [
        ("a.pdf", samples::epub(), "data of no kind that is known here"),
        ("a.epub", samples::pdf(), "a PDF document"),
        ("a.jpg", samples::HTML.as_bytes().to_vec(), "a web page"),
        ("a.mp3", samples::png(3, 2), "a PNG picture"),
        ("a.cbz", samples::epub(), "an EPUB book"),
        ("a.epub", samples::comic(), "a ZIP archive"),
        ("a.txt", samples::pdf(), "a PDF document"),
    ] {
        let refused = refusal(name, &bytes);
        let Refusal::Mislabelled { actual: named, .. } = &refused else { panic!("{name}: {refused}") };
        // An EPUB's own mark makes the general sniffer call it a book.
        assert!(named == &actual || name == "a.pdf", "{name}: {refused}");
    }
}

#[test]
fn a_refusal_names_the_file_and_the_reason() {
    let error = inspect(Path::new("/nonexistent/book.epub"), &Limits::default()).expect_err("no such file");
    assert!(error.to_string().starts_with("/nonexistent/book.epub: it cannot be read: "), "{error}");
    assert!(matches!(refusal("empty.pdf", b""), Refusal::Empty));
}

#[cfg(unix)]
#[test]
fn devices_and_folders_are_not_opened() {
    for path in ["/dev/zero", "/"] {
        let error = inspect(Path::new(path), &Limits::default()).expect_err("not a file");
        assert!(matches!(error.reason, Refusal::NotAFile));
    }
}

#[test]
fn a_video_of_more_than_four_gigabytes_is_read_by_seeking() {
    const GAP_BYTES: u64 = 5 * 1024 * 1024 * 1024;
    let (_, video) = samples::all().into_iter().find(|(name, _)| *name == "tone.mp4").expect("a sample");
    let first_box_bytes = u32::from_be_bytes(video[..4].try_into().expect("four bytes")) as usize;
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("long.mp4");
    let mut file = File::create(&path).expect("a file");
    file.write_all(&video[..first_box_bytes]).expect("written");
    // A box of padding that takes no room on the disk.
    file.write_all(&[0, 0, 0, 1, b'f', b'r', b'e', b'e']).expect("written");
    file.write_all(&(GAP_BYTES + 16).to_be_bytes()).expect("written");
    file.seek(SeekFrom::Current(GAP_BYTES as i64)).expect("moved");
    file.write_all(&video[first_box_bytes..]).expect("written");
    drop(file);

    let read_before = bytes_read();
    let inspection = inspect(&path, &Limits::default()).expect("a video");
    assert_eq!(inspection.media_kind, MediaKind::Video);
    assert!(inspection.size_bytes > GAP_BYTES);
    if let (Some(before), Some(after)) = (read_before, bytes_read()) {
        assert!(after - before < GAP_BYTES / 8, "{} bytes were read", after - before);
    }
}

/// What this process has read so far, where the system tells. Other tests read too, but not gigabytes.
fn bytes_read() -> Option<u64> {
    let text = fs::read_to_string("/proc/self/io").ok()?;
    text.lines().find_map(|line| line.strip_prefix("rchar: "))?.parse().ok()
}

#[test]
fn indexes_and_tags_that_would_fill_the_memory_are_refused() {
    let limits = Limits { media_index_bytes_max: 40, ..Limits::default() };
    for (name, bytes) in samples::all() {
        if ["tone.mp4", "tone.m4a", "tone.webm", "tone.mkv", "tone.mp3", "tone.flac"].contains(&name) {
            let error = inspect_within(name, &bytes, &limits).expect_err(name);
            assert!(matches!(error.reason, Refusal::PartTooLarge { bytes_max: 40, .. }), "{error}");
        }
    }
}
