//! What each format says about itself reaches the inspection.

use super::{
    super::{Chapter, ChapterStart, Inspection, MediaKind, samples},
    inspect_bytes,
};

fn sample(name: &str) -> Inspection {
    let (_, bytes) = samples::all().into_iter().find(|(held, _)| *held == name).expect("a sample");
    inspect_bytes(name, &bytes).expect(name)
}

fn chapters(inspection: &Inspection) -> Vec<(&str, String)> {
    let place = |chapter: &Chapter| match &chapter.start {
        ChapterStart::Ms(ms) => format!("{ms} ms"),
        ChapterStart::Page(page) => format!("page {page}"),
        ChapterStart::Href(href) => href.clone(),
    };
    inspection.chapters.iter().map(|chapter| (chapter.title.as_str(), place(chapter))).collect()
}

#[test]
fn an_epub_gives_its_package_its_contents_and_its_cover() {
    let book = sample("book.epub");
    assert_eq!((book.media_kind, book.mime), (MediaKind::Book, "application/epub+zip"));
    assert_eq!(book.title, "The Well");
    assert_eq!(book.authors, ["Ana Bea", "Carl"]);
    assert_eq!(book.languages, ["en-GB", "fr"]);
    assert_eq!(book.publisher.as_deref(), Some("River & Co"));
    assert_eq!(book.description.as_deref(), Some("Deep."));
    assert_eq!(book.published.as_deref(), Some("2019-05-06"));
    assert_eq!(chapters(&book), [("Start", "O/t.xhtml".to_owned()), ("End", "O/t.xhtml#z".to_owned())]);
    let cover = book.cover.expect("a cover");
    assert_eq!((cover.mime, cover.bytes), ("image/png", samples::png(3, 2)));
}

#[test]
fn an_epub_2_gives_the_same_in_its_own_way() {
    let book = sample("book2.epub");
    assert_eq!((book.title.as_str(), book.published.as_deref()), ("Old", Some("2001")));
    assert_eq!(chapters(&book), [("Only", "O/t.xhtml".to_owned())]);
    assert!(book.cover.is_some());
}

#[test]
fn a_comic_gives_its_pages_in_order() {
    let comic = sample("comic.cbz");
    assert_eq!((comic.media_kind, comic.mime), (MediaKind::Book, "application/vnd.comicbook+zip"));
    assert_eq!(comic.title, "Boats 2: Dawn");
    assert_eq!(comic.authors, ["Ana", "Ben"]);
    assert_eq!(comic.pages, Some(2));
    assert_eq!(comic.published.as_deref(), Some("2020-07"));
    assert_eq!(comic.cover.map(|cover| cover.bytes), Some(samples::png(4, 4)));
}

#[test]
fn a_pdf_gives_its_information_and_outline() {
    let paper = sample("paper.pdf");
    assert_eq!((paper.media_kind, paper.mime), (MediaKind::Doc, "application/pdf"));
    assert_eq!(paper.title, "Soil and water");
    assert_eq!(paper.authors, ["Ana", "Ben"]);
    assert_eq!(paper.languages, ["en-US"]);
    assert_eq!(paper.pages, Some(2));
    assert_eq!(paper.published.as_deref(), Some("2024-05-06"));
    assert_eq!(chapters(&paper), [("First", "page 1".to_owned()), ("é", "page 2".to_owned())]);
    assert_eq!(paper.cover, None);
}

#[test]
fn a_first_page_that_is_one_picture_is_the_cover() {
    let scan = sample("scan.pdf");
    assert_eq!(scan.cover.expect("a cover").mime, "image/jpeg");
    assert_eq!(scan.title, "The Alexandria Handbook");
    assert!(scan.chapters.len() >= 6, "{:?}", scan.chapters);
}

#[test]
fn recordings_give_their_tags_and_length() {
    for (name, mime) in [
        ("tone.mp3", "audio/mpeg"),
        ("tone.m4a", "audio/mp4"),
        ("tone.ogg", "audio/ogg"),
        ("tone.opus", "audio/ogg"),
        ("tone.flac", "audio/flac"),
    ] {
        let tone = sample(name);
        assert_eq!((tone.media_kind, tone.mime), (MediaKind::Podcast, mime), "{name}");
        assert_eq!((tone.title.as_str(), tone.authors.as_slice()), ("Tone", ["Ana".to_owned()].as_slice()), "{name}");
        assert_eq!(tone.languages, ["fr"], "{name}");
        assert_eq!(tone.published.as_deref(), Some("2024"), "{name}");
        let expected_ms = if ["tone.flac", "tone.mp3"].contains(&name) { 6000 } else { 1000 };
        let duration_ms = tone.duration_ms.expect(name);
        assert!(duration_ms.abs_diff(expected_ms) < 150, "{name} lasts {duration_ms} ms");
    }
}

#[test]
fn videos_give_their_picture_size_and_length() {
    for (name, mime) in [("tone.mp4", "video/mp4"), ("tone.webm", "video/webm"), ("tone.mkv", "video/x-matroska")] {
        let video = sample(name);
        assert_eq!((video.media_kind, video.mime), (MediaKind::Video, mime), "{name}");
        assert_eq!((video.width_px, video.height_px), (Some(64), Some(48)), "{name}");
        assert_eq!(video.title, "Tone", "{name}");
        assert_eq!(video.authors, ["Ana"], "{name}");
        assert_eq!(video.languages, ["fr"], "{name}");
        let duration_ms = video.duration_ms.expect(name);
        assert!(duration_ms.abs_diff(1000) < 150, "{name} lasts {duration_ms} ms");
    }
}

#[test]
fn chapters_of_recordings_and_videos_are_found() {
    for name in ["tone.mp3", "tone.m4a", "tone.mp4", "tone.webm", "tone.mkv"] {
        let media = sample(name);
        assert_eq!(chapters(&media), [("One", "0 ms".to_owned()), ("Two", "500 ms".to_owned())], "{name}");
    }
}

#[test]
fn pictures_give_their_size_and_exif() {
    for (name, mime, width, height) in [
        ("dot.jpg", "image/jpeg", 4, 8),
        ("dot.png", "image/png", 3, 2),
        ("dot.webp", "image/webp", 1280, 800),
        ("dot.gif", "image/gif", 6, 5),
        ("dot.tiff", "image/tiff", 2, 1),
    ] {
        let picture = sample(name);
        assert_eq!((picture.media_kind, picture.mime), (MediaKind::Image, mime));
        assert_eq!((picture.width_px, picture.height_px), (Some(width), Some(height)), "{name}");
    }
    let goat = sample("dot.jpg");
    assert_eq!((goat.title.as_str(), goat.authors.as_slice()), ("Goat", ["Ana".to_owned()].as_slice()));
    assert_eq!(goat.published.as_deref(), Some("2023-01-02"));
}

#[test]
fn texts_give_what_they_have() {
    let plain = sample("notes.txt");
    assert_eq!((plain.mime, plain.title.as_str()), ("text/plain", "Notes"));
    let soil = sample("notes.md");
    assert_eq!((soil.mime, soil.title.as_str()), ("text/markdown", "Soil"));
    assert_eq!((soil.authors, soil.languages), (vec!["Ana".to_owned()], vec!["pt-BR".to_owned()]));
    let page = sample("page.html");
    assert_eq!((page.mime, page.title.as_str()), ("text/html", "Maji & afya"));
    assert_eq!(page.languages, ["sw"]);
    assert_eq!(page.description.as_deref(), Some("About water"));
    assert_eq!(chapters(&page), [("One", "#a".to_owned()), ("Two", "#b".to_owned())]);
    let headed =
        inspect_bytes("x.md", "Some text\n\n## The `first` heading\n\n# Later\n".as_bytes()).expect("Markdown");
    assert_eq!(headed.title, "The first heading");
    let latin = inspect_bytes("x.html", b"<title>caf\xE9 cr\xE8me br\xFBl\xE9e</title>").expect("a page");
    assert_eq!(latin.title, "café crème brûlée");
}

#[test]
fn a_file_without_a_title_is_called_by_its_name() {
    assert_eq!(
        inspect_bytes("water_from_wells.png", &samples::png(3, 2)).expect("a picture").title,
        "Water from wells"
    );
}
