//! Bundles over the simulator's stores: cut off, changed, in any order, more than once, forged, too old, and both ways.

mod cuts;
mod golden;
mod lies;
mod refusals;
mod ways;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::ops::ControlFlow;

use alexandria_sync::absence::Standing;
use alexandria_sync::bundle::{
    self, Export, Exported, ImportError, Imported, Issuer, Reader, Receipt, Receiver, Survey,
};
use alexandria_sync::chunk::{BlobHash, Chunker, Chunking};
use alexandria_sync::domain::{Author, Blob, Typed};
use alexandria_sync::hlc::{ClockQuality, DRIFT_BOUND_MS};
use alexandria_sync::id::{BucketId, RecordId, Seq};
use alexandria_sync::identity::{Authority, Identity, PeerRole};
use alexandria_sync::merge::ReceiverClock;
use alexandria_sync::record::{Record, RecordKey};
use alexandria_sync::session::{Collections, Scope, Selection};
use alexandria_sync::sim::Seeded;
use alexandria_sync::store::{BucketHead, Peer, RecordStore as _};
use futures::FutureExt as _;

use crate::fleet::{NOW_UNIX_S, Site, authority, identity_trusting, node_id};

const NOW_MS: u64 = NOW_UNIX_S * 1000;
const DAY_MS: u64 = 24 * 60 * 60 * 1000;
/// Small, so that small worlds have many segments.
const SEGMENT_BYTES: usize = 3000;

/// A replica that bundles come from and go to, without files.
struct Place {
    site: Site,
    /// The key of enrolment, in a fleet.
    identity: Option<Identity>,
    now_ms: u64,
    unsigned: bool,
    selection: Selection,
    standing: Standing,
}

type State = BTreeMap<RecordKey, Record>;

/// The buckets that the tests write.
fn buckets() -> [BucketId; 3] {
    [BucketId::Catalogue, collection(1), collection(2)]
}

fn collection(number: u8) -> BucketId {
    BucketId::Collection(collection_id(number))
}

fn collection_id(number: u8) -> RecordId {
    RecordId::mint(NOW_MS, [number; 10])
}

impl Place {
    /// A member of the fleet of `authority`.
    fn member(authority: &Authority, number: u8) -> Self {
        Self::with(Some(identity_trusting(authority, authority, PeerRole::Node, number)), number)
    }

    fn alone(number: u8) -> Self {
        Self::with(None, number)
    }

    fn with(identity: Option<Identity>, number: u8) -> Self {
        let site = Site::new(number);
        let scope = Scope { site: node_id(0), collections: Collections::All };
        for peer in 0..10 {
            site.blobs.permit(node_id(peer), scope.clone());
        }
        Self {
            site,
            identity,
            now_ms: NOW_MS,
            unsigned: false,
            selection: Selection::default(),
            standing: Standing::default(),
        }
    }

    fn peer(&self) -> Peer {
        Peer { node: self.site.id, epoch: self.site.records.epoch() }
    }

    /// Writes random authors and blobs, edits and deletes: `changes` of them.
    fn live_through(&self, rng: &mut Seeded, changes: u64) {
        for _ in 0..changes {
            let bucket = *rng.pick(&buckets()).expect("there are some");
            let number = rng.below(40);
            let id = RecordId::derived(&[b"author", &number.to_be_bytes()]);
            let key = RecordKey { bucket, kind: Author::KIND, id };
            match rng.below(10) {
                0..6 => {
                    let name = format!("author {number} as {} says {}", self.site.id, rng.below(1000));
                    let author = Author { name, ..Author::default() };
                    self.site.records.write(key, |held, stamp| match held {
                        Some(held) => held.edited(author.changes_since(&Author::default()), stamp),
                        None => Some(author.to_record(bucket, id, stamp)),
                    });
                }
                6 => {
                    self.site.records.write(key, |held, stamp| held.map(|held| held.deleted(stamp)));
                }
                _ => {
                    let size = rng.between(1, 5000) as usize;
                    self.add_blob(bucket, &rng.noise(size));
                }
            }
        }
    }

    /// Takes in content, with the record that makes readers of the bucket want it.
    fn add_blob(&self, bucket: BucketId, bytes: &[u8]) -> BlobHash {
        let hash = self.add_content(bytes);
        self.name_blob(bucket, hash, bytes.len());
        hash
    }

    fn add_content(&self, bytes: &[u8]) -> BlobHash {
        let mut chunker = Chunker::new(Chunking::Fixed);
        chunker.update(bytes);
        let manifest = chunker.finish().expect("it is small");
        let hash = manifest.blob();
        self.site.blobs.import(manifest, bytes.to_vec().into());
        hash
    }

    fn name_blob(&self, bucket: BucketId, hash: BlobHash, size: usize) {
        let blob = Blob { hash: Some(hash), size_bytes: size as u64, media_type: "video/mp4".into() };
        let key = RecordKey { bucket, kind: Blob::KIND, id: Blob::record_id(hash) };
        self.site.records.write(key, |_, stamp| Some(blob.to_record(bucket, key.id, stamp)));
    }

    fn heads(&self) -> Vec<BucketHead> {
        now(self.site.records.heads()).expect("reading needs no room")
    }

    fn export(&self, reader: Option<&Reader>) -> Vec<u8> {
        self.export_with(reader, |export| export).0
    }

    fn export_with(
        &self,
        reader: Option<&Reader>,
        change: impl FnOnce(Export<'_>) -> Export<'_>,
    ) -> (Vec<u8>, Exported) {
        let standing = Some(self.standing).filter(|standing| *standing != Standing::default());
        let hello = alexandria_sync::wire::Hello { unix_ms: self.now_ms, standing, ..self.site.hello() };
        let heads = self.heads();
        let what = change(Export {
            hello: &hello,
            validity_ms: bundle::VALIDITY_MS,
            signer: self.identity.as_ref(),
            buckets: &heads,
            reader,
            content: true,
            max_bytes: None,
            segment_bytes: SEGMENT_BYTES,
        });
        let mut progress = |_| ControlFlow::Continue(());
        let written = now(bundle::export(what, &*self.site.records, &*self.site.blobs, Vec::new(), &mut progress));
        written.expect("memory takes it")
    }

    fn receiver<'r>(&'r self, accepts: &'r (dyn Fn(&Issuer, BucketId) -> bool + Sync)) -> Receiver<'r> {
        Receiver {
            local: self.peer(),
            clock: ReceiverClock {
                unix_ms: self.now_ms,
                quality: ClockQuality::Trusted,
                drift_bound_ms: DRIFT_BOUND_MS,
            },
            identity: self.identity.as_ref(),
            unsigned: self.unsigned,
            accepts,
            selection: &self.selection,
            standing: self.standing,
        }
    }

    fn import(&self, bytes: &[u8]) -> Result<Imported, ImportError> {
        let mut progress = |_| ControlFlow::Continue(());
        self.import_until(bytes, &mut progress)
    }

    fn import_until(&self, bytes: &[u8], progress: &mut bundle::OnProgress<'_>) -> Result<Imported, ImportError> {
        let accepts = accepts;
        now(bundle::import(&self.receiver(&accepts), bytes, &*self.site.records, &*self.site.blobs, progress))
    }

    fn survey(&self, bytes: &[u8]) -> Survey {
        let accepts = accepts;
        let held =
            async |keys: Vec<_>| Ok::<_, Infallible>(keys.into_iter().map(|key| self.site.records.get(key)).collect());
        let holds = async |blob| Ok::<_, Infallible>(self.site.blobs.whole(blob).is_some());
        let surveyed = now(bundle::survey(&self.receiver(&accepts), bytes, &*self.site.records, held, holds));
        surveyed.expect("it is taken")
    }

    /// The receipt for `exporter`, as bytes.
    fn receipt(&self, exporter: Peer) -> Vec<u8> {
        let standing = Some(self.standing).filter(|standing| *standing != Standing::default());
        let hello = alexandria_sync::wire::Hello { unix_ms: self.now_ms, standing, ..self.site.hello() };
        let receipt = now(Receipt::gather(hello, exporter, &*self.site.records, &*self.site.blobs));
        let receipt = receipt.expect("memory never fails");
        receipt.write(self.identity.as_ref(), Vec::new()).expect("memory takes it")
    }

    fn read_receipt(&self, bytes: &[u8]) -> Reader {
        let accepts = accepts;
        let receipt = Receipt::read(&self.receiver(&accepts), bytes).expect("it is for this one");
        Reader { node: receipt.reader().node, life: Some(receipt.reader()), receipt: Some(receipt) }
    }

    /// Everything that was written, as other replicas would see it.
    fn state(&self) -> State {
        self.site.records.all().into_iter().map(|record| (record.key, record)).collect()
    }

    /// Everything, with where reading others stands and what content is whole.
    fn all(&self) -> (State, Vec<(Peer, BucketId, Seq)>, Vec<BlobHash>) {
        let cursors = self.site.records.cursors().into_iter();
        let cursors = cursors.map(|(node, bucket, at)| (Peer { node, epoch: at.epoch }, bucket, at.seq)).collect();
        (self.state(), cursors, self.site.blobs.whole_blobs())
    }

    /// What must hold whatever was imported.
    fn is_sound(&self) {
        assert_eq!(self.site.records.feed_fault(), None);
        assert_eq!(self.site.blobs.unverified(), None);
    }
}

fn accepts(_: &Issuer, bucket: BucketId) -> bool {
    !matches!(bucket, BucketId::Site(_))
}

/// The stores in memory never wait.
fn now<T>(future: impl Future<Output = T>) -> T {
    future.now_or_never().expect("the stores in memory never wait")
}

/// Two members of one fleet.
fn pair() -> (Place, Place) {
    let authority = authority();
    (Place::member(&authority, 1), Place::member(&authority, 2))
}
