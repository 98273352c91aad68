//! Looks at bundles and receipts, and takes them in.

use std::fs::File;
use std::io::{Read, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Duration;

use alexandria_sync::absence::Standing;
use alexandria_sync::bundle::report::{BundleContents, BundleImported, ReceiptContents};
use alexandria_sync::bundle::{
    self, FileKind, ImportError, Imported, Issuer, OnProgress, Progress, RECEIPT_BYTES_MAX, Receipt,
};
use alexandria_sync::chunk::BlobHash;
use alexandria_sync::record::RecordKey;
use alexandria_sync::session::Selection;
use alexandria_sync::store::Peer;

use super::{BundleError, Bundles, failed, open, partial, place, with_suffix};
use crate::replication::{hand_over_site, hello};

/// Against clocks that tick apart: so much longer than a claim lasts it is waited for one to run out.
const CLAIM_MARGIN: Duration = Duration::from_secs(1);

/// What a file would change.
#[derive(Clone, Debug)]
pub enum Surveyed {
    /// It is a bundle.
    Bundle(BundleContents),
    /// It is a receipt.
    Receipt(ReceiptContents),
}

/// What was taken of a file.
#[derive(Clone, Debug)]
pub enum Taken {
    /// A bundle was taken in.
    Bundle(BundleImported),
    /// A receipt was taken note of, unless it is outdated.
    Receipt(ReceiptContents),
}

impl Bundles {
    /// Tells what a file is and what it would change. Nothing is changed.
    ///
    /// # Errors
    ///
    /// [`BundleError`]: why nothing of it is taken.
    pub async fn survey(&self, file: &Path) -> Result<Surveyed, BundleError> {
        if kind_of(file)? == FileKind::Receipt {
            return Ok(Surveyed::Receipt(self.read_receipt(file).await?.told));
        }
        let (local, standing) = (self.local().await?, self.records.standing().await?);
        let issuer = self.issuer(file, local, standing).await?;
        let selection = Selection::default();
        let receiver = self.receiver(local, standing, &selection);
        let records = self.records.for_node(issuer.hello.node);
        let held_records = async |keys: Vec<RecordKey>| self.records.held_versions(&keys).await;
        let holds_blob = async |blob: BlobHash| self.content.stored(blob).await.map(|stored| stored.is_some());
        let input = open(file)?;
        let file_bytes = input.get_ref().metadata().map_err(failed("read", file))?.len();
        let survey = bundle::survey(&receiver, input, &records, held_records, holds_blob).await?;
        // S3 has room.
        Ok(Surveyed::Bundle(BundleContents::of(&survey, file_bytes, true)))
    }

    /// Takes a file in, and writes a receipt for a bundle: beside it, unless it is to be elsewhere.
    ///
    /// # Errors
    ///
    /// [`BundleError`]. What was taken by then stays; the same file goes on from there.
    pub async fn import(
        &self,
        file: &Path,
        receipt: Option<&Path>,
        progress: &mut OnProgress<'_>,
    ) -> Result<Taken, BundleError> {
        if kind_of(file)? == FileKind::Receipt {
            return self.take_note(file).await;
        }
        let (local, standing) = (self.local().await?, self.records.standing().await?);
        let issuer = self.issuer(file, local, standing).await?;
        let node = issuer.hello.node;
        hand_over_site(&self.records, &self.fleet, node).await?;
        let mut imported = self.take(file, &issuer, (local, standing), progress).await?;
        if imported.blobs_busy > 0 {
            // Another process receives them now, or one did that was killed: its claim runs out.
            tokio::time::sleep(self.content.lease() + CLAIM_MARGIN).await;
            let again = self.take(file, &issuer, (local, standing), progress).await?;
            imported.blobs += again.blobs;
            imported.blob_bytes += again.blob_bytes;
            imported.blobs_busy = again.blobs_busy;
            imported.blobs_incomplete = again.blobs_incomplete;
        }
        self.fleet.note_heard(node, issuer.hello.standing).await?;
        self.note_life(&issuer.hello).await?;
        // All is in; without a receipt the next bundle is only larger.
        let path = receipt.map_or_else(|| with_suffix(file, &format!(".{}.receipt", local.node)), Path::to_owned);
        let receipt = self.write_receipt(path, issuer.peer(), standing).await;
        let receipt = receipt.map_err(|error| format!("{:#}", anyhow::Error::from(error)));
        Ok(Taken::Bundle(BundleImported::of(&imported, receipt)))
    }

    /// Who made a bundle that can be taken: a node that takes part in the fleet.
    async fn issuer(&self, file: &Path, local: Peer, standing: Standing) -> Result<Issuer, BundleError> {
        let selection = Selection::default();
        let issuer = bundle::issuer(&self.receiver(local, standing, &selection), open(file)?)?;
        self.check_member(issuer.hello.node).await?;
        Ok(issuer)
    }

    async fn take(
        &self,
        file: &Path,
        issuer: &Issuer,
        (local, standing): (Peer, Standing),
        progress: &mut OnProgress<'_>,
    ) -> Result<Imported, BundleError> {
        let node = issuer.hello.node;
        let selection = Selection::default();
        let receiver = self.receiver(local, standing, &selection);
        let watch = self.watch(Some(node));
        let mut progress = |now: Progress| if watch.is_revoked() { ControlFlow::Break(()) } else { progress(now) };
        let records = self.records.for_node(node);
        let imported = bundle::import(&receiver, open(file)?, &records, &self.content, &mut progress).await;
        imported.map_err(|error| match error {
            ImportError::Stopped if watch.is_revoked() => BundleError::Revoked(node),
            ImportError::Open(error) => error.into(),
            error => error.into(),
        })
    }

    /// Writes what the bridge now has of a node's feeds.
    async fn write_receipt(&self, path: PathBuf, of: Peer, standing: Standing) -> Result<PathBuf, BundleError> {
        let records = self.records.for_node(of.node);
        let remembered = self.records.remembered(of.node).await?;
        let hello = hello(&self.records, standing, 0, remembered);
        let receipt = Receipt::gather(hello, of, &records, &self.content).await.map_err(BundleError::Gather)?;
        let bytes = receipt.write(Some(&self.identity), Vec::new())?;
        let partial = partial(&path);
        let written = File::create(&partial).and_then(|mut file| {
            file.write_all(&bytes)?;
            file.sync_all()
        });
        written.map_err(failed("write", &partial))?;
        place(&partial, &path)?;
        Ok(path)
    }

    async fn take_note(&self, file: &Path) -> Result<Taken, BundleError> {
        let ReadReceipt { bytes, receipt, told } = self.read_receipt(file).await?;
        if !told.outdated {
            self.keep_receipt(&receipt, &bytes).await?;
            self.fleet.note_heard(receipt.reader().node, receipt.issuer.hello.standing).await?;
        }
        Ok(Taken::Receipt(told))
    }

    async fn read_receipt(&self, file: &Path) -> Result<ReadReceipt, BundleError> {
        let mut bytes = Vec::new();
        open(file)?.take(RECEIPT_BYTES_MAX).read_to_end(&mut bytes).map_err(failed("read", file))?;
        let (local, standing) = (self.local().await?, self.records.standing().await?);
        let selection = Selection::default();
        let receipt = Receipt::read(&self.receiver(local, standing, &selection), bytes.as_slice())?;
        let node = receipt.reader().node;
        self.check_member(node).await?;
        let known = self.last_receipt(node, &self.lives(node).await?, local, standing).await?;
        let mut told = ReceiptContents::of(&receipt, known.as_ref());
        told.outdated |= self.is_of_earlier_life(&receipt.issuer.hello).await?;
        Ok(ReadReceipt { bytes, receipt, told })
    }
}

/// A receipt as it came, what it says, and what people are told of it.
struct ReadReceipt {
    bytes: Vec<u8>,
    receipt: Receipt,
    told: ReceiptContents,
}

fn kind_of(path: &Path) -> Result<FileKind, BundleError> {
    let file = File::open(path).map_err(failed("read", path))?;
    let kind = FileKind::of(file).map_err(failed("read", path))?;
    kind.ok_or_else(|| BundleError::NeitherOf(path.to_owned()))
}
