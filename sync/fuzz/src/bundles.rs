//! Files that come on a stick: bundles and receipts that a fuzzer made up.
//!
//! A file is tried as it is, and once more with seals that fit whatever stands between them, for a change anywhere else
//! than in a seal is noticed by its hash and goes no further.

use std::convert::Infallible;
use std::ops::ControlFlow;
use std::sync::{Arc, LazyLock};

use alexandria_sync::absence::Standing;
use alexandria_sync::bundle::{self, Issuer, Receipt, Receiver};
use alexandria_sync::hlc::{ClockQuality, DRIFT_BOUND_MS};
use alexandria_sync::id::{BucketId, Epoch, NodeId};
use alexandria_sync::merge::ReceiverClock;
use alexandria_sync::session::{Collections, Scope, Selection};
use alexandria_sync::sim::{SimBlobs, SimRecords};
use alexandria_sync::store::Peer;
use alexandria_sync::wire::FRAME_HEADER_BYTES;
use futures::FutureExt as _;

/// The type of the frame that seals a segment.
const SEAL: u8 = 161;
/// When the kept files were made.
const NOW_UNIX_MS: u64 = 1_767_225_600_000;
/// Room for content, in bytes.
const QUOTA_BYTES: u64 = 1_000_000;
/// Who has written the kept bundle, and reads the kept receipt.
const EXPORTER: NodeId = NodeId::from_bytes([1; 16]);
const IMPORTER: NodeId = NodeId::from_bytes([2; 16]);
/// In which life they are.
const EPOCH: Epoch = Epoch(1);
/// What is kept here.
static EVERYTHING: LazyLock<Selection> = LazyLock::new(Selection::default);

/// A bundle that is refused changes nothing; one that is taken leaves stores that are whole, and brings no record twice.
pub fn bundle(data: &[u8]) {
    import(data);
    import(&sealed(data));
}

/// A receipt that is taken says the same when it is written again.
pub fn receipt(data: &[u8]) {
    read(data);
    read(&sealed(data));
}

fn accepts(_: &Issuer, bucket: BucketId) -> bool {
    !matches!(bucket, BucketId::Site(_))
}

fn receiver(local: NodeId) -> Receiver<'static> {
    let clock = ReceiverClock { unix_ms: NOW_UNIX_MS, quality: ClockQuality::Trusted, drift_bound_ms: DRIFT_BOUND_MS };
    let local = Peer { node: local, epoch: EPOCH };
    Receiver {
        local,
        clock,
        identity: None,
        unsigned: true,
        accepts: &accepts,
        selection: &EVERYTHING,
        standing: Standing::default(),
    }
}

fn import(file: &[u8]) {
    let records = Arc::new(SimRecords::new(IMPORTER, EPOCH, None));
    records.set_clock(NOW_UNIX_MS, ClockQuality::Trusted);
    let blobs = SimBlobs::new(Arc::clone(&records), None);
    blobs.set_quota(QUOTA_BYTES);
    blobs.permit(EXPORTER, Scope { site: IMPORTER, collections: Collections::All });
    let receiver = receiver(IMPORTER);
    let import = || {
        let mut progress = |_| ControlFlow::Continue(());
        now(bundle::import(&receiver, file, &*records, &blobs, &mut progress))
    };
    let imported = import();
    assert_eq!(records.feed_fault(), None);
    assert_eq!(blobs.unverified(), None);
    let Ok(imported) = imported else {
        assert!(records.all().is_empty() && records.cursors().is_empty(), "what is refused has changed something");
        return;
    };
    assert!(imported.issuer.hello.node != IMPORTER, "it was made here");
    let (before, cursors) = (records.all(), records.cursors());
    // Content that came before the record that names it is taken only now.
    let again = import().expect("what was taken once is taken again");
    assert_eq!((records.all(), records.cursors()), (before, cursors));
    assert_eq!(again.applied.applied, 0);
    assert_eq!(blobs.unverified(), None);

    let held = async |keys: Vec<_>| Ok::<_, Infallible>(keys.into_iter().map(|key| records.get(key)).collect());
    let holds = async |blob| Ok::<_, Infallible>(blobs.whole(blob).is_some());
    now(bundle::survey(&receiver, file, &*records, held, holds)).expect("what was taken can be surveyed");
}

fn read(file: &[u8]) {
    let receiver = receiver(EXPORTER);
    let Ok(receipt) = Receipt::read(&receiver, file) else { return };
    let written = receipt.write(None, Vec::new()).expect("memory takes it");
    let again = Receipt::read(&receiver, written.as_slice()).expect("it was just written");
    assert_eq!(again, receipt);
    assert!(again.is_no_older_than(&receipt));
}

/// The frames of `data`, with seals that fit what stands before them; the last one closes the file.
fn sealed(mut data: &[u8]) -> Vec<u8> {
    let mut file = Vec::new();
    let mut segments = 0u32;
    while let Some((head, rest)) = data.split_first_chunk::<FRAME_HEADER_BYTES>() {
        let [a, b, c, d, frame_type, flags] = *head;
        // Lengths that are made up rarely fit; what is left is the last body.
        let (body, after) = rest.split_at((u32::from_be_bytes([a, b, c, d]) as usize).min(rest.len()));
        data = after;
        if frame_type != SEAL {
            file.extend((body.len() as u32).to_be_bytes());
            file.extend([frame_type, flags]);
            file.extend(body);
        } else if data.len() >= FRAME_HEADER_BYTES {
            seal(&mut file, &mut segments, false);
        }
    }
    seal(&mut file, &mut segments, true);
    file
}

fn seal(file: &mut Vec<u8>, segments: &mut u32, end: bool) {
    let mut body = minicbor::Encoder::new(Vec::new());
    let written = body.map(3).and_then(|body| body.u8(0)?.u32(*segments)?.u8(1)?.bytes(blake3::hash(file).as_bytes()));
    written.and_then(|body| body.u8(3)?.bool(end)).expect("memory takes it");
    let body = body.into_writer();
    file.extend((body.len() as u32).to_be_bytes());
    file.extend([SEAL, 0]);
    file.extend(body);
    *segments += 1;
}

/// The stores in memory never wait.
fn now<T>(future: impl Future<Output = T>) -> T {
    future.now_or_never().expect("the stores in memory never wait")
}
