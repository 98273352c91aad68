//! Files for the tests, made by code where that takes few lines, and by `samples/make.sh` where it takes an encoder.

use std::io::{Cursor, Write};

use zip::{CompressionMethod, ZipWriter, write::SimpleFileOptions};

/// Every sample that is sound, with a fitting name.
pub(super) fn all() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("book.epub", epub()),
        ("book2.epub", epub2()),
        ("comic.cbz", comic()),
        ("paper.pdf", pdf()),
        ("scan.pdf", crate::builtin::FILES[2].bytes.to_vec()),
        ("tone.mp3", include_bytes!("samples/tone.mp3").to_vec()),
        ("tone.m4a", include_bytes!("samples/tone.m4a").to_vec()),
        ("tone.ogg", include_bytes!("samples/tone.ogg").to_vec()),
        ("tone.opus", include_bytes!("samples/tone.opus").to_vec()),
        ("tone.flac", include_bytes!("samples/tone.flac").to_vec()),
        ("tone.mp4", include_bytes!("samples/tone.mp4").to_vec()),
        ("tone.webm", include_bytes!("samples/tone.webm").to_vec()),
        ("tone.mkv", include_bytes!("samples/tone.mkv").to_vec()),
        ("dot.jpg", jpeg()),
        ("dot.png", png(3, 2)),
        ("dot.webp", webp()),
        ("dot.gif", gif()),
        ("dot.tiff", tiff()),
        ("notes.txt", "Rain, 3 March.\n".as_bytes().to_vec()),
        ("notes.md", "---\ntitle: Soil\nauthor: Ana\nlang: pt-br\n---\n# Other\n".as_bytes().to_vec()),
        ("page.html", HTML.as_bytes().to_vec()),
    ]
}

pub(super) const HTML: &str = r#"<!DOCTYPE html><html lang="sw"><head><title> Maji &amp; afya </title>
<meta name="author" content="Ben"><meta name="description" content="About <b>water</b>"></head>
<body><h1 id="a">One</h1><p>x<h2>no id</h2><h2 id="b">T<i>w</i>o</h2></body></html>"#;

pub(super) fn archive(entries: &[(&str, &[u8])]) -> Vec<u8> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, bytes) in entries {
        let method = if *name == "mimetype" { CompressionMethod::Stored } else { CompressionMethod::Deflated };
        zip.start_file(*name, SimpleFileOptions::default().compression_method(method)).expect("an entry");
        zip.write_all(bytes).expect("memory takes all");
    }
    zip.finish().expect("an archive").into_inner()
}

pub(super) const CONTAINER: &str = r#"<container xmlns="urn:oasis:names:tc:opendocument:xmlns:container"><rootfiles>
<rootfile full-path="O/p.opf" media-type="application/oebps-package+xml"/></rootfiles></container>"#;

pub(super) const PACKAGE: &str = r#"<?xml version="1.0"?><package xmlns="http://www.idpf.org/2007/opf" version="3.0"
 xmlns:dc="http://purl.org/dc/elements/1.1/"><metadata><dc:title>The Well</dc:title><dc:creator>Ana Bea</dc:creator>
<dc:creator>Carl</dc:creator><dc:language>EN-gb</dc:language><dc:language>fra</dc:language><dc:date>2019-05-06</dc:date>
<dc:publisher>River &amp; Co</dc:publisher><dc:description>&lt;p&gt;Deep.&lt;/p&gt;</dc:description></metadata>
<manifest><item id="n" href="nav.xhtml" media-type="application/xhtml+xml" properties="nav"/>
<item id="c" href="pic/cover.png" media-type="image/png" properties="cover-image"/>
<item id="t" href="t.xhtml" media-type="application/xhtml+xml"/></manifest><spine><itemref idref="t"/></spine></package>"#;

const NAV: &str = r#"<html xmlns="http://www.w3.org/1999/xhtml" xmlns:epub="http://www.idpf.org/2007/ops"><body>
<nav epub:type="toc"><ol><li><a href="t.xhtml">Start</a></li><li><a href="t.xhtml#z">End</a></li></ol></nav></body></html>"#;

pub(super) fn epub() -> Vec<u8> {
    epub_with(&[("O/p.opf", PACKAGE.as_bytes())])
}

/// A book whose entries are replaced by, or added to with, `entries`.
pub(super) fn epub_with(entries: &[(&str, &[u8])]) -> Vec<u8> {
    let cover = png(3, 2);
    let mut all: Vec<(&str, &[u8])> = vec![
        ("mimetype", b"application/epub+zip"),
        ("META-INF/container.xml", CONTAINER.as_bytes()),
        ("O/nav.xhtml", NAV.as_bytes()),
        ("O/t.xhtml", b"<html/>"),
        ("O/pic/cover.png", &cover),
    ];
    for (name, bytes) in entries {
        all.retain(|(held, _)| held != name);
        all.push((name, bytes));
    }
    archive(&all)
}

/// EPUB 2: NCX, the cover named by its item, roles and events as attributes.
fn epub2() -> Vec<u8> {
    let package = br#"<package xmlns:dc="d" xmlns:opf="o"><metadata><dc:title>Old</dc:title><dc:date opf:event="creation">1999</dc:date>
        <dc:date opf:event="publication">2001</dc:date><meta name="cover" content="pic"/></metadata><manifest>
        <item id="ncx" href="toc.ncx" media-type="application/x-dtbncx+xml"/><item id="pic" href="pic/cover.png" media-type="image/png"/>
        <item id="t" href="t.xhtml" media-type="application/xhtml+xml"/></manifest><spine toc="ncx"><itemref idref="t"/></spine></package>"#;
    let ncx = br#"<ncx><navMap><navPoint><navLabel><text>Only</text></navLabel><content src="t.xhtml"/></navPoint></navMap></ncx>"#;
    epub_with(&[("O/p.opf", package), ("O/toc.ncx", ncx)])
}

pub(super) fn comic() -> Vec<u8> {
    let info = br"<ComicInfo><Title>Dawn</Title><Series>Boats</Series><Number>2</Number><Writer>Ana, Ben</Writer><Year>2020</Year>
        <Month>7</Month><LanguageISO>es</LanguageISO></ComicInfo>";
    archive(&[("p10.png", &png(5, 5)), ("p2.png", &png(4, 4)), ("ComicInfo.xml", info), ("__MACOSX/._p1.png", b"x")])
}

/// Two pages, an outline that leads to the second by name and to the first directly.
pub(super) fn pdf() -> Vec<u8> {
    pdf_of(&[
        b"<</Type/Catalog/Pages 2 0 R/Lang(en-US)/Outlines 5 0 R/Names<</Dests<</Names[(two)[4 0 R/Fit]]>>>>>>",
        b"<</Type/Pages/Count 2/Kids[3 0 R 4 0 R]/MediaBox[0 0 99 99]>>",
        b"<</Type/Page/Parent 2 0 R>>",
        b"<</Type/Page/Parent 2 0 R>>",
        b"<</First 6 0 R/Last 7 0 R/Count 2>>",
        b"<</Title(First)/Parent 5 0 R/Next 7 0 R/Dest[3 0 R/Fit]>>",
        b"<</Title<FEFF00E9>/Parent 5 0 R/Next 6 0 R/A<</S/GoTo/D(two)>>>>",
        b"<</Title(Soil and water)/Author(Ana; Ben)/CreationDate(D:20240506070809Z)>>",
    ])
}

/// Numbers `objects` from 1, with the catalogue first and the information last.
pub(super) fn pdf_of(objects: &[&[u8]]) -> Vec<u8> {
    let mut out = b"%PDF-1.7\n".to_vec();
    let mut offsets = Vec::new();
    for (index, object) in objects.iter().enumerate() {
        offsets.push(out.len());
        out.extend_from_slice(format!("{} 0 obj\n", index + 1).as_bytes());
        out.extend_from_slice(object);
        out.extend_from_slice(b"\nendobj\n");
    }
    let xref = out.len();
    out.extend_from_slice(format!("xref\n0 {}\n0000000000 65535 f \n", objects.len() + 1).as_bytes());
    for offset in offsets {
        out.extend_from_slice(format!("{offset:010} 00000 n \n").as_bytes());
    }
    let (size, information) = (objects.len() + 1, objects.len());
    out.extend_from_slice(
        format!("trailer\n<</Size {size}/Root 1 0 R/Info {information} 0 R>>\nstartxref\n{xref}\n%%EOF\n").as_bytes(),
    );
    out
}

/// A PNG whose pixels are nothing: only its header is true.
pub(super) fn png(width: u32, height: u32) -> Vec<u8> {
    let mut header = Vec::new();
    header.extend(width.to_be_bytes());
    header.extend(height.to_be_bytes());
    header.extend([8, 2, 0, 0, 0]);
    let mut out = b"\x89PNG\r\n\x1a\n".to_vec();
    for (kind, data) in [(b"IHDR", header.as_slice()), (b"IDAT", b"pixels"), (b"IEND", b"")] {
        out.extend((data.len() as u32).to_be_bytes());
        out.extend(kind);
        out.extend(data);
        out.extend([0; 4]);
    }
    out
}

/// 8 by 4 pixels, with EXIF saying that it lies on its side, by whom and when.
pub(super) fn jpeg() -> Vec<u8> {
    let mut exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x04".to_vec();
    // Tag, ASCII or SHORT, count, value or offset from the start of the TIFF header.
    exif.extend(b"\x01\x0E\0\x02\0\0\0\x05\0\0\0\x3E");
    exif.extend(b"\x01\x12\0\x03\0\0\0\x01\0\x06\0\0");
    exif.extend(b"\x01\x3B\0\x02\0\0\0\x04Ana\0");
    exif.extend(b"\x87\x69\0\x04\0\0\0\x01\0\0\0\x44");
    exif.extend(b"\0\0\0\0Goat\0\0");
    exif.extend(b"\0\x01\x90\x03\0\x02\0\0\0\x14\0\0\0\x56\0\0\0\0");
    exif.extend(b"2023:01:02 03:04:05\0");
    let mut out = vec![0xFF, 0xD8, 0xFF, 0xE1];
    out.extend((exif.len() as u16 + 2).to_be_bytes());
    out.extend(exif);
    out.extend([0xFF, 0xC0, 0, 11, 8, 0, 4, 0, 8, 1, 1, 0x11, 0]);
    out.extend([0xFF, 0xDA, 0, 8, 1, 1, 0, 0, 63, 0, 1, 2, 0xFF, 0, 3, 0xFF, 0xD0, 4, 0xFF, 0xD9]);
    out
}

fn webp() -> Vec<u8> {
    crate::builtin::FILES.iter().find(|file| file.name == "village-at-night.webp").expect("a WebP").bytes.to_vec()
}

fn gif() -> Vec<u8> {
    let mut out = b"GIF89a\x06\0\x05\0\x80\0\0\0\0\0\xFF\xFF\xFF".to_vec();
    out.extend(b"\x21\xF9\x04\0\0\0\0\0");
    out.extend(b"\x2C\0\0\0\0\x06\0\x05\0\0\x02\x02\x44\x01\0\x3B");
    out
}

/// 2 by 1 grey pixels in one strip at the end.
fn tiff() -> Vec<u8> {
    let entries: [(u16, u16, u32); 9] = [
        (0x100, 3, 2),
        (0x101, 3, 1),
        (0x102, 3, 8),
        (0x103, 3, 1),
        (0x106, 3, 1),
        (0x111, 4, 122),
        (0x115, 3, 1),
        (0x116, 3, 1),
        (0x117, 4, 2),
    ];
    let mut out = b"II*\0\x08\0\0\0\x09\0".to_vec();
    for (tag, kind, value) in entries {
        out.extend(tag.to_le_bytes());
        out.extend(kind.to_le_bytes());
        out.extend(1_u32.to_le_bytes());
        out.extend(value.to_le_bytes());
    }
    out.extend([0; 4]);
    out.extend([7, 8]);
    out
}
