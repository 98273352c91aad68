//! A blob crosses a slow, lossy line while one end is killed at random moments. What the line carried in all tells how
//! much was sent again.

use std::time::Duration;

use alexandria_e2e::{
    catalogue::create_film,
    datagrams::UdpLossyProxy,
    deadline::wait_until,
    files::noise,
    fleet::Fleet,
    line::{Profile, Traffic},
    node::{NodeProcess, NodeSettings},
    seed::{generator, seed},
};
use rand::{Rng, rngs::StdRng};

const BLOB_BYTES: usize = 24_000_000;
const RATE_BITS_PER_S: u64 = 16_000_000;
/// What a cut may cost: 4 MB, or two seconds of the line if that is more.
const RESENT_BYTES_MAX: u64 = if RATE_BITS_PER_S / 8 * 2 > 4_000_000 { RATE_BITS_PER_S / 8 * 2 } else { 4_000_000 };
/// Headers of packets and frames, acknowledgements, records, handshakes, and what was sent again because the line lost
/// it: so many hundredths of the content.
const OVERHEAD_PERCENT: u64 = 8;
const CUTS: u64 = 2;
/// How much the line carries before the next cut: more than a cut may cost, so that starting over shows.
const BETWEEN_CUTS: std::ops::Range<u64> = 7_000_000..10_000_000;
const DEADLINE: Duration = Duration::from_mins(3);

#[tokio::test]
async fn an_upload_goes_on_where_it_was_when_the_node_is_killed() {
    let mut crossing = Crossing::start().await;
    let (content, mut node) = crossing.upload().await;
    for _ in 0..CUTS {
        crossing.wait_for_a_moment(UdpLossyProxy::to_server).await;
        node.kill_9();
        assert!(!crossing.fleet.has_stored(&content).await, "the cut came in the middle");
        node.start_again().await;
    }
    crossing.arrives_in_the_cloud(&content).await;
    carried_little_more_than_the_blob(crossing.line.to_server());
}

#[tokio::test]
async fn an_upload_goes_on_where_it_was_when_the_bridge_is_killed() {
    let mut crossing = Crossing::start().await;
    let (content, _node) = crossing.upload().await;
    for _ in 0..CUTS {
        crossing.wait_for_a_moment(UdpLossyProxy::to_server).await;
        crossing.fleet.bridge.kill_9();
        assert!(!crossing.fleet.has_stored(&content).await, "the cut came in the middle");
        crossing.fleet.bridge.start_again().await;
    }
    crossing.arrives_in_the_cloud(&content).await;
    carried_little_more_than_the_blob(crossing.line.to_server());
    let bucket = &crossing.fleet.bridge.settings().neighbours.bucket;
    let left_over = crossing.fleet.aws.s3().unfinished_uploads(bucket).await;
    assert!(left_over.is_empty(), "an upload was left open: {left_over:?}");
}

#[tokio::test]
async fn a_download_goes_on_where_it_was_when_the_node_is_killed() {
    let mut crossing = Crossing::start().await;
    let content = create_film(&crossing.fleet.bridge, &crossing.bytes).await;
    let mut node = crossing.node().await;
    for _ in 0..CUTS {
        crossing.wait_for_a_moment(UdpLossyProxy::to_client).await;
        let wanted = node.status().await["content"]["wanted"].clone();
        assert_eq!(wanted, 1, "the cut comes in the middle");
        node.kill_9();
        node.start_again().await;
    }
    wait_until("the content to be whole on the node", DEADLINE, async || {
        node.get(&format!("/v1/blobs/{content}")).send().await.is_ok_and(|answer| answer.body == crossing.bytes)
    })
    .await;
    carried_little_more_than_the_blob(crossing.line.to_client());
}

/// A bridge at the far end of a bad line.
struct Crossing {
    fleet: Fleet,
    line: UdpLossyProxy,
    bytes: Vec<u8>,
    chance: StdRng,
}

impl Crossing {
    async fn start() -> Self {
        let seed = seed();
        let fleet = Fleet::start().await;
        let profile = Profile {
            delay: Duration::from_millis(25),
            loss: 0.003,
            rate_bits_per_s: Some(RATE_BITS_PER_S),
            queue: Duration::from_millis(400),
        };
        let line = UdpLossyProxy::start(fleet.bridge.settings().quic, profile, seed).await;
        Self { fleet, line, bytes: noise(BLOB_BYTES, seed), chance: generator(seed) }
    }

    /// A node that replicates across the line.
    async fn node(&self) -> NodeProcess {
        let settings = NodeSettings::default().bare().environment("ALEXANDRIA_REPLICATION__RETRY_MAX_S", "2");
        let bridge = self.line.address().to_string();
        let node = settings.environment("ALEXANDRIA_REPLICATION__BRIDGE", bridge).start().await;
        self.fleet.enrol(&node).await;
        node
    }

    /// A node with a medium that starts to cross. Returns the content's name too.
    async fn upload(&self) -> (String, NodeProcess) {
        let node = self.node().await;
        let content = create_film(&node, &self.bytes).await;
        (content, node)
    }

    /// Waits until the line has carried a random number of bytes more.
    async fn wait_for_a_moment(&mut self, direction: impl Fn(&UdpLossyProxy) -> Traffic) {
        let until = direction(&self.line).bytes + self.chance.random_range(BETWEEN_CUTS);
        let what = format!("{until} bytes to cross");
        wait_until(&what, DEADLINE, async || direction(&self.line).bytes >= until).await;
    }

    async fn arrives_in_the_cloud(&self, content: &str) {
        wait_until("the content to be whole in the cloud", DEADLINE, async || self.fleet.has_stored(content).await)
            .await;
        assert_eq!(self.fleet.object(content).await.expect("an object"), self.bytes, "byte for byte");
    }
}

fn carried_little_more_than_the_blob(carried: Traffic) {
    let once = BLOB_BYTES as u64 * (100 + OVERHEAD_PERCENT) / 100;
    let most = once + CUTS * RESENT_BYTES_MAX;
    println!("carried {} bytes of at most {most}, lost {}", carried.bytes, carried.lost_bytes);
    assert!(carried.bytes <= most, "{CUTS} cuts cost {} bytes", carried.bytes.saturating_sub(once));
}
