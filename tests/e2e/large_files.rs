use std::{
    fs::File,
    io::{Seek, SeekFrom, Write},
    path::Path,
};

use alexandria_e2e::{
    files::{real, write},
    node::NodeSettings,
};

/// Larger than what a small machine has to spare: a box of four times this takes the same way.
const PADDING_BYTES: u64 = 1 << 30;
/// What importing it may take beyond importing a small film.
const MEMORY_BYTES_MAX: u64 = 64_000_000;

#[tokio::test]
async fn a_film_of_a_gigabyte_is_imported_and_served_in_the_memory_of_a_small_one() {
    let mut node = NodeSettings::default().bare().start().await;
    let small = real().into_iter().find(|file| file.name == "sunrise.mp4").expect("a film");
    let path = write(node.scratch(), "small.mp4", &small.bytes);
    node.done("import", &[path.to_str().unwrap()]).await;
    let before = node.process().resident_peak_bytes();

    let path = node.scratch().join("large.mp4");
    pad(&path, &small.bytes);
    let said = node.done("import", &[path.to_str().unwrap()]).await;
    assert!(said.starts_with("1 imported"), "{said}");

    let listed = node.get("/v1/media?page_size=100").ok().await.json();
    let files = listed["items"].as_array().unwrap().iter().flat_map(|media| media["files"].as_array().unwrap());
    let size = small.bytes.len() as u64 + PADDING_BYTES;
    let file = files.into_iter().find(|file| file["size_bytes"] == size).unwrap_or_else(|| panic!("{listed}"));
    let content = node.get(&format!("/v1/blobs/{}", file["blob"].as_str().unwrap()));
    let tail = content.header("range", "bytes=-1000000").ok().await;
    assert_eq!(tail.body.len(), 1_000_000);
    assert!(tail.body.iter().all(|byte| *byte == 0));

    let more = node.process().resident_peak_bytes().saturating_sub(before);
    println!("{more} bytes more at the peak");
    assert!(more <= MEMORY_BYTES_MAX, "importing {size} bytes took {more} bytes of memory");
}

/// Writes a film with a `free` box of zeros behind it (ISO/IEC 14496-12, 8.1.2), most of it a hole in the file.
fn pad(path: &Path, film: &[u8]) {
    let mut file = File::create(path).unwrap();
    file.write_all(film).unwrap();
    // A size of 1 says that the real one follows as 64 bits.
    file.write_all(&[1u32.to_be_bytes().as_slice(), b"free", &PADDING_BYTES.to_be_bytes()].concat()).unwrap();
    file.seek(SeekFrom::Start(film.len() as u64 + PADDING_BYTES - 1)).unwrap();
    file.write_all(&[0]).unwrap();
    file.sync_all().unwrap();
}
