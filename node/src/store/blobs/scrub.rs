//! Finds content that no longer matches its hash.
//!
//! A damaged blob is set aside and becomes wanted again. Its chunks that are still good are kept as a partial blob, so
//! that only the bad ones are fetched.

use std::fs::File;
use std::io::{self, Read};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use alexandria_sync::chunk::{BlobHash, Chunking, Have, Manifest};

use super::{BlobError, Blobs, HeldBlob, blocking, failed, read_manifest};
use crate::store::disk;
use crate::store::engine::Direction;
use crate::store::row::HeldRow;

/// Bytes that are read before a scrub with a rate may rest.
const STEP_BYTES: usize = 1024 * 1024;
/// Damaged files that are kept for whoever wants to know what happened, at most.
const DAMAGED_KEPT_MAX: usize = 16;
/// Names of blobs in a report, at most; the rest is only counted.
const NAMED_MAX: usize = 1000;

/// What was found out about a blob.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Outcome {
    /// Every byte is what it was.
    Sound,
    /// The content is sound and its manifest was not; it can be made again.
    ManifestDamaged,
    /// The content is not what its name says.
    Damaged,
    /// Its file is gone.
    Missing,
    /// Its file is sound, and the records did not know of it.
    Unregistered,
}

/// One blob that was looked at.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Scrubbed {
    /// Which.
    pub hash: BlobHash,
    /// Bytes that were read.
    pub size_bytes: u64,
    /// What was found.
    pub outcome: Outcome,
}

/// What a whole verification found.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct VerifyReport {
    /// Blobs looked at.
    pub checked: u64,
    /// Bytes read.
    pub checked_bytes: u64,
    /// Blobs that were not sound, with what was found; the first thousand of them.
    pub found: Vec<Scrubbed>,
    /// How many there were in all.
    pub found_count: u64,
    /// Whether they were repaired: set aside and wanted again, rewritten, or registered.
    pub repaired: bool,
}

/// Goes through all blobs, one by one.
pub struct Scrub {
    blobs: Blobs,
    after: Option<BlobHash>,
    bytes_per_second: Option<u64>,
    repair: bool,
}

impl Blobs {
    /// Starts after the blob `after`, or at the first, reading no faster than `bytes_per_second`.
    pub fn scrub(&self, after: Option<BlobHash>, bytes_per_second: Option<u64>, repair: bool) -> Scrub {
        Scrub { blobs: self.clone(), after, bytes_per_second, repair }
    }

    /// Reads every blob, and every file that could be one. With `repair`, also sets things right.
    pub async fn verify(&self, repair: bool, mut progress: impl FnMut(Scrubbed)) -> Result<VerifyReport, BlobError> {
        let mut report = VerifyReport { repaired: repair, ..VerifyReport::default() };
        let mut note = |scrubbed: Scrubbed| {
            report.checked += 1;
            report.checked_bytes += scrubbed.size_bytes;
            if scrubbed.outcome != Outcome::Sound {
                report.found_count += 1;
                if report.found.len() < NAMED_MAX {
                    report.found.push(scrubbed);
                }
            }
            progress(scrubbed);
        };
        let mut scrub = self.scrub(None, None, repair);
        while let Some(scrubbed) = scrub.next_blob().await? {
            note(scrubbed);
        }
        for folder in self.shards().await? {
            for hash in self.unregistered_in(folder).await? {
                note(self.look_at_unregistered(hash, repair).await?);
            }
        }
        Ok(report)
    }

    /// Looks at one blob and sets right what is wrong with it.
    pub(super) async fn examine_and_repair(&self, hash: BlobHash) -> Result<(), BlobError> {
        match self.held(hash)? {
            Some(held) => self.scrub(None, None, true).look_at(held).await.map(drop),
            None => Ok(()),
        }
    }

    /// Takes a blob away from readers. What `sound` names of it is kept to be completed.
    pub(super) async fn set_aside(&self, hash: BlobHash, sound: Option<(Manifest, Have)>) -> Result<(), BlobError> {
        let _nobody_publishes_it = self.inner.publishing.write().await;
        self.lose(hash).await?;
        let blobs = self.clone();
        blocking(move || {
            let layout = &blobs.inner.layout;
            let (blob, manifest_path) = (layout.blob(hash), layout.manifest(hash));
            let io = || -> io::Result<()> {
                disk::remove_if_there(&manifest_path)?;
                if !blob.exists() {
                    return Ok(());
                }
                match &sound {
                    Some((manifest, have)) if have.count() > 0 => {
                        layout.remove_partial(hash)?;
                        File::options().write(true).open(&blob)?.set_len(manifest.size_bytes())?;
                        disk::rename_durably(&blob, &layout.partial_data(hash))?;
                        disk::write_durably(&layout.partial_manifest(hash), &manifest.to_bytes())?;
                        disk::write_durably(&layout.partial_have(hash), have.as_bytes())
                    }
                    _ if std::fs::read_dir(&layout.damaged)?.count() < DAMAGED_KEPT_MAX => {
                        disk::rename_durably(&blob, &layout.damaged.join(hash.to_string()))
                    }
                    _ => disk::remove_if_there(&blob),
                }
            };
            io().map_err(failed("set aside", &blob))
        })
        .await
    }

    /// The folders that hold blobs.
    async fn shards(&self) -> Result<Vec<PathBuf>, BlobError> {
        let root = self.inner.layout.blobs.clone();
        blocking(move || {
            let list = || {
                let mut shards = Vec::new();
                for outer in std::fs::read_dir(&root)? {
                    let outer = outer?.path();
                    if outer.is_dir() {
                        for inner in std::fs::read_dir(outer)? {
                            shards.push(inner?.path());
                        }
                    }
                }
                Ok(shards)
            };
            list().map_err(failed("list", &root))
        })
        .await
    }

    async fn unregistered_in(&self, folder: PathBuf) -> Result<Vec<BlobHash>, BlobError> {
        let blobs = self.clone();
        blocking(move || {
            let mut unregistered = Vec::new();
            let Ok(entries) = std::fs::read_dir(&folder) else { return Ok(unregistered) };
            for entry in entries {
                let entry = entry.map_err(failed("list", &folder))?;
                let hash = entry.file_name().to_str().and_then(|name| name.parse::<BlobHash>().ok());
                if let Some(hash) = hash
                    && blobs.held(hash)?.is_none()
                {
                    unregistered.push(hash);
                }
            }
            Ok(unregistered)
        })
        .await
    }

    async fn look_at_unregistered(&self, hash: BlobHash, repair: bool) -> Result<Scrubbed, BlobError> {
        let path = self.inner.layout.manifest(hash);
        let chunking = read_manifest(&path, hash).map_or(Chunking::Fixed, |manifest| manifest.chunking());
        let examined = examine(self, HeldBlob { hash, size_bytes: 0, chunking }, None).await?;
        let Some(examined) = examined else { return Ok(Scrubbed { hash, size_bytes: 0, outcome: Outcome::Missing }) };
        let size_bytes = examined.manifest.size_bytes();
        let sound = examined.manifest.blob() == hash;
        if repair && sound {
            let _not_removed_meanwhile = self.inner.publishing.read().await;
            if !self.inner.layout.blob(hash).exists() {
                return Ok(Scrubbed { hash, size_bytes: 0, outcome: Outcome::Missing });
            }
            let bytes = examined.manifest.to_bytes();
            disk::write_durably(&path, &bytes).map_err(failed("write", &path))?;
            self.register(hash, HeldRow { size_bytes, chunking }).await?;
        } else if repair {
            self.set_aside(hash, None).await?;
        }
        let outcome = if sound { Outcome::Unregistered } else { Outcome::Damaged };
        Ok(Scrubbed { hash, size_bytes, outcome })
    }
}

impl Scrub {
    /// Looks at the next blob; `None` after the last.
    pub async fn next_blob(&mut self) -> Result<Option<Scrubbed>, BlobError> {
        let Some(held) = self.blobs.held_blobs(self.after, Direction::Ascending, 1)?.pop() else { return Ok(None) };
        let scrubbed = self.look_at(held).await?;
        self.after = Some(held.hash);
        Ok(Some(scrubbed))
    }

    /// The last blob that was looked at, to go on from later.
    pub fn place(&self) -> Option<BlobHash> {
        self.after
    }

    async fn look_at(&self, held: HeldBlob) -> Result<Scrubbed, BlobError> {
        let hash = held.hash;
        let Some(examined) = examine(&self.blobs, held, self.bytes_per_second).await? else {
            // It may have made way since it was listed.
            if self.blobs.held(hash)?.is_none() {
                return Ok(Scrubbed { hash, size_bytes: 0, outcome: Outcome::Sound });
            }
            if self.repair {
                self.blobs.set_aside(hash, None).await?;
            }
            return Ok(Scrubbed { hash, size_bytes: 0, outcome: Outcome::Missing });
        };
        let size_bytes = examined.manifest.size_bytes();
        let path = self.blobs.inner.layout.manifest(hash);
        let noted = read_manifest(&path, hash);
        if examined.manifest.blob() == hash {
            if noted.as_ref() == Some(&examined.manifest) {
                return Ok(Scrubbed { hash, size_bytes, outcome: Outcome::Sound });
            }
            if self.repair {
                let bytes = examined.manifest.to_bytes();
                disk::write_durably(&path, &bytes).map_err(failed("write", &path))?;
            }
            return Ok(Scrubbed { hash, size_bytes, outcome: Outcome::ManifestDamaged });
        }
        // It may have been removed while it was read.
        if self.repair && self.blobs.held(hash)?.is_some() {
            let sound = match noted {
                Some(noted) => {
                    let blobs = self.blobs.clone();
                    let sound = blocking(move || Ok::<_, BlobError>(sound_chunks(&blobs, noted)));
                    Some(sound.await?)
                }
                None => None,
            };
            self.blobs.set_aside(hash, sound).await?;
        }
        Ok(Scrubbed { hash, size_bytes, outcome: Outcome::Damaged })
    }
}

struct Examined {
    /// The manifest of the bytes that are there.
    manifest: Manifest,
}

/// Reads a file through; `None` if it is gone.
async fn examine(blobs: &Blobs, held: HeldBlob, bytes_per_second: Option<u64>) -> Result<Option<Examined>, BlobError> {
    let path = blobs.inner.layout.blob(held.hash);
    let mut file = match File::open(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other.map_err(failed("open", &path))?,
    };
    let mut chunker = alexandria_sync::chunk::Chunker::new(held.chunking);
    let (started, mut read_bytes) = (Instant::now(), 0u64);
    loop {
        let at = path.clone();
        let step = blocking::<_, BlobError>(move || {
            let mut buffer = Vec::with_capacity(STEP_BYTES);
            let read = Read::by_ref(&mut file).take(STEP_BYTES as u64).read_to_end(&mut buffer);
            let read = read.map_err(failed("read", &at))?;
            chunker.update(&buffer);
            Ok((file, chunker, read))
        });
        let read;
        (file, chunker, read) = step.await?;
        if read == 0 {
            break;
        }
        read_bytes += read as u64;
        if let Some(rate) = bytes_per_second {
            let due = Duration::from_secs_f64(read_bytes as f64 / rate.max(1) as f64);
            tokio::time::sleep(due.saturating_sub(started.elapsed())).await;
        }
    }
    Ok(Some(Examined { manifest: chunker.finish()? }))
}

/// Which chunks of a damaged blob are still what its manifest says.
fn sound_chunks(blobs: &Blobs, manifest: Manifest) -> (Manifest, Have) {
    use std::os::unix::fs::FileExt;
    let mut have = Have::none(manifest.chunks().len() as u32);
    if let Ok(file) = File::open(blobs.inner.layout.blob(manifest.blob())) {
        for (index, chunk) in (0u32..).zip(manifest.chunks()) {
            let mut bytes = vec![0; chunk.len as usize];
            let offset = manifest.offset(index).unwrap_or_default();
            if file.read_exact_at(&mut bytes, offset).is_ok() && manifest.verifies(index, &bytes) {
                have.insert(index);
            }
        }
    }
    (manifest, have)
}
