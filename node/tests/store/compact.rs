//! The room of what was replaced or removed is given back while the store is in use.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use alexandria_node::store::{Change, Listing, Space, Store};
use alexandria_sync::domain::{Media, Typed};
use alexandria_sync::record::RecordKey;

use super::samples::{folder, id, media, noise, open, shelf};

/// Records that are written in one change.
const AT_ONCE: u64 = 500;

fn key(number: u64) -> RecordKey {
    RecordKey { bucket: shelf(), kind: Media::KIND, id: id(number) }
}

fn titled(store: &Store, number: u64) -> Option<String> {
    let stored = store.records.get(key(number)).unwrap()?;
    Media::from_record(&stored.record).map(|media| media.title)
}

async fn put_many(store: &Store, numbers: impl Iterator<Item = u64>, word: &str) {
    let numbers: Vec<u64> = numbers.collect();
    for numbers in numbers.chunks(AT_ONCE as usize) {
        let put = |&number: &u64| Change::put(shelf(), id(number), media(&format!("{word} {number}")));
        store.records.change(numbers.iter().map(put).collect()).await.unwrap();
    }
}

/// Each key is written at any moment of a copy, values of several pieces among them, and some are deleted.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_store_that_is_compacted_loses_nothing_while_others_read_and_write() {
    let dir = folder();
    let store = open(&dir);
    put_many(&store, 0..3000, "old").await;
    let done = Arc::new(AtomicBool::new(false));
    let writer = {
        let (store, done) = (store.clone(), Arc::clone(&done));
        tokio::spawn(async move {
            let mut expected = BTreeMap::new();
            let mut step = 0u64;
            while !done.load(Ordering::SeqCst) {
                // Each number once, in no order that the copy follows.
                let number = step * 1_237 % 3001;
                let round = step / 3001;
                step += 1;
                if expected.get(&number).is_some_and(Option::is_none) {
                    continue;
                }
                if step % 7 == 3 && store.records.get(key(number)).unwrap().is_some() {
                    store.records.change_one(Change::delete(key(number), None)).await.unwrap();
                    expected.insert(number, None);
                } else {
                    let title = format!("round {round} of {number}");
                    let description = if number.is_multiple_of(5) { hex(&noise(3_000, step)) } else { String::new() };
                    let medium = Media { description, ..media(&title) };
                    store.records.change_one(Change::put(shelf(), id(number), medium)).await.unwrap();
                    expected.insert(number, Some(title));
                }
            }
            expected
        })
    };
    let reader = {
        let (store, done) = (store.clone(), Arc::clone(&done));
        tokio::task::spawn_blocking(move || {
            while !done.load(Ordering::SeqCst) {
                let mut listing = Listing::of(Media::KIND, 100);
                while let Some(next) = store.records.list(&listing).unwrap().next {
                    listing.after = Some(next);
                }
            }
        })
    };
    for _ in 0..4 {
        store.records.compact().await.unwrap();
    }
    done.store(true, Ordering::SeqCst);
    let expected = writer.await.unwrap();
    reader.await.unwrap();
    let check = |store: &Store| {
        for number in 0..=3000 {
            let unchanged = (number < 3000).then(|| format!("old {number}"));
            let expected = expected.get(&number).cloned().unwrap_or(unchanged);
            assert_eq!(titled(store, number), expected, "medium {number}");
        }
    };
    check(&store);
    assert!(store.records.verify().await.unwrap().is_sound());
    drop(store);
    let store = open(&dir);
    check(&store);
    assert!(store.records.verify().await.unwrap().is_sound());
}

/// What is erased waits for nothing: the copy under way, which may hold it, is thrown away.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rewrite_that_is_asked_for_ends_a_copy_under_way_and_both_can_be_had_afterwards() {
    let dir = folder();
    let store = open(&dir);
    put_many(&store, 0..1000, "kept").await;
    let (copied, rewritten) = tokio::join!(store.records.compact(), store.records.rewrite());
    assert!(copied.is_err() && rewritten.is_err(), "{copied:?} {rewritten:?}");
    store.records.rewrite().await.unwrap();
    store.records.compact().await.unwrap();
    assert_eq!(titled(&store, 999).as_deref(), Some("kept 999"));
    assert!(store.records.verify().await.unwrap().is_sound());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_all_is_updated_and_nine_of_ten_are_deleted_it_takes_at_most_three_times_what_is_left() {
    const RECORDS: u64 = 20_000;
    let dir = folder();
    let store = open(&dir);
    put_many(&store, 0..RECORDS, "first").await;
    put_many(&store, 0..RECORDS, "second").await;
    let gone: Vec<u64> = (0..RECORDS).filter(|number| number % 10 != 0).collect();
    for gone in gone.chunks(AT_ONCE as usize) {
        store.records.change(gone.iter().map(|&number| Change::delete(key(number), None)).collect()).await.unwrap();
    }
    let before = store.records.space().unwrap();
    let after: Space = store.records.compact().await.unwrap();
    println!("before {before:?}, after {after:?}");
    assert_eq!(after.live_bytes, before.live_bytes);
    assert!(after.disk_bytes < before.disk_bytes, "before {before:?}, after {after:?}");
    assert!(after.disk_bytes <= 3 * after.live_bytes, "{after:?}");
    assert_eq!(titled(&store, 10).as_deref(), Some("second 10"));
    assert_eq!(titled(&store, 11), None);
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
