//! Looks at bundles and receipts, and takes them in.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use alexandria_sync::absence::Standing;
use alexandria_sync::bundle::{
    self, BucketRefusal, Ending, FileKind, Imported, Issuer, KindCounts, LACKS_MAX, Receipt, Survey,
};
use alexandria_sync::chunk::BlobHash;
use alexandria_sync::domain::{
    Annotation, Author, AuthorCategory, Blob, Category, Collection, Media, MediaAuthor, MediaCategory, OpenCount,
    Typed, User,
};
use alexandria_sync::id::BucketId;
use alexandria_sync::lineage::Remembered;
use alexandria_sync::record::{Kind, RecordKey};
use alexandria_sync::store::RecordStore as _;
use tokio::sync::mpsc;

use super::{BundleError, Bundles, blocking, described, failed, made_by, open, receipts};
use crate::local::bundles::{
    BundleContents, BundleImportLine, BundleImported, BundleProgress, BundleRequest, BundleSurvey, KindChanges,
    ReceiptContents, RefusedBucket,
};
use crate::store::{StoreError, write_durably};

/// Bytes of a receipt, at most: its buckets, what it lacks, and room.
const RECEIPT_BYTES_MAX: u64 = 100 * LACKS_MAX as u64;
/// Refused buckets that are told of by name, at most.
const REFUSED_TOLD_MAX: usize = 100;

impl Bundles {
    /// Tells what a file is and what it would change. Nothing is changed.
    ///
    /// # Errors
    ///
    /// Why it is not taken, with all causes.
    pub async fn survey(self, request: BundleRequest) -> Result<BundleSurvey, String> {
        blocking(async move || self.look(&request).await).await.map_err(described)
    }

    /// Takes a file in; the last line sent is `Done`, `Noted` or `Failed`. Stops when nobody listens any more.
    pub async fn import(self, request: BundleRequest, lines: mpsc::Sender<BundleImportLine>) {
        let told = lines.clone();
        let last = match blocking(async move || self.take(&request, &told).await).await {
            Ok(last) => last,
            Err(error) => BundleImportLine::Failed { reason: described(error) },
        };
        let _ = lines.send(last).await;
    }

    async fn look(&self, request: &BundleRequest) -> Result<BundleSurvey, BundleError> {
        if kind_of(&request.file)? == FileKind::Receipt {
            return Ok(BundleSurvey::Receipt(self.read_receipt(request).await?.1));
        }
        let takes = self.takes().await?;
        let receiver = self.receiver(request.unsigned, &takes);
        let held_record = async |key: RecordKey| {
            let held = self.records().get(key)?;
            Ok::<_, StoreError>(held.map(|stored| stored.record))
        };
        let holds_blob = async |blob: BlobHash| self.blobs().held(blob).map(|held| held.is_some());
        let input = open(&request.file)?;
        let file_bytes = input.get_ref().metadata().map_err(failed("read", &request.file))?.len();
        let survey = bundle::survey(&receiver, input, self.records(), held_record, holds_blob).await?;
        Ok(BundleSurvey::Bundle(self.contents(&survey, file_bytes)))
    }

    fn contents(&self, survey: &Survey, file_bytes: u64) -> BundleContents {
        let cut = "it is shorter than the content that it lists: it was cut off";
        let fault = fault(&survey.ending).or_else(|| (file_bytes < survey.content_bytes).then(|| cut.to_owned()));
        BundleContents {
            made_by: made_by(&survey.issuer),
            expires_unix_ms: survey.expires_unix_ms,
            kinds: survey.kinds.iter().map(|(&kind, &counts)| kind_changes(kind, counts)).collect(),
            refused: refused(&survey.refused),
            blobs_new: survey.blobs_new,
            bytes_new: survey.bytes_new,
            blobs_known: survey.blobs_known,
            has_room: self.blobs().has_room(survey.bytes_new),
            fault,
        }
    }

    async fn take(
        &self,
        request: &BundleRequest,
        lines: &mpsc::Sender<BundleImportLine>,
    ) -> Result<BundleImportLine, BundleError> {
        if kind_of(&request.file)? == FileKind::Receipt {
            let (bytes, contents, remembered) = self.read_receipt(request).await?;
            if !self.records().recall(contents.made_by.node, remembered).await? {
                return Err(BundleError::SetBack);
            }
            if !contents.outdated {
                receipts::keep(&self.library, contents.made_by.node, &bytes)?;
            }
            return Ok(BundleImportLine::Noted(contents));
        }
        let takes = self.takes().await?;
        let receiver = self.receiver(request.unsigned, &takes);
        let input = open(&request.file)?;
        let of_bytes = input.get_ref().metadata().map_err(failed("read", &request.file))?.len();
        let mut progress = |progress: bundle::Progress| {
            let line = BundleProgress { records: progress.records, bytes: progress.bytes, of_bytes };
            // A line for which there is no room is not missed.
            let _ = lines.try_send(BundleImportLine::Progress(line));
            if lines.is_closed() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        let blobs = self.blobs().session();
        // Whatever is chosen meanwhile, nothing is written that was chosen before.
        let records = self.records().as_selected(takes.selected.version);
        let imported = bundle::import(&receiver, input, &records, &blobs, &mut progress).await?;
        // All is in; without a receipt the next bundle is only larger.
        let receipt = self.write_receipt(request, &imported.issuer, takes.selected.nearby).await;
        Ok(BundleImportLine::Done(summary(&imported, receipt)))
    }

    /// Writes what this node now has of the issuer's feeds.
    async fn write_receipt(
        &self,
        request: &BundleRequest,
        issuer: &Issuer,
        standing: Standing,
    ) -> Result<PathBuf, BundleError> {
        let path = request.receipt.clone().unwrap_or_else(|| {
            let mut name = request.file.file_name().unwrap_or_default().to_owned();
            name.push(format!(".{}.receipt", self.local().node));
            request.file.with_file_name(name)
        });
        let blobs = self.blobs().session();
        let hello = self.hello(standing, Some(issuer.hello.node)).await?;
        let receipt = Receipt::gather(hello, issuer.peer(), self.records(), &blobs).await;
        let bytes = receipt.map_err(BundleError::Gather)?.write(self.identity(), Vec::new())?;
        write_durably(&path, &bytes).map_err(failed("write", &path))?;
        Ok(path)
    }

    /// The receipt as it came, what it says, and what its writer remembers of this library.
    async fn read_receipt(
        &self,
        request: &BundleRequest,
    ) -> Result<(Vec<u8>, ReceiptContents, Vec<Remembered>), BundleError> {
        let mut bytes = Vec::new();
        let input = open(&request.file)?;
        input.take(RECEIPT_BYTES_MAX).read_to_end(&mut bytes).map_err(failed("read", &request.file))?;
        let takes = self.takes().await?;
        let receiver = self.receiver(request.unsigned, &takes);
        let receipt = Receipt::read(&receiver, bytes.as_slice())?;
        let known = receipts::last(&self.library, &receiver, receipt.reader().node)?;
        let contents = ReceiptContents {
            made_by: made_by(&receipt.issuer),
            buckets: receipt.cursors.len() as u64,
            lacks: receipt.lacks.len() as u64,
            outdated: known.is_some_and(|known| !receipt.is_no_older_than(&known)),
        };
        Ok((bytes, contents, receipt.issuer.hello.remembered))
    }
}

fn kind_of(path: &Path) -> Result<FileKind, BundleError> {
    let file = File::open(path).map_err(failed("read", path))?;
    let kind = FileKind::of(file).map_err(failed("read", path))?;
    kind.ok_or_else(|| BundleError::NeitherOf(path.to_owned()))
}

fn summary(imported: &Imported, receipt: Result<PathBuf, BundleError>) -> BundleImported {
    let (receipt, receipt_error) = match receipt {
        Ok(path) => (Some(path), None),
        Err(error) => (None, Some(described(error))),
    };
    BundleImported {
        made_by: made_by(&imported.issuer),
        applied: imported.applied.applied.into(),
        known: imported.applied.superseded.into(),
        set_aside: imported.applied.quarantined.into(),
        blobs: imported.blobs,
        blob_bytes: imported.blob_bytes,
        blobs_incomplete: imported.blobs_incomplete,
        blobs_busy: imported.blobs_busy,
        full: imported.full,
        refused: refused(&imported.refused),
        fault: fault(&imported.ending),
        receipt,
        receipt_error,
    }
}

fn refused(refused: &BTreeMap<BucketId, BucketRefusal>) -> Vec<RefusedBucket> {
    let told = refused.iter().take(REFUSED_TOLD_MAX).map(|(&bucket, refusal)| RefusedBucket {
        bucket,
        reason: refusal.to_string(),
        gap: matches!(refusal, BucketRefusal::Gap { .. }),
    });
    told.collect()
}

/// What is wrong with a file, in words.
fn fault(ending: &Ending) -> Option<String> {
    match ending {
        Ending::Whole => None,
        Ending::Cut { bytes, .. } => Some(format!("the file is cut off; what is whole ends at byte {bytes}")),
        Ending::Damaged { bytes, problem, .. } => Some(format!("the file is damaged after byte {bytes}: {problem}")),
    }
}

fn kind_changes(kind: Kind, counts: KindCounts) -> KindChanges {
    let KindCounts { new, changed, deleted, known, set_aside } = counts;
    KindChanges { kind: kind_name(kind), new, changed, deleted, known, set_aside }
}

fn kind_name(kind: Kind) -> String {
    let name = match kind {
        Annotation::KIND => Annotation::NAME,
        Author::KIND => Author::NAME,
        AuthorCategory::KIND => AuthorCategory::NAME,
        Blob::KIND => Blob::NAME,
        Category::KIND => Category::NAME,
        Collection::KIND => Collection::NAME,
        Media::KIND => Media::NAME,
        MediaAuthor::KIND => MediaAuthor::NAME,
        MediaCategory::KIND => MediaCategory::NAME,
        OpenCount::KIND => OpenCount::NAME,
        User::KIND => User::NAME,
        Kind(number) => return format!("kind {number}"),
    };
    name.to_owned()
}
