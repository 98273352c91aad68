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

use crate::library::Library;
use crate::store::{Change, ChangeError, StoreError};

/// Rows looked at together.
const ROWS_AT_ONCE: usize = 200;
/// Between two pictures: readers come first.
const PAUSE: Duration = Duration::from_millis(20);
/// A larger picture is not looked at, in bytes.
const PICTURE_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// Looks at every picture that has no annotation, then at those that come. Ends when the library closes.
///
/// # Errors
///
/// [`StoreError`] if the store fails.
pub async fn run(library: Library, analyser: Arc<Analyser>) -> Result<(), StoreError> {
    let mut heads = library.store().records.subscribe();
    let mut seen: BTreeMap<BucketId, Seq> = BTreeMap::new();
    loop {
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
                        annotate(&library, &analyser, row.record.key, &media).await?;
                    }
                }
                if !full {
                    at = at.max(head.head);
                }
            }
            seen.insert(head.bucket, at);
        }
        tokio::select! {
            () = library.closed() => return Ok(()),
            heard = heads.recv() => if matches!(heard, Err(RecvError::Closed)) { return Ok(()) },
        }
    }
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
