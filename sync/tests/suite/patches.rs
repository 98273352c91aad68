//! A new version of a blob costs its difference: chunks are asked for as patches of chunks that are held, and answered so.
//!
//! What a patch is, and which chunks are its basis, is tested in `chunk`; here both ends of a session use them.

use std::collections::VecDeque;

use alexandria_sync::chunk::basis::BASIS_CHUNKS_MAX;
use alexandria_sync::chunk::{BlobHash, Chunk, ChunkHash, Chunking, Manifest, patch};
use alexandria_sync::domain::{Blob, Typed};
use alexandria_sync::id::{BucketId, Seq};
use alexandria_sync::record::RecordKey;
use alexandria_sync::session::{Collections, Config, Event, Input, Output, Scope, Session};
use alexandria_sync::sim::{self, Seeded};
use alexandria_sync::wire::{Class, CloseReason, Hello, Lane, Message, Offered, feature};
use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;

use crate::fleet::{Site, node_id};
use crate::liars::{BUCKET, Victim, blob_record, hello, page};

/// Chunks are as long, on average, where nothing repeats.
const CHUNK_BYTES: usize = 600;

/// Cuts where the content says so, into chunks that suit contents of a few kilobytes.
fn cut(bytes: &[u8]) -> Manifest {
    let mut chunks = Vec::new();
    let mut rest = bytes;
    while !rest.is_empty() {
        let is_cut = |window: &[u8]| usize::from(blake3::hash(window).as_bytes()[0]).is_multiple_of(CHUNK_BYTES / 4);
        let at = rest.windows(8).skip(50).position(is_cut).map_or(rest.len(), |at| at + 58);
        let (chunk, after) = rest.split_at(at.min(4 * CHUNK_BYTES).min(rest.len()));
        chunks.push(Chunk { len: chunk.len() as u32, hash: ChunkHash::of(chunk) });
        rest = after;
    }
    Manifest::new(BlobHash::of(bytes), Chunking::ContentDefined, chunks).expect("it is small")
}

/// Takes a content in, with the record that makes others want it, in a bucket.
fn import(site: &Site, bucket: BucketId, bytes: &[u8]) -> BlobHash {
    let manifest = cut(bytes);
    let hash = manifest.blob();
    let blob = Blob { hash: Some(hash), size_bytes: bytes.len() as u64, media_type: "text/plain".into() };
    site.blobs.import(manifest, Bytes::copy_from_slice(bytes));
    let key = RecordKey { bucket, kind: Blob::KIND, id: Blob::record_id(hash) };
    site.records.write(key, |_, stamp| Some(blob.to_record(bucket, key.id, stamp)));
    hash
}

/// What is done to bytes: at a place, so many are taken out and these put in.
type Edit = (prop::sample::Index, usize, Vec<u8>);

fn edits() -> impl Strategy<Value = Vec<Edit>> {
    vec((any::<prop::sample::Index>(), 0usize..900, vec(any::<u8>(), 0..900)), 1..6)
}

fn edited(mut bytes: Vec<u8>, edits: &[Edit]) -> Vec<u8> {
    for (at, out, into) in edits {
        let at = at.index(bytes.len() + 1);
        let end = (at + out).min(bytes.len());
        bytes.splice(at..end, into.iter().copied());
    }
    bytes
}

/// The bridge, then a node, in a session that goes on until both want nothing more.
struct Pair {
    ends: [(Site, Session); 2],
    on_the_way: VecDeque<(usize, Lane, Message)>,
    /// What the bridge has sent of content, and the node asked for.
    content: Vec<Message>,
    asks: Vec<Message>,
    quiet: [bool; 2],
    now_ms: u64,
}

impl Pair {
    fn new(bridge: Site, node: Site, features: [u64; 2]) -> Self {
        let scope = Scope { site: node.id, collections: Collections::All };
        bridge.blobs.permit(node.id, scope.clone());
        node.blobs.permit(bridge.id, scope.clone());
        let session = |site: &Site, peer, features| {
            Session::new(Config::default(), Hello { features, ..site.hello() }, peer, scope.clone(), 0)
        };
        let (here, there) = (session(&bridge, node.id, features[0]), session(&node, bridge.id, features[1]));
        let ends = [(bridge, here), (node, there)];
        let (content, asks) = (Vec::new(), Vec::new());
        Self { ends, on_the_way: VecDeque::new(), content, asks, quiet: [false; 2], now_ms: 0 }
    }

    fn come_to_rest(&mut self) {
        for _ in 0..10 {
            for end in 0..2 {
                self.drain(end);
            }
            while let Some((to, lane, message)) = self.on_the_way.pop_front() {
                self.ends[to].1.handle(Input::Message(lane, message), self.now_ms);
                self.drain(to);
            }
            let timers = self.ends.iter().filter_map(|(_, session)| session.next_timeout());
            let Some(at_ms) = timers.min() else { break };
            self.now_ms = self.now_ms.max(at_ms);
            for (_, session) in &mut self.ends {
                session.handle(Input::Timer, self.now_ms);
            }
        }
        assert_eq!(self.quiet, [true; 2]);
    }

    fn drain(&mut self, from: usize) {
        let peer = self.ends[1 - from].0.id;
        let (site, session) = &mut self.ends[from];
        while let Some(output) = session.poll() {
            match output {
                Output::Send(lane, message) => {
                    match (from, &message) {
                        (0, Message::Chunk { .. } | Message::Patch { .. }) => self.content.push(message.clone()),
                        (1, Message::ChunkAsk { .. } | Message::PatchAsk { .. }) => self.asks.push(message.clone()),
                        _ => {}
                    }
                    self.on_the_way.push_back((1 - from, lane, message));
                    session.handle(Input::LaneDrained(lane), self.now_ms);
                }
                Output::Disk(request) => {
                    if let Some(done) = sim::carry_out(request, peer, &site.records, &site.blobs) {
                        session.handle(Input::Disk(done), self.now_ms);
                    }
                }
                Output::Event(event) => self.quiet[from] = matches!(event, Event::Quiet),
                Output::Closed(closed) => panic!("the session ended: {closed:?}"),
            }
        }
    }
}

/// Lets a node that holds `old` fetch `new`. Tells what it cost, and what was asked and answered.
fn fetched(old: &[u8], new: &[u8], features: [u64; 2]) -> (usize, Vec<Message>, Vec<Message>) {
    let (bridge, node) = (Site::new(2), Site::new(1));
    import(&bridge, BUCKET, old);
    import(&node, BUCKET, old);
    let blob = import(&bridge, BUCKET, new);
    let mut pair = Pair::new(bridge, node, features);
    pair.come_to_rest();
    let (node, _) = &pair.ends[1];
    assert_eq!(node.blobs.whole(blob).as_deref(), Some(new));
    assert_eq!(node.blobs.unverified(), None);
    let cost = |message: &Message| match message {
        Message::Chunk { bytes, .. } | Message::Patch { patch: bytes, .. } => bytes.len(),
        _ => 0,
    };
    (pair.content.iter().map(cost).sum(), pair.content, pair.asks)
}

const BOTH: [u64; 2] = [feature::PATCHES; 2];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]
    /// Whatever was edited, the new version arrives, and never costs more than its new chunks.
    #[test]
    fn any_edit_arrives_and_costs_no_more_than_its_chunks(len in 0usize..20_000, seed: u64, edits in edits()) {
        let old = Seeded::new(seed).noise(len);
        let new = edited(old.clone(), &edits);
        prop_assume!(new != old);
        let (patched, _, asks) = fetched(&old, &new, BOTH);
        let (whole, ..) = fetched(&old, &new, [0; 2]);
        prop_assert!(patched <= whole, "{patched} of {whole}");
        for ask in asks {
            if let Message::PatchAsk { basis, .. } = ask {
                prop_assert!((1..=BASIS_CHUNKS_MAX).contains(&basis.len()));
            }
        }
    }

    /// Whatever basis an asker names, known or made up, one that it holds or not, each ask is answered once, and what comes makes
    /// the chunk.
    #[test]
    fn whatever_basis_is_named_the_answer_makes_the_chunk(
        seed: u64,
        edits in edits(),
        named in vec((0usize..40, any::<bool>()), 1..=BASIS_CHUNKS_MAX),
    ) {
        let old = Seeded::new(seed).noise(12_000);
        let new = edited(old.clone(), &edits);
        prop_assume!(new != old && !new.is_empty());
        let mut victim = Victim::new();
        import(&victim.site, BUCKET, &old);
        let blob = import(&victim.site, BUCKET, &new);
        let (old_manifest, new_manifest) = (cut(&old), cut(&new));
        let known: Vec<ChunkHash> = old_manifest.chunks().iter().chain(new_manifest.chunks()).map(|chunk| chunk.hash).collect();
        let basis: Vec<ChunkHash> = named
            .iter()
            .map(|&(at, is_known)| if is_known { known[at % known.len()] } else { ChunkHash::of(&[at as u8]) })
            .collect();
        victim.hear(Message::Hello(Hello { features: feature::PATCHES, ..hello() }));
        victim.hear(Message::ManifestAsk { blob });
        for index in 0..new_manifest.chunks().len() as u32 {
            victim.sent.clear();
            victim.hear(Message::PatchAsk { blob, index, class: Class::Reader, basis: basis.clone() });
            let chunk = new_manifest.chunk(index).expect("it is there");
            let bytes = match &victim.sent[..] {
                [Message::Chunk { bytes, .. }] => bytes.to_vec(),
                [Message::Patch { patch, .. }] => {
                    prop_assert!(patch.len() < chunk.len as usize);
                    let found = basis.iter().map(|hash| piece(&[(&old_manifest, &old), (&new_manifest, &new)], *hash));
                    let joined = found.collect::<Option<Vec<&[u8]>>>().expect("one that is made up has no patch").concat();
                    patch::apply(&joined, patch, chunk).expect("it is the chunk")
                }
                other => panic!("{other:?}"),
            };
            prop_assert!(new_manifest.verifies(index, &bytes));
        }
        victim.is_well();
    }
}

/// The bytes of a chunk of one of these.
fn piece<'b>(blobs: &[(&Manifest, &'b Vec<u8>)], hash: ChunkHash) -> Option<&'b [u8]> {
    blobs.iter().find_map(|(manifest, bytes)| {
        let index = manifest.chunks().iter().position(|chunk| chunk.hash == hash)? as u32;
        let start = manifest.offset(index)? as usize;
        Some(&bytes[start..start + manifest.chunk(index)?.len as usize])
    })
}

fn one_byte_inserted() -> (Vec<u8>, Vec<u8>) {
    let old = Seeded::new(7).noise(40_000);
    let mut new = old.clone();
    new.insert(20_000, b'!');
    (old, new)
}

#[test]
fn a_byte_inserted_costs_a_small_part_of_its_chunk() {
    let (old, new) = one_byte_inserted();
    let (patched, content, asks) = fetched(&old, &new, BOTH);
    let (whole, ..) = fetched(&old, &new, [0; 2]);
    assert!(patched < 100 && whole > 3 * patched, "{patched} of {whole}");
    assert!(content.iter().all(|message| matches!(message, Message::Patch { .. })), "{content:?}");
    assert!(asks.iter().all(|message| matches!(message, Message::PatchAsk { .. })), "{asks:?}");
}

/// Neither who does not answer with patches is asked for any, nor is one sent to who did not ask.
#[test]
fn who_does_not_know_patches_sees_none() {
    let (old, new) = one_byte_inserted();
    for features in [[0, feature::PATCHES], [0, 0]] {
        let (_, content, asks) = fetched(&old, &new, features);
        assert!(!content.is_empty() && content.iter().all(|message| matches!(message, Message::Chunk { .. })));
        assert!(asks.iter().all(|message| matches!(message, Message::ChunkAsk { .. })), "{asks:?}");
    }
}

/// A bridge that holds `old` and has asked node 1 for the one chunk of `new` that it lacks, as a patch of these.
struct Asking {
    victim: Victim,
    blob: BlobHash,
    index: u32,
    old: Vec<u8>,
    new: Vec<u8>,
    basis: Vec<ChunkHash>,
}

impl Asking {
    fn begin() -> Self {
        let (old, new) = one_byte_inserted();
        let manifest = cut(&new);
        let blob = manifest.blob();
        let mut victim = Victim::new();
        import(&victim.site, BUCKET, &old);
        victim.hear(Message::Hello(Hello { features: feature::PATCHES, ..hello() }));
        victim.hear(Message::Offer(vec![Offered { bucket: BUCKET, head: Seq(5) }]));
        victim.hear(page(1, vec![blob_record(blob).encode()]));
        victim.hear(Message::Manifest { blob, manifest: Some(manifest.to_bytes()) });
        let asks: Vec<&Message> = victim.sent.iter().filter(|message| is_chunk_ask(message)).collect();
        let [Message::PatchAsk { index, basis, .. }] = asks[..] else { panic!("{asks:?}") };
        let (index, basis) = (*index, basis.clone());
        victim.sent.clear();
        Self { victim, blob, index, old, new, basis }
    }

    /// The bytes of the chunk that is asked for.
    fn chunk(&self) -> &[u8] {
        let manifest = cut(&self.new);
        let hash = manifest.chunk(self.index).expect("it is there").hash;
        piece(&[(&manifest, &self.new)], hash).expect("it is there")
    }

    fn joined_basis(&self) -> Vec<u8> {
        let manifest = cut(&self.old);
        self.basis
            .iter()
            .flat_map(|hash| piece(&[(&manifest, &self.old)], *hash).expect("it is held"))
            .copied()
            .collect()
    }

    fn patch_of(&self, bytes: &[u8]) -> Bytes {
        patch::make(&self.joined_basis(), bytes).expect("it is smaller").into()
    }

    fn answer(&mut self, patch: Bytes) {
        self.victim.hear(Message::Patch { blob: self.blob, index: self.index, patch });
    }
}

fn is_chunk_ask(message: &Message) -> bool {
    matches!(message, Message::ChunkAsk { .. } | Message::PatchAsk { .. })
}

/// What a liar sends in place of the patch that it was asked for.
type Lie = fn(&Asking) -> Bytes;

#[test]
fn a_patch_that_makes_something_else_costs_the_liar_its_session_and_is_not_written() {
    let other = |asking: &Asking| {
        let mut bytes = asking.chunk().to_vec();
        bytes[0] ^= 1;
        asking.patch_of(&bytes)
    };
    let bomb = |_: &Asking| zstd::bulk::compress(&vec![0; 64 * 1024 * 1024], 19).expect("memory takes it").into();
    let shorter = |asking: &Asking| asking.patch_of(&asking.chunk()[1..]);
    let trash = |_: &Asking| Bytes::from_static(b"trash");
    let empty = |_: &Asking| Bytes::new();
    let lies: [(Lie, &str); 5] = [
        (other, "does not match its hash"),
        (bomb, "a patch of"),
        (shorter, "does not match its hash"),
        (trash, "does not match its hash"),
        (empty, "does not match its hash"),
    ];
    for (lie, found_out) in lies {
        let mut asking = Asking::begin();
        let patch = lie(&asking);
        asking.answer(patch);
        asking.victim.has_closed(CloseReason::Violation, found_out);
        assert!(!asking.victim.site.blobs.has_durable(asking.blob, asking.index));
        assert_eq!(asking.victim.site.blobs.unverified(), None);
    }
}

/// Within the chunk's length, so that only what comes out tells.
#[test]
fn a_bomb_in_a_patch_takes_no_more_than_its_chunk() {
    let mut asking = Asking::begin();
    let bomb = zstd::bulk::compress(&vec![0; 2 * 1024 * 1024], 19).expect("memory takes it");
    assert!(bomb.len() < asking.chunk().len());
    asking.answer(bomb.into());
    asking.victim.has_closed(CloseReason::Violation, "does not match its hash");
}

#[test]
fn a_patch_that_nobody_asked_for_is_a_violation() {
    let mut asking = Asking::begin();
    let patch = asking.patch_of(asking.chunk());
    asking.index += 1;
    asking.answer(patch);
    asking.victim.has_closed(CloseReason::Violation, "which was not asked for");
}

/// The asker may have lost what it named: then it asks once more, and takes no patch again.
#[test]
fn a_chunk_whose_basis_is_gone_is_asked_for_whole() {
    let mut asking = Asking::begin();
    let patch = asking.patch_of(asking.chunk());
    // All of the old version, the chunks that were copied from it aside.
    while asking.victim.site.blobs.rot(&mut Seeded::new(1)).is_some() {
        asking.victim.site.blobs.scrub();
    }
    asking.answer(patch.clone());
    let asks: Vec<&Message> = asking.victim.sent.iter().filter(|message| is_chunk_ask(message)).collect();
    let (blob, index) = (asking.blob, asking.index);
    assert!(
        matches!(asks[..], [Message::ChunkAsk { blob: asked, index: at, .. }] if (*asked, *at) == (blob, index)),
        "{asks:?}"
    );
    let mut again = Asking { victim: std::mem::replace(&mut asking.victim, Victim::new()), ..asking };
    let bytes = Bytes::copy_from_slice(again.chunk());
    again.victim.hear(Message::Chunk { blob, index, bytes });
    again.victim.is_well();
    assert_eq!(again.victim.site.blobs.whole(blob).as_deref(), Some(&again.new[..]));

    let mut liar = Asking::begin();
    while liar.victim.site.blobs.rot(&mut Seeded::new(1)).is_some() {
        liar.victim.site.blobs.scrub();
    }
    liar.answer(patch.clone());
    liar.answer(patch);
    liar.victim.has_closed(CloseReason::Violation, "which was asked for whole");
}

/// A patch tells where a chunk and its basis are the same: nothing is told from what the asker may not have.
#[test]
fn no_patch_is_told_from_chunks_that_the_asker_may_not_have() {
    let (old, new) = one_byte_inserted();
    let (old_manifest, new_manifest) = (cut(&old), cut(&new));
    let basis = |new: &Manifest| {
        let changed =
            new.chunks().iter().position(|chunk| !old_manifest.chunks().contains(chunk)).expect("one changed");
        (changed as u32, vec![old_manifest.chunks()[changed].hash])
    };
    for (bucket, is_told) in [(BUCKET, true), (BucketId::Site(node_id(2)), false)] {
        let mut victim = Victim::new();
        import(&victim.site, bucket, &old);
        let blob = import(&victim.site, BUCKET, &new);
        victim.hear(Message::Hello(Hello { features: feature::PATCHES, ..hello() }));
        victim.hear(Message::ManifestAsk { blob });
        victim.sent.clear();
        let (index, basis) = basis(&new_manifest);
        victim.hear(Message::PatchAsk { blob, index, class: Class::Reader, basis });
        let [answer] = &victim.sent[..] else { panic!("{:?}", victim.sent) };
        assert_eq!(matches!(answer, Message::Patch { .. }), is_told, "{answer:?}");
    }
}

/// What is named to a peer, it may have.
#[test]
fn no_basis_is_named_to_who_may_not_have_it() {
    let (old, new) = one_byte_inserted();
    let manifest = cut(&new);
    for (bucket, is_named) in [(BUCKET, true), (BucketId::Site(node_id(2)), false)] {
        let mut victim = Victim::new();
        import(&victim.site, bucket, &old);
        victim.hear(Message::Hello(Hello { features: feature::PATCHES, ..hello() }));
        victim.hear(Message::Offer(vec![Offered { bucket: BUCKET, head: Seq(5) }]));
        victim.hear(page(1, vec![blob_record(manifest.blob()).encode()]));
        victim.hear(Message::Manifest { blob: manifest.blob(), manifest: Some(manifest.to_bytes()) });
        let mut asks = victim.sent.iter().filter(|message| is_chunk_ask(message)).peekable();
        assert!(asks.peek().is_some(), "{:?}", victim.sent);
        assert!(asks.all(|ask| matches!(ask, Message::PatchAsk { .. }) == is_named));
    }
}

/// Worlds in which both ends know of patches, and versions differ in one chunk.
#[test]
fn simulated_worlds_use_patches() {
    let patches: u64 = (0..30).map(|seed| sim::run(seed, None).figures.patches).sum();
    assert!(patches > 0);
}
