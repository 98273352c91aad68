//! Answers what the peer asks of content: manifests first, then chunks, whose classes take turns (`schedule`).
//!
//! A chunk that the peer has an older form of goes as a patch, if that is less. A chunk is read only when a lane is free for it, so at most [`CONTENT_LANES`] of them are in memory; and only when the
//! link's budget lets it go (`credit`).

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;

use super::credit::Credit;
use super::schedule::{self, Turns};
use super::{DiskRequest, Held, Outbox, Violation};
use crate::budget::wire_cost;
use crate::chunk::{BlobHash, ChunkHash, Manifest};
use crate::wire::message::CONTENT_LANES;
use crate::wire::{Class, Lane, Message};

/// Asks that may wait, at most.
pub const ASKS_MAX: usize = 4096;
/// Manifests kept at hand for the chunks that will be asked for next, at most; [`Config::manifest_bytes_max`](super::Config) limits them, too.
const MANIFESTS_KEPT: usize = 64;
/// Blobs whose manifests were handed out and are at hand no more, at most: past it the peer has to ask for the first of them again.
const PUT_AWAY_MAX: usize = 4096;
/// Blobs asked for in vain that are remembered, to tell the peer once they are here.
const MISSED_MAX: usize = 4096;

#[derive(Debug)]
pub(super) struct Provider {
    lanes_free: BTreeSet<u8>,
    /// What the frame on each busy lane was admitted at.
    lane_costs: [u64; CONTENT_LANES as usize],
    manifest_asks: VecDeque<BlobHash>,
    manifests_being_read: usize,
    manifest_answers: VecDeque<Message>,
    /// In the order of [`Class::CONTENT`].
    chunk_asks: [VecDeque<ChunkAsk>; Class::CONTENT.len()],
    turns: Turns,
    manifests: VecDeque<Arc<Manifest>>,
    /// Of chunks of these the peer may ask all the same.
    put_away: BTreeSet<BlobHash>,
    /// The manifest that is read again, for a chunk that was asked for; no chunk is read meanwhile.
    reading_again: Option<BlobHash>,
    manifest_bytes_max: usize,
    missed: BTreeSet<BlobHash>,
    bytes_sent: u64,
    /// The last frame was a manifest: a chunk that a reader waits for goes before the next one.
    manifest_sent: bool,
}

#[derive(Clone, Debug)]
struct ChunkAsk {
    blob: BlobHash,
    index: u32,
    /// Chunks that the peer holds and that this one may be told from.
    basis: Vec<ChunkHash>,
}

impl ChunkAsk {
    fn held_bytes(&self) -> usize {
        size_of::<Self>() + size_of_val(&self.basis[..])
    }
}

impl Provider {
    /// One that keeps no more than so many bytes of manifests at hand, but for the last one.
    pub(super) fn new(manifest_bytes_max: usize) -> Self {
        Self {
            lanes_free: (0..CONTENT_LANES).collect(),
            lane_costs: [0; CONTENT_LANES as usize],
            manifest_asks: VecDeque::new(),
            manifests_being_read: 0,
            manifest_answers: VecDeque::new(),
            chunk_asks: Default::default(),
            turns: Turns::default(),
            manifests: VecDeque::new(),
            put_away: BTreeSet::new(),
            reading_again: None,
            manifest_bytes_max,
            missed: BTreeSet::new(),
            bytes_sent: 0,
            manifest_sent: false,
        }
    }

    pub(super) fn take_manifest_ask(&mut self, blob: BlobHash) -> Result<(), Violation> {
        self.check_room()?;
        self.manifest_asks.push_back(blob);
        Ok(())
    }

    pub(super) fn take_chunk_ask(
        &mut self,
        blob: BlobHash,
        index: u32,
        class: Class,
        basis: Vec<ChunkHash>,
    ) -> Result<(), Violation> {
        self.check_room()?;
        // What is not of content was taken for the last class when it was read.
        let place = schedule::place(class).unwrap_or(Class::CONTENT.len() - 1);
        self.chunk_asks[place].push_back(ChunkAsk { blob, index, basis });
        Ok(())
    }

    fn check_room(&self) -> Result<(), Violation> {
        let waiting = self.manifest_asks.len()
            + self.manifests_being_read
            + self.manifest_answers.len()
            + self.chunk_asks.iter().map(VecDeque::len).sum::<usize>();
        if waiting >= ASKS_MAX {
            return Err(Violation::new(format!("more than {ASKS_MAX} asks at once")));
        }
        Ok(())
    }

    pub(super) fn take_manifest(&mut self, blob: BlobHash, manifest: Option<Arc<Manifest>>) {
        self.manifests_being_read -= 1;
        if let Some(manifest) = &manifest {
            self.missed.remove(&blob);
            self.keep(Arc::clone(manifest));
        }
        if self.reading_again == Some(blob) {
            self.reading_again = None;
            // Gone meanwhile: the peer is told so with the chunk.
            self.put_away.remove(&blob);
            return;
        }
        if manifest.is_none() && self.missed.len() < MISSED_MAX {
            self.missed.insert(blob);
        }
        let manifest = manifest.map(|manifest| manifest.to_bytes());
        self.manifest_answers.push_back(Message::Manifest { blob, manifest });
    }

    fn keep(&mut self, manifest: Arc<Manifest>) {
        let blob = manifest.blob();
        // Whose disk is full asks for the same one again and again.
        self.manifests.retain(|kept| kept.blob() != blob);
        self.put_away.remove(&blob);
        self.manifests.push_back(manifest);
        while self.manifests.len() > MANIFESTS_KEPT
            || self.manifests.len() > 1 && self.manifest_bytes() > self.manifest_bytes_max
        {
            let Some(first) = self.manifests.pop_front() else { return };
            if self.put_away.len() < PUT_AWAY_MAX {
                self.put_away.insert(first.blob());
            }
        }
    }

    fn manifest_bytes(&self) -> usize {
        self.manifests.iter().map(|manifest| size_of_val(manifest.chunks())).sum()
    }

    pub(super) fn take_read(&mut self, blob: BlobHash, index: u32, lane: u8, bytes: Option<Bytes>, out: &mut Outbox) {
        let bytes = bytes.unwrap_or_default();
        self.bytes_sent += bytes.len() as u64;
        out.send(Lane::Content(lane), Message::Chunk { blob, index, bytes });
    }

    pub(super) fn take_patch(&mut self, blob: BlobHash, index: u32, lane: u8, patch: Bytes, out: &mut Outbox) {
        self.bytes_sent += patch.len() as u64;
        out.send(Lane::Content(lane), Message::Patch { blob, index, patch });
    }

    pub(super) fn lane_drained(&mut self, lane: u8, credit: &mut Credit) {
        self.lanes_free.insert(lane);
        if let Some(cost) = self.lane_costs.get_mut(usize::from(lane)) {
            credit.cross(std::mem::take(cost));
        }
    }

    pub(super) fn pump(&mut self, now_ms: u64, credit: &mut Credit, out: &mut Outbox) {
        // Bounded by the lanes: what was read must be able to leave.
        while self.manifests_being_read + self.manifest_answers.len() < usize::from(CONTENT_LANES)
            && let Some(blob) = self.manifest_asks.pop_front()
        {
            self.manifests_being_read += 1;
            out.disk(DiskRequest::Manifest(blob));
        }
        while let Some(&lane) = self.lanes_free.first() {
            let reader_waits = !self.chunk_asks[0].is_empty();
            let sent = match self.manifest_answers.front() {
                Some(answer) if !(self.manifest_sent && reader_waits) => {
                    let cost = manifest_cost(answer);
                    // Refused, it stays its turn: with another's each time, what is missing would change without end.
                    if !credit.admit(cost) {
                        return;
                    }
                    self.manifest_sent = true;
                    self.manifest_answers.pop_front().map(|answer| {
                        out.send(Lane::Content(lane), answer);
                        cost
                    })
                }
                _ => {
                    let sent = self.send_chunk(lane, now_ms, credit, out);
                    self.manifest_sent &= sent.is_none();
                    sent
                }
            };
            let Some(cost) = sent else { return };
            self.lanes_free.remove(&lane);
            self.lane_costs[usize::from(lane)] = cost;
        }
    }

    /// Sends the next chunk, or has it read, and tells at what cost; `None` if there is none, or none may go.
    fn send_chunk(&mut self, lane: u8, now_ms: u64, credit: &mut Credit, out: &mut Outbox) -> Option<u64> {
        if self.reading_again.is_some() {
            return None;
        }
        let mut next = self.chunk_asks.iter().filter_map(VecDeque::front).map(|ask| ask.blob);
        if let Some(blob) = next.find(|blob| self.put_away.contains(blob)) {
            self.reading_again = Some(blob);
            self.manifests_being_read += 1;
            out.disk(DiskRequest::Manifest(blob));
            return None;
        }
        let lengths = std::array::from_fn(|place| self.chunk_asks[place].front().map(|ask| self.chunk_len(ask)));
        let class = self.turns.next(lengths, now_ms)?;
        let place = schedule::place(class)?;
        let len = lengths[place]?;
        if !credit.admit(wire_cost(len)) {
            return None;
        }
        let ask = self.chunk_asks[place].pop_front()?;
        self.turns.spend(class, len, now_ms);
        let ChunkAsk { blob, index, basis } = ask;
        match self.known(blob) {
            Some(manifest) if manifest.chunk(index).is_some() => {
                let manifest = Arc::clone(manifest);
                out.disk(if basis.is_empty() {
                    DiskRequest::Read { manifest, index, lane }
                } else {
                    DiskRequest::ReadPatch { manifest, index, basis, lane }
                });
            }
            // Never handed out, forgotten since, or past the end: the peer starts over from the manifest.
            _ => out.send(Lane::Content(lane), Message::Chunk { blob, index, bytes: Bytes::new() }),
        }
        Some(wire_cost(len))
    }

    fn known(&self, blob: BlobHash) -> Option<&Arc<Manifest>> {
        self.manifests.iter().find(|manifest| manifest.blob() == blob)
    }

    /// Bytes of a chunk that was asked for; none if it is going to be refused.
    fn chunk_len(&self, ask: &ChunkAsk) -> u64 {
        let chunk = self.known(ask.blob).and_then(|manifest| manifest.chunk(ask.index));
        chunk.map_or(0, |chunk| u64::from(chunk.len))
    }

    /// Whether the peer asked for the blob in vain. Answers once.
    pub(super) fn was_missed(&mut self, blob: BlobHash) -> bool {
        self.missed.remove(&blob)
    }

    pub(super) fn is_idle(&self) -> bool {
        self.lanes_free.len() == usize::from(CONTENT_LANES)
            && self.manifest_asks.is_empty()
            && self.manifests_being_read == 0
            && self.manifest_answers.is_empty()
            && self.chunk_asks.iter().all(VecDeque::is_empty)
    }

    pub(super) fn held(&self) -> Held {
        let answers = self.manifest_answers.iter().map(|answer| match answer {
            Message::Manifest { manifest: Some(manifest), .. } => manifest.len(),
            _ => 0,
        });
        let names = self.manifest_asks.len() + self.missed.len() + self.put_away.len();
        let list_bytes = answers.sum::<usize>()
            + self.manifest_bytes()
            + names * size_of::<BlobHash>()
            + self.chunk_asks.iter().flatten().map(ChunkAsk::held_bytes).sum::<usize>();
        Held { list_bytes, ..Held::default() }
    }

    pub(super) fn bytes_sent(&self) -> u64 {
        self.bytes_sent
    }

    /// Bytes of chunks that the peer has asked for and that have not left, as far as their manifests are at hand.
    pub(super) fn bytes_to_send(&self) -> u64 {
        self.chunk_asks.iter().flatten().map(|ask| self.chunk_len(ask)).sum()
    }
}

fn manifest_cost(answer: &Message) -> u64 {
    match answer {
        Message::Manifest { manifest: Some(bytes), .. } => wire_cost(bytes.len() as u64),
        _ => wire_cost(0),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Output;
    use super::*;
    use crate::budget::Word;
    use crate::chunk::{Chunk, Chunking};

    /// The host gives a new word whenever what is missing changes, and the word was answered with another lack each time: the
    /// manifest's and the chunk's in turn, without end.
    #[test]
    fn regression_the_same_word_again_finds_the_same_lack() {
        let chunk = Chunk { len: 4_000, hash: ChunkHash::of(b"chunk") };
        let manifest = Arc::new(Manifest::new(BlobHash::of(b"blob"), Chunking::Fixed, vec![chunk; 60]).unwrap());
        let (blob, mut out) = (manifest.blob(), Outbox::default());
        let (mut provider, mut credit) = (Provider::new(usize::MAX), Credit::default());
        provider.take_manifest_ask(blob).unwrap();
        provider.pump(0, &mut credit, &mut out);
        provider.take_manifest(blob, Some(manifest));
        provider.take_chunk_ask(blob, 0, Class::Reader, Vec::new()).unwrap();
        let mut lacks = Vec::new();
        for _ in 0..4 {
            credit.set(Word { content_bytes: 500, records_bytes: 0 });
            credit.try_again();
            provider.pump(0, &mut credit, &mut out);
            lacks.push(credit.newly_short_of());
        }
        assert!(lacks[0].is_some());
        assert_eq!(lacks[1..], [None; 3]);
    }

    /// A peer that asks for chunks of several large archives at a time: what is put away for want of room is read again, and the peer notices nothing.
    #[test]
    fn manifests_take_no_more_memory_than_they_may_and_their_chunks_can_still_be_had() {
        const CHUNKS: usize = 60;
        let chunk = Chunk { len: 4_000, hash: ChunkHash::of(b"chunk") };
        let manifest =
            |name: u8| Arc::new(Manifest::new(BlobHash::of(&[name]), Chunking::Fixed, vec![chunk; CHUNKS]).unwrap());
        let manifests = [1, 2, 3].map(manifest);
        let bytes_max = 2 * CHUNKS * size_of::<Chunk>();
        let (mut provider, mut credit) = (Provider::new(bytes_max), Credit::default());
        for manifest in &manifests {
            provider.take_manifest_ask(manifest.blob()).unwrap();
            provider.pump(0, &mut credit, &mut Outbox::default());
            provider.take_manifest(manifest.blob(), Some(Arc::clone(manifest)));
            provider.pump(0, &mut credit, &mut Outbox::default());
            provider.lane_drained(0, &mut credit);
            assert!(provider.manifest_bytes() <= bytes_max);
        }
        for manifest in manifests.iter().cycle().take(9) {
            provider.take_chunk_ask(manifest.blob(), 7, Class::Reader, Vec::new()).unwrap();
            let mut out = Outbox::default();
            provider.pump(0, &mut credit, &mut out);
            while let Some(output) = out.queue.pop_front() {
                match output {
                    Output::Disk(DiskRequest::Manifest(blob)) => {
                        let again = manifests.iter().find(|of| of.blob() == blob).cloned();
                        provider.take_manifest(blob, again);
                        provider.pump(0, &mut credit, &mut out);
                    }
                    Output::Disk(DiskRequest::Read { manifest: read, index: 7, lane }) => {
                        assert_eq!(read.blob(), manifest.blob());
                        provider.lane_drained(lane, &mut credit);
                    }
                    other => panic!("{other:?}"),
                }
            }
            assert!(provider.is_idle() && provider.manifest_bytes() <= bytes_max);
        }
    }

    #[test]
    fn a_manifest_that_is_asked_for_again_is_kept_once() {
        let chunk = Chunk { len: 4_000, hash: ChunkHash::of(b"chunk") };
        let manifest = Arc::new(Manifest::new(BlobHash::of(b"blob"), Chunking::Fixed, vec![chunk; 60]).unwrap());
        let (mut provider, mut held) = (Provider::new(usize::MAX), Vec::new());
        for _ in 0..3 {
            let (mut credit, mut out) = (Credit::default(), Outbox::default());
            provider.take_manifest_ask(manifest.blob()).unwrap();
            provider.pump(0, &mut credit, &mut out);
            provider.take_manifest(manifest.blob(), Some(Arc::clone(&manifest)));
            provider.manifest_answers.clear();
            held.push(provider.held().list_bytes);
        }
        assert!(held[0] > 0 && held.iter().all(|bytes| *bytes == held[0]), "{held:?}");
    }
}
