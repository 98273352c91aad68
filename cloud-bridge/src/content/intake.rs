//! Content that an operator uploads: its name is known only at its end, so large content goes to a staging object first
//! and is copied inside S3.

use alexandria_sync::chunk::{BlobHash, Chunker, Chunking, Manifest};
use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use futures::stream::BoxStream;
use uuid::Uuid;

use super::erase::Maker;
use super::parts::{PART_BYTES, Parts};
use super::serve::StoredBlob;
use super::{Content, ContentError, blob_key};

/// Where content lies whose name is not known yet.
pub(super) const INTAKE_PREFIX: &str = "staging/intake/";

/// Content on its way in.
pub struct Intake<E> {
    /// Its media type.
    pub media_type: String,
    /// The name that it must turn out to have, if that was said.
    pub expected: Option<BlobHash>,
    /// Its size in bytes, if that was said.
    pub size_bytes: Option<u64>,
    /// Its bytes.
    pub body: BoxStream<'static, Result<Bytes, E>>,
}

/// Why content was not taken in. Nothing of it is kept.
#[derive(Debug, thiserror::Error)]
pub enum IntakeError<E> {
    /// The body broke off.
    #[error("the content broke off")]
    Body(E),
    /// It is not what was said.
    #[error("the content has the hash {actual}")]
    HashMismatch {
        /// What it really is.
        actual: BlobHash,
    },
    /// More than S3 takes without being told the size first.
    #[error("content of unknown size is larger than {limit_bytes} bytes")]
    TooLarge {
        /// The limit.
        limit_bytes: u64,
    },
    /// The store's own trouble.
    #[error(transparent)]
    Store(#[from] ContentError),
}

/// Parts of content in the making, at most: a limit of S3, with room for the last.
const PARTS_MAX: usize = 9_999;

struct Staging {
    key: String,
    upload_id: String,
    tags: Vec<String>,
}

impl Content {
    /// Takes content in; tells what it is, and whether it is new here.
    ///
    /// # Errors
    ///
    /// [`IntakeError`]; nothing is kept then.
    pub async fn take_in<E>(&self, intake: Intake<E>) -> Result<(StoredBlob, bool), IntakeError<E>> {
        let Intake { media_type, expected, size_bytes, mut body } = intake;
        let part_bytes = Parts::of(size_bytes.unwrap_or(0)).part_bytes().max(PART_BYTES) as usize;
        let mut chunker = Chunker::new(Chunking::for_media_type(&media_type));
        let mut pending = BytesMut::new();
        let mut staging = None;
        let outcome = loop {
            match body.next().await {
                Some(Ok(bytes)) => {
                    chunker.update(&bytes);
                    pending.extend_from_slice(&bytes);
                }
                Some(Err(error)) => break Err(IntakeError::Body(error)),
                None => break Ok(()),
            }
            if pending.len() >= part_bytes {
                let full = pending.split_to(part_bytes).freeze();
                if let Err(error) = self.stage(&mut staging, full, &media_type, part_bytes).await {
                    break Err(error);
                }
            }
        };
        let stored = match outcome {
            Ok(()) => self.settle(chunker, expected, &media_type, &mut staging, pending.freeze()).await,
            Err(error) => Err(error),
        };
        if let Some(staging) = staging {
            // What cannot be removed now is found by the sweep.
            let _ = self.objects().abort_upload(&staging.key, &staging.upload_id).await;
            let _ = self.objects().delete(&[staging.key]).await;
        }
        stored
    }

    async fn stage<E>(
        &self,
        staging: &mut Option<Staging>,
        bytes: Bytes,
        media_type: &str,
        part_bytes: usize,
    ) -> Result<(), IntakeError<E>> {
        if staging.is_none() {
            let key = format!("{INTAKE_PREFIX}{}", Uuid::from_bytes(rand::random()));
            let upload_id = self.objects().create_upload(&key, media_type).await.map_err(ContentError::from)?;
            *staging = Some(Staging { key, upload_id, tags: Vec::new() });
        }
        let Some(open) = staging else { return Ok(()) };
        if open.tags.len() >= PARTS_MAX {
            return Err(IntakeError::TooLarge { limit_bytes: (PARTS_MAX * part_bytes) as u64 });
        }
        let part = open.tags.len() as u32;
        let tag = self.objects().upload_part(&open.key, &open.upload_id, part, bytes).await;
        open.tags.push(tag.map_err(ContentError::from)?);
        Ok(())
    }

    async fn settle<E>(
        &self,
        chunker: Chunker,
        expected: Option<BlobHash>,
        media_type: &str,
        staging: &mut Option<Staging>,
        rest: Bytes,
    ) -> Result<(StoredBlob, bool), IntakeError<E>> {
        let manifest = chunker.finish().map_err(ContentError::from)?;
        let actual = manifest.blob();
        if expected.is_some_and(|expected| expected != actual) {
            return Err(IntakeError::HashMismatch { actual });
        }
        if let Some(stored) = self.stored(actual).await? {
            return Ok((stored, false));
        }
        if let Some(open) = staging {
            let part = open.tags.len() as u32;
            if !rest.is_empty() {
                let tag = self.objects().upload_part(&open.key, &open.upload_id, part, rest.clone()).await;
                open.tags.push(tag.map_err(ContentError::from)?);
            }
            let completed = self.objects().complete_upload(&open.key, &open.upload_id, &open.tags).await;
            completed.map_err(ContentError::from)?;
        }
        self.place(&manifest, media_type, staging.as_ref(), rest).await?;
        let stored = self.stored(actual).await?.ok_or(ContentError::Incomplete(actual))?;
        Ok((stored, true))
    }

    async fn place(
        &self,
        manifest: &Manifest,
        media_type: &str,
        staging: Option<&Staging>,
        rest: Bytes,
    ) -> Result<(), ContentError> {
        let blob = manifest.blob();
        let key = blob_key(blob);
        // From here on the sweep leaves the object alone, should it have been removed by hand before.
        sqlx::query("DELETE FROM removed_blob WHERE hash = $1")
            .bind(blob.as_bytes().as_slice())
            .execute(self.pool())
            .await?;
        match staging {
            Some(staging) => self.objects().copy(&staging.key, &key, manifest.size_bytes(), media_type).await?,
            None => self.objects().put(&key, rest, media_type).await?,
        }
        let mut tx = self.pool().begin().await?;
        self.note_whole_again(&mut tx, manifest, Maker::Operator).await?;
        self.note_stored(&mut tx, manifest, media_type).await?;
        tx.commit().await?;
        self.ring_completed(blob);
        Ok(())
    }
}
