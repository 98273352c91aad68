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
    write(&folder, "a long recording.mp3", &recording.bytes.repeat(LONG_RECORDING_COPIES));
    node.done("import", &[folder.to_str().unwrap()]).await;
    let visit = browser::visit("imported_folder", node.url(), node.scratch()).await;
    visit.assert_good();
}
