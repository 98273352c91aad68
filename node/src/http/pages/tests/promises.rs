//! What each page promises.

use alexandria_api::catalogue::Relation;
use alexandria_sync::budget::Period;
use alexandria_sync::chunk::BlobHash;
use alexandria_sync::domain::{Chapter, FileRole, Media, MediaFile, MediaKind};
use alexandria_sync::id::RecordId;
use alexandria_sync::outlook::{Amount, BudgetLeft, Outlook, Until, Wait};
use alexandria_sync::wire::Class;
use axum::body::Body;
use axum::http::{Request, StatusCode};

use super::super::walk::EXAMINED_MAX;
use super::library::Library;

const ARABIC: (&str, &str) = ("accept-language", "ar");

#[tokio::test]
async fn hostile_text_is_shown_as_text() {
    let library = Library::new();
    let hostile = r#"</title><script>alert("1")</script><b>&'"#;
    let id = library
        .filed(
            Media {
                title: hostile.into(),
                description: hostile.into(),
                publisher: Some(hostile.into()),
                chapters: vec![Chapter { title: hostile.into(), start_ms: Some(1), ..Chapter::default() }],
                ..Media::default()
            },
            "audio/mpeg\" onerror=\"x",
            hostile,
            b"sound",
        )
        .await;
    let author = library.author(hostile).await;
    library.link(Relation::MediaAuthor, id, author).await;
    let pages =
        ["/", "/browse", "/authors", "/search?q=script%3E", &format!("/media/{id}"), &format!("/author/{author}")];
    for page in pages {
        let answer = library.get(page).await;
        assert_eq!(answer.status, StatusCode::OK, "{page}");
        assert!(answer.text.contains("&lt;script&gt;"), "{page} does not show it");
        assert!(!answer.text.contains("<script"), "{page}");
        assert!(!answer.text.contains("\" onerror"), "{page}");
    }
}

#[tokio::test]
async fn what_is_to_come_and_why_it_waits_is_told_in_the_visitors_language() {
    let library = Library::new();
    library.titled("One").await;
    assert!(!library.get("/").await.text.contains("/status"), "nothing is to come");
    assert!(library.get("/status").await.text.contains("stands alone"));
    let until = Until { until_unix_ms: 1_795_815_000_000, utc_offset: "+03:00".parse().unwrap() };
    let outlook = Outlook {
        content: [(Class::Background, Amount { blobs: 1234, bytes: 5_000_000_000 })].into(),
        wait: Some(Wait::ContentUsedUp { period: Period::Day, until }),
        budget: Some(BudgetLeft { all_bytes: 7_000_000, content_bytes: 0 }),
        ..Outlook::default()
    };
    *library.catalogue.outlook.lock().unwrap() = Some(outlook);
    for page in ["/", "/status"] {
        let text = library.get(page).await.text;
        assert!(text.contains("1,234") && text.contains("5\u{a0}GB"), "{page}: how much");
        assert!(text.contains("used up") && text.contains("2026-11-28 00:30"), "{page}: why, and until when");
    }
    let arabic = library.get_with("/status", &[ARABIC]).await.text;
    assert!(arabic.contains("نفدت بيانات اليوم") && arabic.contains("2026-11-28 00:30"));
    // A medium that has not arrived can be asked for, now that there is somewhere that it can come from.
    let file = MediaFile {
        blob: BlobHash::of(b"far"),
        media_type: "video/mp4".into(),
        name: "far.mp4".into(),
        size_bytes: 3,
        role: FileRole::Main,
    };
    let id = library.media(&Media { title: "Far".into(), files: vec![file], ..Media::default() }).await;
    let text = library.get(&format!("/media/{id}")).await.text;
    assert!(text.contains(&format!("/v1/blobs/{}", BlobHash::of(b"far"))) && text.contains("used up"), "{text}");
}

#[tokio::test]
async fn what_a_node_nearby_holds_is_shown_to_be_there_in_lists_and_on_its_page() {
    let library = Library::new();
    let blob = BlobHash::of(b"near");
    let file = MediaFile {
        blob,
        media_type: "video/mp4".into(),
        name: "near.mp4".into(),
        size_bytes: 4,
        role: FileRole::Main,
    };
    let id = library.media(&Media { title: "Near".into(), files: vec![file], ..Media::default() }).await;
    library.filed(Media { title: "Here".into(), ..Media::default() }, "video/mp4", "here.mp4", b"here").await;
    let pages = ["/search?q=near", "/browse", "/", &format!("/media/{id}")];
    for page in pages {
        assert!(!library.get(page).await.text.contains("Nearby, at"), "{page}");
    }
    library.catalogue.nearby.lock().unwrap().insert(blob, vec!["<clinic>".into(), "school".into()]);
    for page in pages {
        let text = library.get(page).await.text;
        assert!(text.contains("Nearby, at <bdi>&lt;clinic&gt;</bdi>, <bdi>school</bdi>"), "{page}: {text}");
        assert_eq!(text.matches("Nearby, at").count(), text.matches("&lt;clinic&gt;").count(), "{page}: only there");
    }
    assert!(library.get_with("/browse", &[ARABIC]).await.text.contains("قريبًا منك، في <bdi>"));
}

#[tokio::test]
async fn pages_forbid_scripts_frames_and_guessing() {
    let library = Library::new();
    for (page, status) in [("/", 200), ("/media/nothing", 404), ("/browse?after=x", 400)] {
        let answer = library.get(page).await;
        assert_eq!(answer.status.as_u16(), status, "{page}");
        let policy = answer.header("content-security-policy");
        assert!(policy.contains("default-src 'none'") && policy.contains("frame-ancestors 'none'"), "{policy}");
        assert!(!policy.contains("unsafe"), "{policy}");
        assert_eq!(answer.header("x-content-type-options"), "nosniff");
        assert_eq!(answer.header("referrer-policy"), "same-origin");
        assert!(!answer.text.contains(" style="), "the policy would drop it");
    }
}

#[tokio::test]
async fn a_visitor_gets_the_language_they_like_and_keeps_the_one_they_choose() {
    let library = Library::new();
    let plain = library.get("/").await;
    assert!(plain.text.contains("<html lang=\"en\" dir=\"ltr\">"));
    assert!(plain.header("vary").contains("Accept-Language"));
    let arabic = library.get_with("/browse?kind=book", &[ARABIC]).await;
    assert!(arabic.text.contains("<html lang=\"ar\" dir=\"rtl\">"));
    assert_eq!(arabic.header("content-language"), "ar");
    assert!(arabic.text.contains("href=\"/browse?kind=book&amp;lang=fr\""));
    let chosen = library.get_with("/browse?kind=book&lang=fr", &[ARABIC]).await;
    assert!(chosen.text.contains("<html lang=\"fr\""));
    assert!(chosen.header("set-cookie").starts_with("lang=fr; Path=/;"));
    let later = library.get_with("/nowhere-else", &[ARABIC, ("cookie", "lang=fr")]).await;
    assert_eq!(later.status, StatusCode::NOT_FOUND);
    let later = library.get_with("/", &[ARABIC, ("cookie", "lang=fr")]).await;
    assert!(later.text.contains("<html lang=\"fr\""));
}

#[tokio::test]
async fn catalogue_text_says_its_language_and_runs_its_own_way() {
    let library = Library::new();
    let media = Media { title: "كتاب الطبخ".into(), languages: vec!["ar".into()], ..Media::default() };
    let id = library.media(&media).await;
    let answer = library.get(&format!("/media/{id}")).await;
    assert!(answer.text.contains("<h1><span dir=\"rtl\" lang=\"ar\">كتاب الطبخ</span></h1>"), "{}", answer.text);
}

#[tokio::test]
async fn a_walk_forward_and_back_shows_everything_once_each_way() {
    let library = Library::new();
    for number in 0..60 {
        let kind = if number % 5 == 0 { MediaKind::Video } else { MediaKind::Book };
        library.media(&Media { title: format!("Number {number}"), media_kind: kind, ..Media::default() }).await;
    }
    for (start, expected) in [
        ("/browse", 60),
        ("/browse?order=oldest", 60),
        ("/browse?kind=book", 48),
        ("/browse?kind=video&order=changed", 12),
    ] {
        let mut pages = vec![library.get(start).await];
        while let Some(next) = pages.last().and_then(|page| page.step("next")) {
            pages.push(library.get(&next).await);
            assert!(pages.len() < 10, "it does not end");
        }
        let shown: Vec<String> = pages.iter().flat_map(|page| page.links("/media/")).collect();
        let distinct: std::collections::BTreeSet<_> = shown.iter().collect();
        assert_eq!((shown.len(), distinct.len()), (expected, expected), "{start}");
        let mut back = vec![pages.pop().expect("a last page")];
        while let Some(previous) = back.last().and_then(|page| page.step("prev")) {
            back.push(library.get(&previous).await);
            assert!(back.len() < 10, "it does not end");
        }
        let shown_back: Vec<String> = back.iter().rev().flat_map(|page| page.links("/media/")).collect();
        assert_eq!(shown_back, shown, "{start}");
    }
}

#[tokio::test]
async fn filters_narrow_to_what_they_say() {
    let library = Library::new();
    let french =
        library.media(&Media { title: "Un".into(), languages: vec!["fr-CA".into()], ..Media::default() }).await;
    let other = library.media(&Media { title: "Two".into(), languages: vec!["en".into()], ..Media::default() }).await;
    let author = library.author("Ana").await;
    let category = library.category("Sea").await;
    let parent = library.collection("Elsewhere").await;
    library.link(Relation::MediaAuthor, french, author).await;
    library.link(Relation::MediaCategory, other, category).await;
    let link = |id: RecordId| format!("/media/{id}");
    for (query, shown) in [
        ("language=fr", vec![link(french)]),
        ("language=en", vec![link(other)]),
        ("q=two", vec![link(other)]),
        (&format!("author={author}"), vec![link(french)]),
        (&format!("category={category}"), vec![link(other)]),
        (&format!("collection={parent}"), vec![]),
        ("kind=doc&order=oldest", vec![link(french), link(other)]),
    ] {
        assert_eq!(library.get(&format!("/browse?{query}")).await.links("/media/"), shown, "{query}");
    }
    assert_eq!(library.get(&format!("/category/{category}")).await.links("/media/"), [link(other)]);
    assert_eq!(library.get(&format!("/author/{author}")).await.links("/media/"), [link(french)]);
    assert_eq!(library.get("/browse?kind=scroll").await.status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn what_is_unknown_or_hidden_is_a_page_that_says_what_to_do_next() {
    let library = Library::new();
    let hidden = library.media(&Media { title: "Hidden".into(), disabled: true, ..Media::default() }).await;
    let absent = RecordId::from_bytes([7; 16]);
    for page in [
        format!("/media/{hidden}"),
        format!("/media/{absent}"),
        format!("/author/{absent}"),
        format!("/category/{hidden}"),
        format!("/collection/{absent}"),
        format!("/read/{absent}"),
        "/media/%3Cscript%3E".to_owned(),
        "/static/style.css".to_owned(),
    ] {
        let answer = library.get_with(&page, &[("accept-language", "es")]).await;
        assert_eq!(answer.status, StatusCode::NOT_FOUND, "{page}");
        assert!(answer.text.contains("Esta página no existe"), "{page}");
        assert!(answer.text.contains("role=\"search\"") && answer.text.contains("href=\"/browse\""), "{page}");
    }
    assert!(!library.get("/browse").await.text.contains("Hidden"));
}

#[tokio::test]
async fn an_empty_library_says_how_to_fill_it() {
    let library = Library::new();
    assert!(library.get("/").await.text.contains("alexandria import"));
    assert!(library.get("/browse").await.text.contains("There is nothing here yet."));
    assert!(library.get("/search?q=x").await.text.contains("Nothing was found."));
    assert!(library.get("/search").await.text.contains("Type what you are looking for."));
}

#[tokio::test]
async fn looking_at_a_medium_counts_and_changing_the_language_does_not() {
    let library = Library::new();
    let id = library.titled("Counted").await;
    let page = format!("/media/{id}");
    library.get(&page).await;
    library.get(&format!("{page}?lang=fr")).await;
    library.get(&format!("{page}?at=12")).await;
    library.get_with(&page, &[("sec-purpose", "prefetch")]).await;
    library.send(Request::head(&page).body(Body::empty()).expect("sound")).await;
    assert_eq!(library.opens(id).await, 1);
    assert!(library.get("/").await.text.contains("Most opened"));
}

#[tokio::test]
async fn a_recording_plays_from_its_chapters_without_script() {
    let library = Library::new();
    let chapters = vec![
        Chapter { title: "Start".into(), start_ms: Some(0), ..Chapter::default() },
        Chapter { title: "Later".into(), start_ms: Some(61_500), ..Chapter::default() },
    ];
    let media = Media { title: "Talk".into(), media_kind: MediaKind::Podcast, chapters, ..Media::default() };
    let id = library.filed(media, "audio/mpeg", "talk one.mp3", b"sound").await;
    let answer = library.get(&format!("/media/{id}")).await;
    assert!(answer.text.contains("<audio controls preload=\"metadata\">"), "{}", answer.text);
    assert!(answer.text.contains("name=talk+one.mp3&amp;download=true"));
    let chapter = answer.links(&format!("/media/{id}?at=61.500"));
    assert_eq!(chapter, [format!("/media/{id}?at=61.500#player")]);
    let later = library.get(&chapter[0]).await;
    assert!(later.text.contains("#t=61.5\" type=\"audio/mpeg\""), "{}", later.text);
    for bad in ["NaN", "-1", "1e99", "x"] {
        assert!(!library.get(&format!("/media/{id}?at={bad}")).await.text.contains("#t="), "{bad}");
    }
}

#[tokio::test]
async fn content_that_has_not_arrived_is_announced_instead_of_offered() {
    let library = Library::new();
    let file = MediaFile {
        blob: BlobHash::of(b"elsewhere"),
        media_type: "video/mp4".into(),
        name: "a.mp4".into(),
        size_bytes: 5,
        role: FileRole::Main,
    };
    let id = library.media(&Media { title: "Far".into(), files: vec![file], ..Media::default() }).await;
    let answer = library.get(&format!("/media/{id}")).await;
    assert!(answer.text.contains("has not reached this library yet") && !answer.text.contains("<video"));
}

#[tokio::test]
async fn a_book_that_has_not_arrived_says_so_where_it_would_be_read() {
    let library = Library::new();
    let file = MediaFile {
        blob: BlobHash::of(b"elsewhere"),
        media_type: "application/epub+zip".into(),
        name: "a.epub".into(),
        size_bytes: 5,
        role: FileRole::Main,
    };
    let id = library.media(&Media { title: "Far".into(), files: vec![file], ..Media::default() }).await;
    for page in [format!("/read/{id}"), format!("/read/{id}/file/cover.png")] {
        let answer = library.get(&page).await;
        assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE, "{page}");
        assert!(!answer.header("retry-after").is_empty(), "{page}");
        assert!(answer.text.contains("has not reached this library yet"), "{}", answer.text);
        assert_eq!(answer.links("/media/"), [format!("/media/{id}")]);
    }
}

#[tokio::test]
async fn a_search_that_was_cut_short_does_not_say_that_there_is_nothing() {
    let library = Library::new();
    let book = Media { title: "Deep down".into(), media_kind: MediaKind::Book, ..Media::default() };
    let book = library.media(&book).await;
    for _ in 0..EXAMINED_MAX {
        library.media(&Media { title: "Above".into(), media_kind: MediaKind::Doc, ..Media::default() }).await;
    }
    let first = library.get("/browse?kind=book").await;
    assert!(first.text.contains("Nothing was found so far. Looked at: 2,000"), "{}", first.text);
    assert!(!first.text.contains("Nothing was found.") && first.text.contains("Look further"));
    let second = library.get(&first.step("next").expect("it goes on")).await;
    assert_eq!(second.links("/media/"), [format!("/media/{book}")]);
    assert!(library.get("/browse?kind=video&order=oldest").await.text.contains("so far"));
}

#[tokio::test]
async fn a_long_name_makes_no_page_wider_than_its_window() {
    let style = Library::new().get("/").await.links("/static/style.").remove(0);
    let style = Library::new().get(&style).await.text;
    for name in [".names a", ".trail a, .trail span", ".chapters a", ".files a", ".beside > a"] {
        let rule = style.split(&format!("\n{name} {{")).nth(1).and_then(|rest| rest.split('}').next()).expect(name);
        assert!(rule.contains("max-width: 100%") && rule.contains("overflow-wrap: anywhere"), "{name}: {rule}");
    }
}

#[tokio::test]
async fn a_page_that_did_not_change_is_not_sent_again() {
    let library = Library::new();
    let first = library.get("/browse").await;
    let again = library.get_with("/browse", &[("if-none-match", first.header("etag"))]).await;
    assert_eq!((again.status, again.text.len()), (StatusCode::NOT_MODIFIED, 0));
    library.titled("New").await;
    let changed = library.get_with("/browse", &[("if-none-match", first.header("etag"))]).await;
    assert_eq!(changed.status, StatusCode::OK);
}

#[tokio::test]
async fn the_style_is_kept_for_ever_under_a_name_of_its_own() {
    let library = Library::new();
    let style = library.get("/").await.links("/static/style.");
    let answer = library.get(&style[0]).await;
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(answer.header("content-type"), "text/css; charset=utf-8");
    assert!(answer.header("cache-control").contains("immutable"));
    assert!(!answer.text.contains("url("), "a style that loads something");
}

#[tokio::test]
async fn neighbours_in_a_collection_are_a_step_away() {
    let library = Library::new();
    let mut ids = Vec::new();
    for title in ["One", "Two", "Three"] {
        ids.push(library.titled(title).await);
    }
    let middle = library.get(&format!("/media/{}", ids[1])).await;
    let beside = middle.text.split("<nav class=\"beside\"").nth(1).expect("neighbours");
    assert!(beside.contains(&format!("rel=\"prev\" class=\"prev\" href=\"/media/{}\"", ids[0])), "{beside}");
    assert!(beside.contains(&format!("rel=\"next\" class=\"next\" href=\"/media/{}\"", ids[2])), "{beside}");
}
