//! Looks at bundles and receipts, and takes them in.

use std::fs::File;
use std::io::Read;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use alexandria_sync::absence::Standing;
use alexandria_sync::bundle::{self, FileKind, Issuer, RECEIPT_BYTES_MAX, Receipt};
use alexandria_sync::chunk::BlobHash;
use alexandria_sync::lineage::Remembered;
use alexandria_sync::record::RecordKey;
use alexandria_sync::store::RecordStore as _;
use tokio::sync::mpsc;

use super::{BundleError, Bundles, blocking, described, failed, open, receipts};
use crate::local::bundles::{
    BundleContents, BundleImportLine, BundleImported, BundleProgress, BundleRequest, BundleSurvey, ReceiptContents,
};
use crate::store::{StoreError, write_durably};

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
        let held_records = async |keys: Vec<RecordKey>| {
            let held = |key| Ok::<_, StoreError>(self.records().get(key)?.map(|stored| stored.record));
            keys.into_iter().map(held).collect()
        };
        let holds_blob = async |blob: BlobHash| self.blobs().held(blob).map(|held| held.is_some());
        let input = open(&request.file)?;
        let file_bytes = input.get_ref().metadata().map_err(failed("read", &request.file))?.len();
        let survey = bundle::survey(&receiver, input, self.records(), held_records, holds_blob).await?;
        self.check_lease(&survey.issuer, &takes.selected)?;
        let has_room = self.blobs().has_room(survey.bytes_new);
        Ok(BundleSurvey::Bundle(BundleContents::of(&survey, file_bytes, has_room)))
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
        self.check_lease(&bundle::issuer(&receiver, open(&request.file)?)?, &takes.selected)?;
        // So that the store knows whose word it takes, even if no session was ever tried.
        self.records().set_bridge(self.member.as_ref().map(|member| member.bridge));
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
        let standing = self.standing_to(imported.issuer.hello.node, &takes.selected);
        let receipt = self.write_receipt(request, &imported.issuer, standing).await;
        Ok(BundleImportLine::Done(BundleImported::of(&imported, receipt.map_err(described))))
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
        let contents = ReceiptContents::of(&receipt, known.as_ref());
        Ok((bytes, contents, receipt.issuer.hello.remembered))
    }
}

fn kind_of(path: &Path) -> Result<FileKind, BundleError> {
    let file = File::open(path).map_err(failed("read", path))?;
    let kind = FileKind::of(file).map_err(failed("read", path))?;
    kind.ok_or_else(|| BundleError::NeitherOf(path.to_owned()))
}
