//! Every page as markup: balanced, small, with the landmarks and names that a screen reader needs.

use alexandria_api::catalogue::Relation;
use alexandria_sync::domain::{Media, MediaKind};
use html5gum::{Token, Tokenizer};

use super::library::{Library, epub};

/// A library with some of everything, and the addresses of all its pages.
async fn furnished() -> (Library, Vec<String>) {
    let library = Library::new();
    let author = library.author("Ana & <Ben>").await;
    let category = library.category("بحر").await;
    let mut pages: Vec<String> = [
        "/",
        "/browse",
        "/browse?kind=book&order=opened",
        "/search",
        "/search?q=number",
        "/search?q=zzz",
        "/authors",
        "/categories",
        "/collections",
        "/status",
        "/browse?after=bad",
    ]
    .map(str::to_owned)
    .into();
    for number in 0..30 {
        let media_kind =
            [MediaKind::Book, MediaKind::Doc, MediaKind::Podcast, MediaKind::Video, MediaKind::Image][number % 5];
        let media = Media {
            title: format!("Number {number}, with a title that is as long as titles are"),
            media_kind,
            languages: vec![["en", "ar", "fr"][number % 3].into()],
            description: "First.\n\nSecond.".into(),
            duration_ms: (number % 5 > 1).then_some(90_000),
            publisher: Some("Publisher".into()),
            ..Media::default()
        };
        let book = epub(&["<h1>One</h1><p>x<br/>y</p>", "<p>Two</p>"], &[]);
        let (media_type, bytes) = match number % 5 {
            0 => ("application/epub+zip", book.as_slice()),
            1 => ("application/pdf", b"%PDF".as_slice()),
            2 => ("audio/mpeg", b"x".as_slice()),
            3 => ("video/mp4", b"x".as_slice()),
            _ => ("image/png", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x02\0\0\0\x03".as_slice()),
        };
        let id = library.filed(media, media_type, &format!("file {number}"), bytes).await;
        library.link(Relation::MediaAuthor, id, author).await;
        library.link(Relation::MediaCategory, id, category).await;
        if number < 5 {
            pages.push(format!("/media/{id}"));
        }
        if number == 0 {
            pages.push(format!("/read/{id}"));
        }
    }
    library.link(Relation::AuthorCategory, author, category).await;
    pages.extend([format!("/author/{author}"), format!("/category/{category}"), format!("/browse?author={author}")]);
    (library, pages)
}

#[tokio::test]
async fn every_page_is_well_formed_small_and_has_its_landmarks() {
    let (library, pages) = furnished().await;
    for page in &pages {
        for language in ["en", "fr", "es", "ar"] {
            let answer = library.get_with(page, &[("accept-language", language)]).await;
            let at = format!("{page} in {language}");
            check_balance(&answer.text, &at);
            assert!(answer.text.len() < 30_000, "{at}: {} bytes", answer.text.len());
            for landmark in ["<header", "<main", "<footer", "<h1", "href=\"#main\"", "name=\"viewport\""] {
                assert!(answer.text.contains(landmark), "{landmark} in {at}");
            }
            assert_eq!(answer.text.matches("<main").count(), 1, "{at}");
            assert_eq!(answer.text.matches("id=\"q\"").count(), 1, "one search form: {at}");
        }
    }
}

/// Every element that opens closes, in order; every id is there once; pictures have `alt`; fields have labels.
fn check_balance(html: &str, at: &str) {
    let void = ["meta", "link", "input", "img", "br", "source", "track", "hr"];
    let mut open: Vec<String> = Vec::new();
    let mut ids = std::collections::BTreeSet::new();
    let (mut labelled, mut fields) = (Vec::new(), Vec::new());
    for token in Tokenizer::new(html) {
        match token.expect("text never fails") {
            Token::StartTag(tag) => {
                let name = String::from_utf8_lossy(&tag.name).into_owned();
                let value = |key: &[u8]| {
                    let found = tag.attributes.iter().find(|(name, _)| name.as_slice() == key);
                    found.map(|(_, value)| String::from_utf8_lossy(&value.value).into_owned())
                };
                if let Some(id) = value(b"id") {
                    assert!(ids.insert(id.clone()), "id {id} twice in {at}");
                    if (name == "input" || name == "select") && value(b"type").as_deref() != Some("hidden") {
                        fields.push(id);
                    }
                }
                assert!(name != "img" || value(b"alt").is_some(), "a picture without alt in {at}");
                labelled.extend(value(b"for"));
                if !void.contains(&name.as_str()) {
                    open.push(name);
                }
            }
            Token::EndTag(tag) => {
                let name = String::from_utf8_lossy(&tag.name).into_owned();
                assert_eq!(open.pop().as_deref(), Some(name.as_str()), "in {at}");
            }
            Token::Error(error) => panic!("{error:?} in {at}"),
            _ => {}
        }
    }
    assert!(open.is_empty(), "{open:?} stay open in {at}");
    assert!(fields.iter().all(|field| labelled.contains(field)), "{fields:?} without a label in {at}");
}
