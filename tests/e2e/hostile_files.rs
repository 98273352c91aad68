use std::{
    io::{Cursor, Write},
    path::Path,
};

use alexandria_e2e::{
    files::{real, write},
    node::{NodeProcess, NodeSettings},
};
use zip::{ZipWriter, write::SimpleFileOptions};

/// Unpacked, a bomb is larger than any honest book of its size.
const BOMB_BYTES: usize = 400_000_000;
const HUGE_PX: u32 = 60_000;

/// A file's name, its bytes, and a word of the reason that it is refused with.
type Hostile = (&'static str, Vec<u8>, &'static str);

#[tokio::test]
async fn hostile_files_are_refused_by_name_and_reason_and_the_rest_is_imported() {
    let node = NodeSettings::default().bare().start().await;
    let folder = node.scratch().join("mixed");
    let (good, hostile) = (real(), hostile());
    for file in &good {
        write(&folder.join("good"), &file.name, &file.bytes);
    }
    for (name, bytes, _) in &hostile {
        write(&folder.join("hostile"), name, bytes);
    }
    let outside = list(node.scratch());

    let said = import(&node, &folder).await;
    for (name, _, reason) in &hostile {
        let told: Vec<_> = said.lines().filter(|line| line.contains(&format!("/{name}: "))).collect();
        let is_told = matches!(told[..], [line] if line.starts_with("not imported: ") && line.contains(reason));
        assert!(is_told, "{name} is refused once, because of {reason:?}: {said}");
    }
    assert!(said.contains(&format!("{} imported", good.len())), "{said}");
    assert!(said.contains(&format!(" 0 already there, {} refused", hostile.len())), "{said}");
    assert_eq!(list(node.scratch()), outside, "nothing was unpacked beside the data folder");

    let held = node.status().await;
    assert_eq!(held["records"]["media"], good.len());
    let again = import(&node, &folder).await;
    let summary = format!("0 imported (0 B), {} already there, {} refused", good.len(), hostile.len());
    assert!(again.contains(&summary), "{again}");
    let afterwards = node.status().await;
    assert_eq!(afterwards["records"], held["records"], "a second run adds nothing");
    assert_eq!(afterwards["content"]["blobs"], held["content"]["blobs"]);
    assert_eq!(afterwards["content"]["bytes"], held["content"]["bytes"]);
}

#[tokio::test]
async fn a_folder_of_nothing_but_hostile_files_changes_nothing_and_fails() {
    let node = NodeSettings::default().bare().start().await;
    let folder = node.scratch().join("hostile");
    for (name, bytes, _) in hostile() {
        write(&folder, name, &bytes);
    }
    let before = node.status().await;
    let said = node.fails("import", &[folder.to_str().unwrap()]).await;
    assert!(said.contains("0 imported"), "{said}");
    let after = node.status().await;
    assert_eq!(after["records"]["media"], 0);
    assert_eq!(after["records"]["authors"], before["records"]["authors"]);
    assert_eq!(after["content"]["blobs"], 0);
    assert_eq!(after["content"]["bytes"], 0);
    assert_eq!(node.get("/healthz").ok().await.text(), "ok\n");
}

async fn import(node: &NodeProcess, folder: &Path) -> String {
    let output = node.run("import", &[folder.to_str().unwrap()]).await;
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap()
}

fn list(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn hostile() -> Vec<Hostile> {
    let pdf = bytes_of("handbook-en.pdf");
    let epub = bytes_of("handbook-en.epub");
    vec![
        ("bomb.epub", book("O/text.xhtml", &vec![b' '; BOMB_BYTES]), "unpacks to more than"),
        ("huge.png", png_header(HUGE_PX, HUGE_PX), "60000 x 60000"),
        ("traversal.epub", book("../../evil.xhtml", b"<html/>"), "points outside"),
        ("traversal.cbz", archive(&[("1.png", &png_header(4, 4)), ("/etc/cron.d/evil", b"x")]), "points outside"),
        ("half.pdf", pdf[..pdf.len() / 2].to_vec(), "cut short"),
        ("half.epub", epub[..epub.len() / 2].to_vec(), ""),
        ("mislabelled.mp3", png_header(40, 30), "its name ends in .mp3"),
        ("program.pdf", [b"\x7fELF\x02\x01\x01".as_slice(), &[0; 4000]].concat(), ""),
        ("empty.epub", Vec::new(), "empty"),
    ]
}

fn bytes_of(name: &str) -> Vec<u8> {
    real().into_iter().find(|file| file.name == name).unwrap_or_else(|| panic!("{name} is a real file")).bytes
}

/// An EPUB with one more entry.
fn book(entry: &str, bytes: &[u8]) -> Vec<u8> {
    const CONTAINER: &[u8] = br#"<container xmlns="urn:oasis:names:tc:opendocument:xmlns:container"><rootfiles>
        <rootfile full-path="O/p.opf" media-type="application/oebps-package+xml"/></rootfiles></container>"#;
    const PACKAGE: &[u8] = br#"<package xmlns="http://www.idpf.org/2007/opf" version="3.0" xmlns:dc="http://purl.org/dc/elements/1.1/">
        <metadata><dc:title>Not what it seems</dc:title><dc:language>en</dc:language></metadata>
        <manifest><item id="t" href="text.xhtml" media-type="application/xhtml+xml"/></manifest><spine><itemref idref="t"/></spine>
        </package>"#;
    let mut entries: Vec<(&str, &[u8])> =
        vec![("mimetype", b"application/epub+zip"), ("META-INF/container.xml", CONTAINER), ("O/p.opf", PACKAGE)];
    entries.push((entry, bytes));
    archive(&entries)
}

fn archive(entries: &[(&str, &[u8])]) -> Vec<u8> {
    let mut archive = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, bytes) in entries {
        let method =
            if *name == "mimetype" { zip::CompressionMethod::Stored } else { zip::CompressionMethod::Deflated };
        archive.start_file(*name, SimpleFileOptions::default().compression_method(method)).unwrap();
        archive.write_all(bytes).unwrap();
    }
    archive.finish().unwrap().into_inner()
}

/// A PNG that is all header.
fn png_header(width: u32, height: u32) -> Vec<u8> {
    let mut header = [width.to_be_bytes(), height.to_be_bytes()].concat();
    header.extend([8, 2, 0, 0, 0]);
    let mut bytes = b"\x89PNG\r\n\x1a\n".to_vec();
    for (kind, data) in [(b"IHDR", header.as_slice()), (b"IDAT", b"pixels"), (b"IEND", b"")] {
        bytes.extend(u32::try_from(data.len()).unwrap().to_be_bytes());
        bytes.extend(kind);
        bytes.extend(data);
        bytes.extend([0; 4]);
    }
    bytes
}
