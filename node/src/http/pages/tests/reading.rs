//! Books and texts in the browser.

use alexandria_sync::domain::{Chapter, Media};
use axum::http::StatusCode;

use super::library::{Library, archive, epub};

const PNG: &[u8] = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x01\0\0\0\x01\x08\x06\0\0\0\x1f\x15\xc4\x89";
const EPUB: &str = "application/epub+zip";

fn titled(title: &str) -> Media {
    Media { title: title.into(), ..Media::default() }
}

#[tokio::test]
async fn a_book_is_read_chapter_by_chapter() {
    let library = Library::new();
    let chapters = [
        r#"<html><body><h1 id="top">One</h1><img src="img/a.png"/><a href="c2.xhtml#s">on</a></body></html>"#,
        r#"<html><body><h1 id="s">Two</h1><script>alert(1)</script></body></html>"#,
    ];
    let book = epub(&chapters, &[("O/img/a.png", PNG)]);
    let contents = vec![Chapter { title: "Two".into(), href: Some("O/c2.xhtml#s".into()), ..Chapter::default() }];
    let id = library.filed(Media { chapters: contents, ..titled("Book") }, EPUB, "b.epub", &book).await;

    let media = library.get(&format!("/media/{id}")).await;
    assert!(media.text.contains(&format!("href=\"/read/{id}?part=1\"")));
    assert_eq!(media.links(&format!("/read/{id}?at=")), [format!("/read/{id}?at=O%2Fc2.xhtml#x-s")]);

    let one = library.get(&format!("/read/{id}")).await;
    assert!(one.text.contains("<h1 id=\"x-top\">One</h1>"), "{}", one.text);
    assert!(one.text.contains("Part 1 of 2") && one.step("prev").is_none());
    let two = library.get(&one.step("next").expect("a next part")).await;
    assert!(two.text.contains("<h1 id=\"x-s\">Two</h1>") && !two.text.contains("alert"));
    assert!(two.step("next").is_none());
    let linked = library.get(&one.links(&format!("/read/{id}?at="))[0]).await;
    assert!(linked.text.contains("<h1 id=\"x-s\">Two</h1>"));

    let picture = library.get(&format!("/read/{id}/file/O/img/a.png")).await;
    assert_eq!((picture.status, picture.header("content-type")), (StatusCode::OK, "image/png"));
    assert!(picture.header("content-security-policy").contains("sandbox"));
}

#[tokio::test]
async fn nothing_but_pictures_and_chapters_leaves_a_book() {
    let library = Library::new();
    let book =
        epub(&["<p>x</p>"], &[("O/evil.html", b"<script>1</script>"), ("../up.png", b"<script>"), ("O/a.js", b"x()")]);
    let id = library.filed(titled("Book"), EPUB, "b.epub", &book).await;
    for path in
        ["O/evil.html", "O/a.js", "../up.png", "%2e%2e/up.png", "../../etc/passwd", "/etc/passwd", "O/c1.xhtml", ""]
    {
        let answer = library.get(&format!("/read/{id}/file/{path}")).await;
        assert_eq!(answer.status, StatusCode::NOT_FOUND, "{path}");
    }
    for query in ["at=O/evil.html", "at=../../etc/passwd", "part=2", "part=99999999999"] {
        assert_eq!(library.get(&format!("/read/{id}?{query}")).await.status, StatusCode::NOT_FOUND, "{query}");
    }
    for query in ["part=0", "part=x", "part=-1"] {
        assert_eq!(library.get(&format!("/read/{id}?{query}")).await.status, StatusCode::BAD_REQUEST, "{query}");
    }
}

#[tokio::test]
async fn bombs_and_broken_books_are_refused_with_a_way_out() {
    let library = Library::new();
    let bomb = epub(&[&"<p>x</p>".repeat(2_000_000)], &[("O/big.png", &vec![0; 20_000_000])]);
    assert!(bomb.len() < 200_000, "it is packed small");
    let id = library.filed(titled("Bomb"), EPUB, "b.epub", &bomb).await;
    let answer = library.get(&format!("/read/{id}")).await;
    assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(
        answer.text.contains("This cannot be shown here") && answer.text.contains(&format!("href=\"/media/{id}\""))
    );
    assert_eq!(library.get(&format!("/read/{id}/file/O/big.png")).await.status, StatusCode::UNPROCESSABLE_ENTITY);
    let whole = epub(&["<p>x</p>"], &[]);
    for (name, bytes) in [
        ("cut", &whole[..whole.len() / 2]),
        ("no zip", b"PK\x03\x04 and then nothing"),
        ("empty", b""),
        ("no container", &archive(&[("a.txt", b"x")])),
    ] {
        let id = library.filed(titled(name), EPUB, "b.epub", bytes).await;
        assert_eq!(library.get(&format!("/read/{id}")).await.status, StatusCode::UNPROCESSABLE_ENTITY, "{name}");
    }
}

#[tokio::test]
async fn documents_are_shown_without_what_could_run() {
    let library = Library::new();
    let markdown = b"# Head\n\nSome *text*.\n\n<script>alert(1)</script>\n\n[bad](javascript:alert(1)) ![out](http://evil.example/x.png)";
    let html = br#"<html><head><title>T</title></head><body><h1 id="a">Head</h1><a href="&#35;a">up</a><script>alert(1)</script></body></html>"#;
    for (media_type, bytes) in [("text/markdown", markdown.as_slice()), ("text/html; charset=utf-8", html.as_slice())] {
        let id = library.filed(titled("Doc"), media_type, "doc", bytes).await;
        let answer = library.get(&format!("/read/{id}")).await;
        assert!(answer.text.contains("Head</h1>"), "{}", answer.text);
        assert!(!answer.text.contains("alert(1)") && !answer.text.contains("evil.example"), "{}", answer.text);
    }
    let id = library.filed(titled("Text"), "text/plain", "t.txt", b"<script>alert(1)</script>\nCaf\xe9 cr\xe8me").await;
    let answer = library.get(&format!("/read/{id}")).await;
    assert!(answer.text.contains("&lt;script&gt;alert(1)&lt;/script&gt;\nCafé crème"), "{}", answer.text);
}

#[tokio::test]
async fn a_long_text_is_cut_into_pages() {
    let library = Library::new();
    let text = "A line of some words.\n".repeat(4_000);
    let id = library.filed(titled("Long"), "text/plain", "t.txt", text.as_bytes()).await;
    let mut page = library.get(&format!("/read/{id}")).await;
    let mut lines = page.text.matches("A line of some words.").count();
    while let Some(next) = page.step("next") {
        assert!(page.text.len() < 30_000, "{} bytes", page.text.len());
        page = library.get(&next).await;
        lines += page.text.matches("A line of some words.").count();
    }
    assert_eq!(lines, 4_000);
}

#[tokio::test]
async fn a_comic_is_read_page_by_page() {
    let library = Library::new();
    let comic = archive(&[("p10.png", PNG), ("p2.png", PNG), ("ComicInfo.xml", b"<x/>")]);
    let id = library.filed(titled("Comic"), "application/vnd.comicbook+zip", "c.cbz", &comic).await;
    let one = library.get(&format!("/read/{id}")).await;
    assert!(one.text.contains(&format!("src=\"/read/{id}/file/p2.png\"")), "{}", one.text);
    let two = library.get(&one.step("next").expect("a second page")).await;
    assert!(two.text.contains("file/p10.png") && two.step("next").is_none());
    assert_eq!(library.get(&format!("/read/{id}/file/p2.png")).await.status, StatusCode::OK);
}
