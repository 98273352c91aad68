//! Writes a bundle: into a file beside the one that was asked for, which takes its name once it is whole and durable.

use std::fs::File;
use std::io::{self, BufWriter};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use alexandria_sync::absence::Standing;
use alexandria_sync::bundle::report::BundleExported;
use alexandria_sync::bundle::{
    self, Export, ExportError, Exported, OnProgress, Progress, Reader, SEGMENT_BYTES, VALIDITY_MS, VALIDITY_MS_MAX,
};
use alexandria_sync::id::{BucketId, NodeId, Seq};
use alexandria_sync::store::{BucketHead, Peer};

use super::{BUFFER_BYTES, BundleError, Bundles, failed, partial, place};
use crate::replication::{hand_over_site, hello};

const DAY_MS: u64 = 24 * 60 * 60 * 1000;

/// What is to be written.
#[derive(Clone, Debug, Default)]
pub struct ExportOptions {
    /// The file.
    pub file: PathBuf,
    /// Titles or ids of the collections that it carries; all if there are none.
    pub collections: Vec<String>,
    /// For which node; anyone of the fleet if `None`.
    pub reader: Option<NodeId>,
    /// Whether content is left out.
    pub records_only: bool,
    /// The file has no more bytes than this.
    pub max_bytes: Option<u64>,
    /// How many days it is good; the usual time if `None`.
    pub valid_days: Option<u64>,
}

impl Bundles {
    /// Writes a bundle.
    ///
    /// # Errors
    ///
    /// [`BundleError`]; there is no bundle then, and no half one.
    pub async fn export(
        &self,
        options: &ExportOptions,
        progress: &mut OnProgress<'_>,
    ) -> Result<BundleExported, BundleError> {
        if let Some(node) = options.reader {
            self.check_member(node).await?;
            // A node that replaces another gets all that belongs to its site.
            hand_over_site(&self.records, &self.fleet, node).await?;
        }
        let local = self.local().await?;
        // Before the feeds are looked at: whatever had arrived by then is in them.
        let standing = self.records.standing().await?;
        let reader = match options.reader {
            Some(node) => Some(self.reader(node, local, standing).await?),
            None => None,
        };
        // Whoever reads all of it misses nothing. The site is in none that is for anyone.
        let keeps_all = reader.is_some() && options.collections.is_empty() && options.max_bytes.is_none();
        let remembered = match options.reader {
            Some(node) => self.records.remembered(node).await?,
            None => Vec::new(),
        };
        let hello = hello(&self.records, Standing { keeps_all, ..standing }, 0, remembered);
        let buckets = self.buckets(options).await?;
        let validity_ms = options.valid_days.map_or(VALIDITY_MS, |days| days.saturating_mul(DAY_MS));
        let what = Export {
            hello: &hello,
            validity_ms: validity_ms.min(VALIDITY_MS_MAX),
            signer: Some(&self.identity),
            buckets: &buckets,
            reader: reader.as_ref(),
            content: !options.records_only,
            max_bytes: options.max_bytes,
            segment_bytes: SEGMENT_BYTES,
        };
        let partial = partial(&options.file);
        let written = self.write_file(what, &partial, &options.file, progress).await;
        if written.is_err() {
            // What is left of it is of no use to anyone.
            let _ = std::fs::remove_file(&partial);
        }
        Ok(BundleExported::of(&written?, &what))
    }

    async fn write_file(
        &self,
        what: Export<'_>,
        partial: &Path,
        file: &Path,
        progress: &mut OnProgress<'_>,
    ) -> Result<Exported, BundleError> {
        let out = File::create(partial).map_err(failed("make", partial))?;
        let out = BufWriter::with_capacity(BUFFER_BYTES, out);
        let reader = what.reader.map(|reader| reader.node);
        let watch = self.watch(reader);
        let mut progress = |now: Progress| if watch.is_revoked() { ControlFlow::Break(()) } else { progress(now) };
        // The shared buckets are what anyone may see who has no site, such as the bridge itself.
        let records = self.records.for_node(reader.unwrap_or(what.hello.node));
        let written = bundle::export(what, &records, &self.content, out, &mut progress).await;
        let (out, exported) = written.map_err(|error| match (error, reader) {
            (ExportError::Stopped, Some(reader)) if watch.is_revoked() => BundleError::Revoked(reader),
            (ExportError::Io(error), _) if is_no_room(&error) => BundleError::NoRoom(file.to_owned()),
            (error, _) => error.into(),
        })?;
        let out = out.into_inner().map_err(|error| failed("write", partial)(error.into_error()))?;
        out.sync_all().map_err(failed("write", partial))?;
        drop(out);
        place(partial, file)?;
        Ok(exported)
    }

    /// The catalogue and the chosen collections, and the reader's own site, even if nothing was ever in it: who reads all of these has
    /// what a session would bring.
    async fn buckets(&self, options: &ExportOptions) -> Result<Vec<BucketHead>, BundleError> {
        let mut chosen = Vec::new();
        for name in &options.collections {
            let found = self.records.find_collection(name).await?;
            chosen.push(BucketId::Collection(found.ok_or_else(|| BundleError::UnknownCollection(name.clone()))?));
        }
        let bridge = self.records.identity().node_id();
        let mut buckets = self.records.heads(Some(options.reader.unwrap_or(bridge))).await?;
        buckets.retain(|head| match head.bucket {
            BucketId::Catalogue => true,
            BucketId::Collection(_) => chosen.is_empty() || chosen.contains(&head.bucket),
            BucketId::Site(site) => options.reader == Some(site),
        });
        if let Some(own) = options.reader.map(BucketId::Site)
            && !buckets.iter().any(|head| head.bucket == own)
        {
            buckets.push(BucketHead { bucket: own, head: Seq(0) });
        }
        Ok(buckets)
    }

    /// What is known of a node: from its receipt, or from what it has sent.
    async fn reader(&self, node: NodeId, local: Peer, standing: Standing) -> Result<Reader, BundleError> {
        let lives = self.lives(node).await?;
        if let Some(receipt) = self.last_receipt(node, &lives, local, standing).await? {
            return Ok(Reader { node, life: Some(receipt.reader()), receipt: Some(receipt) });
        }
        // Of a node that was restored, and has not been read since, nobody knows which life it is in.
        let life = if let [epoch] = lives[..] { Some(Peer { node, epoch }) } else { None };
        Ok(Reader { node, life, receipt: None })
    }
}

fn is_no_room(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::FileTooLarge | io::ErrorKind::QuotaExceeded)
}
