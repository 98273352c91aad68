//! Writes a bundle: into a file beside the one that was asked for, which takes its name once it is whole and durable.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, BufWriter};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use alexandria_sync::absence::Standing;
use alexandria_sync::bundle::{
    self, Export, ExportError, Exported, Reader, SEGMENT_BYTES, VALIDITY_MS, VALIDITY_MS_MAX,
};
use alexandria_sync::id::{BucketId, NodeId};
use alexandria_sync::store::{BucketHead, Peer, RecordStore as _};
use tokio::sync::mpsc;

use super::{BUFFER_BYTES, BundleError, Bundles, blocking, described, failed, receipts};
use crate::local::bundles::{BundleExportLine, BundleExportRequest, BundleExported, BundleProgress};
use crate::store::in_use::Staying;
use crate::store::{remove_if_there, rename_durably};

const DAY_MS: u64 = 24 * 60 * 60 * 1000;

impl Bundles {
    /// Writes a bundle; the last line sent is `Done` or `Failed`. Stops when nobody listens any more.
    pub async fn export(self, request: BundleExportRequest, lines: mpsc::Sender<BundleExportLine>) {
        let told = lines.clone();
        let last = match blocking(async move || self.write(&request, &told).await).await {
            Ok(exported) => BundleExportLine::Done(exported),
            Err(error) => BundleExportLine::Failed { reason: described(error) },
        };
        let _ = lines.send(last).await;
    }

    async fn write(
        &self,
        request: &BundleExportRequest,
        lines: &mpsc::Sender<BundleExportLine>,
    ) -> Result<BundleExported, BundleError> {
        if request.reader == Some(self.local().node) {
            return Err(BundleError::ForItself);
        }
        let selected = self.takes().await?.selected;
        let standing = request.reader.map_or(selected.nearby, |reader| self.standing_to(reader, &selected));
        // Who reads all of it misses nothing.
        let carries_all = request.collections.is_empty() && request.max_bytes.is_none();
        let hello =
            self.hello(Standing { keeps_all: standing.keeps_all && carries_all, ..standing }, request.reader).await?;
        let reader = match request.reader {
            Some(node) => Some(self.reader(node).await?),
            None => None,
        };
        let (buckets, _stay_as_they_are) = self.buckets(request)?;
        let validity_ms = request.valid_days.map_or(VALIDITY_MS, |days| days.saturating_mul(DAY_MS));
        let what = Export {
            hello: &hello,
            validity_ms: validity_ms.min(VALIDITY_MS_MAX),
            signer: self.identity(),
            buckets: &buckets,
            reader: reader.as_ref(),
            content: !request.records_only,
            max_bytes: request.max_bytes,
            segment_bytes: SEGMENT_BYTES,
        };
        let partial = partial(&request.file);
        let written = self.write_file(what, &partial, &request.file, lines).await;
        if written.is_err() {
            // What is left of it is of no use to anyone.
            let _ = remove_if_there(&partial);
        }
        let exported = written?;
        Ok(BundleExported::of(&exported, &what))
    }

    async fn write_file(
        &self,
        what: Export<'_>,
        partial: &Path,
        file: &Path,
        lines: &mpsc::Sender<BundleExportLine>,
    ) -> Result<Exported, BundleError> {
        let out = File::create(partial).map_err(failed("make", partial))?;
        let out = BufWriter::with_capacity(BUFFER_BYTES, out);
        let mut progress = |progress: bundle::Progress| {
            let line =
                BundleProgress { records: progress.records, bytes: progress.bytes, of_bytes: progress.content_bytes };
            // A line for which there is no room is not missed.
            let _ = lines.try_send(BundleExportLine::Progress(line));
            if lines.is_closed() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        let written = bundle::export(what, self.records(), &self.blobs().session(), out, &mut progress).await;
        let no_room = |error: &io::Error| {
            matches!(
                error.kind(),
                io::ErrorKind::StorageFull | io::ErrorKind::FileTooLarge | io::ErrorKind::QuotaExceeded
            )
        };
        let (out, exported) = written.map_err(|error| match error {
            ExportError::Io(error) if no_room(&error) => BundleError::NoRoom(file.to_owned()),
            error => error.into(),
        })?;
        let out = out.into_inner().map_err(|error| failed("write", partial)(error.into_error()))?;
        out.sync_all().map_err(failed("write", partial))?;
        drop(out);
        rename_durably(partial, file).map_err(failed("write", file))?;
        Ok(exported)
    }

    /// The catalogue and the chosen collections, of those that are kept here; the node's own site only if its bridge is to
    /// read it. Nothing of them is evicted while they are written.
    fn buckets(&self, request: &BundleExportRequest) -> Result<(Vec<BucketHead>, Staying), BundleError> {
        let mut chosen = BTreeSet::new();
        for name in &request.collections {
            let found = self.library.find_collection(name)?;
            let found = found.ok_or_else(|| BundleError::UnknownCollection(name.clone()))?;
            if !self.library.keeps(found)? {
                return Err(BundleError::NotKept(name.clone()));
            }
            chosen.insert(found);
        }
        let own = self.local().node;
        let for_bridge = request.reader.is_some_and(|reader| self.is_bridge(reader));
        let carried = |bucket: BucketId| match bucket {
            BucketId::Catalogue => true,
            BucketId::Collection(id) => chosen.is_empty() || chosen.contains(&id),
            BucketId::Site(site) => site == own && for_bridge,
        };
        let mut heads: Vec<BucketHead> = self.records().heads_now();
        heads.retain(|head| carried(head.bucket));
        let stay = self.records().let_stay(heads.iter().map(|head| head.bucket));
        let mut kept = Vec::with_capacity(heads.len());
        for head in heads {
            // Looked up now that none of them can begin to leave.
            let leaves = matches!(head.bucket, BucketId::Collection(id) if !self.library.keeps(id)?);
            if !leaves {
                kept.push(head);
            }
        }
        Ok((kept, stay))
    }

    /// What is known of a reader: from its receipt, or from what it has sent.
    async fn reader(&self, node: NodeId) -> Result<Reader, BundleError> {
        let takes = self.takes().await?;
        if let Some(receipt) = receipts::last(&self.library, &self.receiver(true, &takes), node)? {
            return Ok(Reader { node, life: Some(receipt.reader()), receipt: Some(receipt) });
        }
        for head in self.records().heads_now() {
            if let Some(cursor) = self.records().cursor(node, head.bucket).await? {
                return Ok(Reader { node, life: Some(Peer { node, epoch: cursor.epoch }), receipt: None });
            }
        }
        Ok(Reader { node, life: None, receipt: None })
    }
}

fn partial(file: &Path) -> PathBuf {
    let mut name = file.file_name().unwrap_or_default().to_owned();
    name.push(".partial");
    file.with_file_name(name)
}
