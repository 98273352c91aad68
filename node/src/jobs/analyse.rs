//! Looks at the pictures of the library: each medium's cover, or the picture that it is, gets an annotation record.
//!
//! Like the search index it reads the feeds, so nothing is missed across restarts: what has an annotation already is
//! passed over. Pictures that are not here are left to the node that has them; their annotation replicates.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use alexandria_ml::Analyser;
use alexandria_sync::chunk::BlobHash;
use alexandria_sync::domain::{Annotation, Label, Media, Typed};
use alexandria_sync::id::{BucketId, Seq};
use alexandria_sync::record::RecordKey;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::watch;

use crate::library::Library;
use crate::store::{Change, ChangeError, StoreError};

/// Rows looked at together.
const ROWS_AT_ONCE: usize = 200;
/// Between two pictures: readers come first.
const PAUSE: Duration = Duration::from_millis(20);
/// A larger picture is not looked at, in bytes.
const PICTURE_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// The wait after a failure, as on a full disk; it doubles with each that follows.
const RETRY_FIRST: Duration = Duration::from_secs(30);
/// The longest wait between two tries.
const RETRY_LONGEST: Duration = Duration::from_mins(10);

/// Looks at every picture that has no annotation, then at those that come. Ends when the library closes.
pub async fn run(library: Library, analyser: Arc<Analyser>) {
    follow(&library, &analyser, (RETRY_FIRST, RETRY_LONGEST), &watch::Sender::new(0)).await;
}

/// The same with other waits. Counts the tries that failed.
async fn follow(
    library: &Library,
    analyser: &Arc<Analyser>,
    (retry_first, retry_longest): (Duration, Duration),
    failed: &watch::Sender<u64>,
) {
    let mut heads = library.store().records.subscribe();
    let mut seen = BTreeMap::new();
    let mut wait = retry_first;
    loop {
        match look_at_new(library, analyser, &mut seen).await {
            Ok(()) => {
                wait = retry_first;
                tokio::select! {
                    () = library.closed() => return,
                    heard = heads.recv() => if matches!(heard, Err(RecvError::Closed)) { return },
                }
            }
            Err(error) => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    retry_s = wait.as_secs(),
                    "pictures wait to be looked at"
                );
                failed.send_modify(|failed| *failed += 1);
                tokio::select! {
                    () = library.closed() => return,
                    () = tokio::time::sleep(wait) => wait = (wait * 2).min(retry_longest),
                }
            }
        }
    }
}

/// Looks at what no one has looked at, from where it was `seen` to.
async fn look_at_new(
    library: &Library,
    analyser: &Arc<Analyser>,
    seen: &mut BTreeMap<BucketId, Seq>,
) -> Result<(), StoreError> {
    for head in library.store().records.heads_now() {
        // Annotations are written next to the media, so only buckets with media are read.
        if !matches!(head.bucket, BucketId::Collection(_)) {
            continue;
        }
        let mut at = seen.get(&head.bucket).copied().unwrap_or_default();
        while at < head.head {
            let rows = library.store().records.changes_since(head.bucket, at, ROWS_AT_ONCE).await?;
            let full = rows.len() == ROWS_AT_ONCE;
            for row in &rows {
                at = at.max(row.seq);
                if let Some(media) = Media::from_record(&row.record) {
                    annotate(library, analyser, row.record.key, &media).await?;
                }
            }
            if !full {
                at = at.max(head.head);
            }
            seen.insert(head.bucket, at);
        }
    }
    Ok(())
}

async fn annotate(
    library: &Library,
    analyser: &Arc<Analyser>,
    key: RecordKey,
    media: &Media,
) -> Result<(), StoreError> {
    let pictures = media.files.iter().filter(|file| file.media_type.starts_with("image/")).map(|file| file.blob);
    let Some(blob) = pictures.chain(media.cover).next() else { return Ok(()) };
    let id = Annotation::record_id(key.id, blob);
    let annotation = RecordKey { bucket: key.bucket, kind: Annotation::KIND, id };
    if library.store().records.get(annotation)?.is_some() {
        return Ok(());
    }
    let Some(found) = look_at(library, analyser, blob).await? else { return Ok(()) };
    let record = Annotation {
        media: key.id,
        blob: Some(blob),
        width_px: found.width_px,
        height_px: found.height_px,
        dominant_colours: found.dominant_colours.iter().map(|&colour| packed(colour)).collect(),
        placeholder: hex::encode(found.placeholder.as_bytes()),
        perceptual_hash: found.perceptual_hash,
        labels: found.labels.into_iter().map(|label| Label { name: label.name, score: label.score }).collect(),
        model: found.model.map(|model| format!("{} {}", model.name, model.version)).unwrap_or_default(),
    };
    match library.store().records.change_one(Change::put(key.bucket, id, record)).await {
        Ok(_) | Err(ChangeError::Deleted(_)) => {}
        Err(ChangeError::Store(error)) => return Err(error),
        Err(error) => tracing::warn!(%error, media.id = %key.id, "an annotation could not be written"),
    }
    tokio::time::sleep(PAUSE).await;
    Ok(())
}

async fn look_at(
    library: &Library,
    analyser: &Arc<Analyser>,
    blob: BlobHash,
) -> Result<Option<alexandria_ml::Annotation>, StoreError> {
    let blobs = &library.store().blobs;
    let _stays_meanwhile = blobs.reading(blob);
    let (Some(held), Some(path)) = (blobs.held(blob)?, blobs.path(blob)?) else { return Ok(None) };
    if held.size_bytes > PICTURE_BYTES_MAX {
        return Ok(None);
    }
    let analyser = Arc::clone(analyser);
    let looked = tokio::task::spawn_blocking(move || {
        let bytes = std::fs::read(path).map_err(|error| error.to_string())?;
        analyser.analyse(&bytes).map_err(|error| error.to_string())
    });
    match looked.await.unwrap_or_else(|error| Err(error.to_string())) {
        Ok(found) => Ok(Some(found)),
        Err(error) => {
            tracing::info!(blob.hash = %blob, %error, "a picture could not be looked at");
            Ok(None)
        }
    }
}

fn packed(colour: alexandria_ml::Rgb) -> u32 {
    u32::from_be_bytes([0, colour.red, colour.green, colour.blue])
}

#[cfg(test)]
mod tests {
    use alexandria_sync::chunk::Chunking;
    use alexandria_sync::id::RecordId;

    use super::*;
    use crate::library::StoreConfig;
    use crate::library::selection::SelectionConfig;
    use crate::store::small_disk::{SmallDisk, is_alone};

    /// Nothing that is waited for takes longer, unless it never comes.
    const DEADLINE: Duration = Duration::from_secs(30);
    const SOON: (Duration, Duration) = (Duration::from_millis(50), Duration::from_millis(200));
    /// Room in which the store takes no more than deletes.
    const FULL_BYTES: u64 = 20 << 20;
    /// A picture of 8 by 8.
    const PNG: &str = "89504e470d0a1a0a0000000d49484452000000080000000808020000004b6d29dc0000006c4944415478da0dc94101003008033194a0a4\
                       4aaa84e7a940094aaa68cb375545172a5c4cb1c51529aa9a6ed4b899669b6bd23f440b098b112b4e443f4c1b199b316bcec43f861e3478\
                       9861871b323f965eb4789965975bb23f8e3e74f898638f3b723f42070587091b2e243cb02c5481f9a60b790000000049454e44ae426082";

    #[tokio::test]
    async fn pictures_are_looked_at_once_a_full_disk_has_room_again() {
        if !is_alone("jobs::analyse::tests::pictures_are_looked_at_once_a_full_disk_has_room_again") {
            return;
        }
        let Some(disk) = SmallDisk::mount() else { return };
        let config = StoreConfig { min_free_bytes: 0, ..StoreConfig::default() };
        let data = disk.path().join("data");
        let (library, _) = Library::open(&data, &config, &SelectionConfig::default()).unwrap();
        let png = hex::decode(PNG).unwrap();
        let put = library.store().blobs.put_stream(Chunking::Fixed, Some(png.len() as u64), png.as_slice()).await;
        let picture = put.unwrap().hash;
        let (bucket, id) = (BucketId::Collection(RecordId::from_bytes([1; 16])), RecordId::from_bytes([2; 16]));
        let media = Media { title: "Squares".into(), cover: Some(picture), ..Media::default() };
        let mut heads = library.store().records.subscribe();
        library.store().records.change_one(Change::create(bucket, id, media)).await.unwrap();
        disk.fill(FULL_BYTES);

        let (failed, mut failures) = watch::channel(0);
        let looking = tokio::spawn({
            let library = library.clone();
            let analyser = Arc::new(Analyser::new(alexandria_ml::Config::default()).unwrap());
            async move { follow(&library, &analyser, SOON, &failed).await }
        });
        let met = tokio::time::timeout(DEADLINE, failures.wait_for(|failed| *failed > 0)).await;
        assert!(met.is_ok_and(|met| met.is_ok()), "it meets the full disk");
        disk.empty();

        let annotation = RecordKey { bucket, kind: Annotation::KIND, id: Annotation::record_id(id, picture) };
        let annotated = async {
            while library.store().records.get(annotation).unwrap().is_none() {
                heads.recv().await.unwrap();
            }
        };
        assert!(tokio::time::timeout(DEADLINE, annotated).await.is_ok(), "the picture is looked at in the end");
        library.close();
        assert!(tokio::time::timeout(DEADLINE, looking).await.is_ok_and(|ended| ended.is_ok()), "it ends");
    }
}
