use alexandria_e2e::{
    browser,
    files::{real, real_folder, write},
    node::NodeSettings,
    skip,
};

/// A recording that a browser does not load whole before it plays.
const LONG_RECORDING_COPIES: usize = 40;

#[tokio::test]
async fn an_imported_folder_shows_in_the_pages_plays_with_ranges_and_is_searched_without_javascript() {
    if let Some(reason) = browser::unavailable() {
        return skip::because(reason);
    }
    let node = NodeSettings::default().bare().start().await;
    let folder = real_folder(node.scratch());
    let recording = real().into_iter().find(|file| file.name == "welcome.mp3").unwrap();
    write(&folder, "a long recording.mp3", &prolonged(&recording.bytes));
    node.done("import", &[folder.to_str().unwrap()]).await;
    let visit = browser::visit("imported_folder", node.url(), node.scratch()).await;
    visit.assert_good();
}

/// A recording played again and again. What tells its length is left out, so that a player goes by the file's size.
fn prolonged(mp3: &[u8]) -> Vec<u8> {
    assert!(mp3.starts_with(b"ID3"), "it begins with a tag");
    let tag_bytes = 10 + mp3[6..10].iter().fold(0, |size, byte| size << 7 | usize::from(*byte));
    let (tag, frames) = mp3.split_at(tag_bytes);
    let header = &frames[..2];
    let is_frame = |at: &usize| frames[*at..].starts_with(header);
    let second = (4..frames.len()).find(is_frame).expect("a second frame");
    [tag, &frames[second..].repeat(LONG_RECORDING_COPIES)].concat()
}
