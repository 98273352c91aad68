//! A peer of version 1, made from docs/PROTOCOL.md alone: it uses nothing of the crate, and never changes.
//!
//! What it has to say of its own (hello, offers, pages, manifests, chunks) are the recorded bytes of a released version. It
//! refuses whatever a peer of version 1 refuses, and skips what such a peer skips.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::v1_record::{self, Key, Record};
use super::v1_wire::{
    Body, Bucket, CHUNK, CHUNK_ASK, CHUNK_HEAD_BYTES, CLOSE, HAVE, HEAD_BYTES, HELLO, Hash, MANIFEST, MANIFEST_ASK,
    OFFER, PAGE, PULL, Page, QUIET, Refusal, bucket_of, chunk, manifest, map_frame, offer, read_frame, refuse,
};

/// A lane's number, and a frame.
pub(super) type Sent = (u8, Vec<u8>);

/// What a released version said in a session.
#[derive(Default)]
struct Script {
    hello: Vec<u8>,
    first_offers: Vec<Vec<u8>>,
    /// By bucket, in order, each with its `more`.
    pages: BTreeMap<Bucket, VecDeque<(Vec<u8>, bool)>>,
    /// The last rows that the pages lead to.
    last_rows: BTreeMap<Bucket, u64>,
    manifests: BTreeMap<Hash, VecDeque<Vec<u8>>>,
    chunks: BTreeMap<(Hash, u32), Vec<u8>>,
    /// Offers of buckets that came up, and haves.
    later: Vec<Vec<u8>>,
    /// What it asked: its own asks must be written in the same way.
    asks: BTreeSet<Vec<u8>>,
}

/// A blob on its way in.
struct Receiving {
    /// The lengths and hashes of its chunks, once the manifest is here.
    manifest: Option<Vec<(usize, Hash)>>,
    chunking: u8,
    chunks: BTreeMap<u32, Vec<u8>>,
}

/// The peer.
pub(super) struct V1Peer {
    script: Script,
    /// The epoch of its own feeds, as its hello says.
    pub(super) own_epoch: u64,
    peer_epoch: Option<u64>,
    /// Its records, and where they stand.
    pub(super) records: BTreeMap<(Bucket, Key), Record>,
    pub(super) blobs: BTreeMap<Hash, Vec<u8>>,
    receiving: BTreeMap<Hash, Receiving>,
    absent: BTreeSet<Hash>,
    /// Buckets offered to the other end, with their last rows.
    offered: BTreeMap<Bucket, u64>,
    pulled_from_here: BTreeSet<Bucket>,
    /// Where reading the other end's feeds stands, and whether more is to come.
    reading: BTreeMap<Bucket, (u64, bool)>,
    offers_seen: u64,
    dealt_with: u64,
    counted: u64,
    quiet_sent: Option<u64>,
    /// Whether the other end's last QUIET counts all that was sent to it.
    pub(super) other_is_quiet: bool,
    /// Reason and text.
    pub(super) closed: Option<(u64, String)>,
    out: Vec<Sent>,
}

impl V1Peer {
    /// The peer that sent these frames once, each with its lane.
    pub(super) fn of(recording: impl Iterator<Item = Sent>) -> Result<Self, Refusal> {
        let mut script = Script::default();
        let (mut own_epoch, mut records, mut offered) = (0, BTreeMap::new(), BTreeMap::new());
        for (lane, frame) in recording {
            let Some((frame_type, body)) = read_frame(lane, &frame)? else { continue };
            if frame_type == CHUNK {
                let (blob, index, _) = chunk(&body)?;
                script.chunks.insert((blob, index), frame.clone());
                continue;
            }
            let body = &Body::read(&body)?;
            match frame_type {
                HELLO => {
                    own_epoch = body.u64(4)?;
                    script.hello.clone_from(&frame);
                }
                OFFER => {
                    offered.extend(offer(body)?);
                    let first = script.pages.is_empty() && script.asks.is_empty();
                    let offers = if first { &mut script.first_offers } else { &mut script.later };
                    offers.push(frame.clone());
                }
                PAGE => {
                    let page = Page::read(body)?;
                    for bytes in &page.records {
                        let (key, record) = v1_record::decode(bytes)?;
                        records.insert((page.bucket, key), record);
                    }
                    script.last_rows.insert(page.bucket, page.next);
                    script.pages.entry(page.bucket).or_default().push_back((frame.clone(), page.more));
                }
                MANIFEST => script.manifests.entry(body.bytes(0)?).or_default().push_back(frame.clone()),
                HAVE => script.later.push(frame.clone()),
                PULL | MANIFEST_ASK | CHUNK_ASK => drop(script.asks.insert(frame.clone())),
                _ => {}
            }
        }
        let mut peer = Self {
            own_epoch,
            peer_epoch: None,
            records,
            blobs: BTreeMap::new(),
            receiving: BTreeMap::new(),
            absent: BTreeSet::new(),
            offered,
            pulled_from_here: BTreeSet::new(),
            reading: BTreeMap::new(),
            offers_seen: 0,
            dealt_with: 0,
            counted: 0,
            quiet_sent: None,
            other_is_quiet: false,
            closed: None,
            out: Vec::new(),
            script,
        };
        peer.hold_recorded_blobs()?;
        let hello = peer.script.hello.clone();
        peer.send(0, hello);
        Ok(peer)
    }

    /// What the recorded chunks add up to.
    fn hold_recorded_blobs(&mut self) -> Result<(), Refusal> {
        for (&blob, answers) in &self.script.manifests {
            for frame in answers {
                let Some((_, chunks)) = manifest(&Body::read(&frame[HEAD_BYTES..])?)? else { continue };
                let mut bytes = Vec::new();
                for index in 0..chunks.len() as u32 {
                    bytes.extend_from_slice(&self.script.chunks[&(blob, index)][HEAD_BYTES + CHUNK_HEAD_BYTES..]);
                }
                self.blobs.insert(blob, bytes);
            }
        }
        Ok(())
    }

    /// What it has to send now.
    pub(super) fn poll(&mut self) -> Vec<Sent> {
        std::mem::take(&mut self.out)
    }

    /// Says what came up in the second half of the recorded session.
    pub(super) fn go_on(&mut self) {
        for frame in std::mem::take(&mut self.script.later) {
            self.send_counted(0, frame);
        }
        let pulled: Vec<Bucket> = self.pulled_from_here.iter().copied().collect();
        for bucket in pulled {
            self.send_pages(bucket);
        }
        self.settle();
    }

    /// Ends the session.
    pub(super) fn close(&mut self) {
        self.send(0, map_frame(CLOSE, 2, |e| e.u8(0)?.u8(0)?.u8(1)?.str("until tomorrow")?.ok()));
    }

    /// Whether it has sent all that was recorded, and wants nothing more.
    pub(super) fn is_done(&self) -> bool {
        self.offers_seen > 0
            && self.receiving.is_empty()
            && self.reading.values().all(|(_, more)| !more)
            && self.script.later.is_empty()
            && self.script.pages.values().all(VecDeque::is_empty)
    }

    /// Where its feed of a bucket ends.
    pub(super) fn last_row(&self, bucket: Bucket) -> u64 {
        self.script.last_rows[&bucket]
    }

    /// Takes one frame that the other end has sent on a lane.
    pub(super) fn take(&mut self, lane: u8, bytes: &[u8]) -> Result<(), Refusal> {
        let Some((frame_type, body)) = read_frame(lane, bytes)? else { return Ok(()) };
        if (frame_type == HELLO) == self.peer_epoch.is_some() {
            return refuse("HELLO comes first, and once");
        }
        if frame_type == CHUNK {
            self.take_chunk(&body)?;
            self.settle();
            return Ok(());
        }
        let body = &Body::read(&body)?;
        match frame_type {
            HELLO => self.take_hello(body)?,
            OFFER => self.take_offer(body)?,
            PULL => self.take_pull(body)?,
            PAGE => self.take_page(body)?,
            MANIFEST_ASK => self.answer_manifest(body.bytes(0)?),
            CHUNK_ASK => self.answer_chunk(body)?,
            MANIFEST => self.take_manifest(body)?,
            HAVE => {
                let blob = body.bytes(0)?;
                self.dealt_with += 1;
                if self.absent.remove(&blob) {
                    self.ask_manifest(blob);
                }
            }
            QUIET => {
                let count = body.u64(0)?;
                if count > self.counted {
                    return refuse("QUIET counts more than was sent");
                }
                self.other_is_quiet = count == self.counted;
            }
            CLOSE => self.closed = Some((body.u64(0)?, body.get(1)?.str()?.to_owned())),
            _ => return refuse("a type that is refused from its head"),
        }
        self.settle();
        Ok(())
    }

    fn take_hello(&mut self, body: &Body<'_>) -> Result<(), Refusal> {
        body.bytes::<16>(2)?;
        body.get(3)?.u32()?;
        body.get(7)?.str()?;
        body.u64(5)?;
        body.optional(8).map_or(Ok(0), |mut features| features.u64())?;
        if body.get(0)?.u16()? > 1 || body.get(1)?.u16()? < 1 || body.get(6)?.u8()? > 2 {
            return refuse("version 1 is not spoken there, or the clock is of no known quality");
        }
        self.peer_epoch = Some(body.u64(4)?);
        for offer in self.script.first_offers.clone() {
            self.send_counted(0, offer);
        }
        Ok(())
    }

    fn take_offer(&mut self, body: &Body<'_>) -> Result<(), Refusal> {
        self.offers_seen += 1;
        self.dealt_with += 1;
        for (bucket, _) in offer(body)? {
            if self.reading.contains_key(&bucket) {
                continue;
            }
            self.reading.insert(bucket, (0, true));
            let epoch = self.peer_epoch.unwrap_or_default();
            self.ask(map_frame(PULL, 4, |e| {
                e.u8(0)?.bytes(&bucket)?.u8(1)?.u8(0)?.u8(2)?.u64(epoch)?.u8(3)?.u32(4096)?.ok()
            }));
        }
        Ok(())
    }

    fn take_pull(&mut self, body: &Body<'_>) -> Result<(), Refusal> {
        let (bucket, after) = (bucket_of(body)?, body.u64(1)?);
        body.get(3)?.u32()?;
        let Some(&head) = self.offered.get(&bucket) else { return refuse("a pull of what was not offered") };
        if body.u64(2)? != self.own_epoch || after > head || !self.pulled_from_here.insert(bucket) {
            return refuse("a pull in another epoch, past the end, or a second one");
        }
        if after != 0 {
            return refuse("nothing was had before: the recording begins at 0");
        }
        self.send_pages(bucket);
        Ok(())
    }

    /// Sends the recorded pages up to the next that has no more after it.
    fn send_pages(&mut self, bucket: Bucket) {
        while let Some((frame, more)) = self.script.pages.entry(bucket).or_default().pop_front() {
            self.send_counted(1, frame);
            if !more {
                return;
            }
        }
    }

    fn take_page(&mut self, body: &Body<'_>) -> Result<(), Refusal> {
        let page = Page::read(body)?;
        let Some((received, reading)) = self.reading.get_mut(&page.bucket) else {
            return refuse("a page of what was not pulled");
        };
        if page.next < *received || page.next == *received && (page.more || !page.records.is_empty()) {
            return refuse("a page that does not move on");
        }
        (*received, *reading) = (page.next, page.more);
        self.dealt_with += 1;
        for bytes in &page.records {
            let (key, record) = v1_record::decode(bytes)?;
            if let Some(blob) = v1_record::blob_of(key, &record)
                && !self.blobs.contains_key(&blob)
                && !self.absent.contains(&blob)
                && !self.receiving.contains_key(&blob)
            {
                self.ask_manifest(blob);
            }
            let place = (page.bucket, key);
            let merged = match self.records.remove(&place) {
                Some(held) => v1_record::merge(held, record),
                None => record,
            };
            self.records.insert(place, merged);
        }
        Ok(())
    }

    fn ask_manifest(&mut self, blob: Hash) {
        self.receiving.insert(blob, Receiving { manifest: None, chunking: 0, chunks: BTreeMap::new() });
        self.ask(map_frame(MANIFEST_ASK, 1, |e| e.u8(0)?.bytes(&blob)?.ok()));
    }

    fn answer_manifest(&mut self, blob: Hash) {
        let absent = || map_frame(MANIFEST, 1, |e| e.u8(0)?.bytes(&blob)?.ok());
        let answer = self.script.manifests.get_mut(&blob).and_then(VecDeque::pop_front).unwrap_or_else(absent);
        self.send(2, answer);
    }

    fn answer_chunk(&mut self, body: &Body<'_>) -> Result<(), Refusal> {
        let (blob, index) = (body.bytes(0)?, body.get(1)?.u32()?);
        body.optional(2).map_or(Ok(false), |mut urgent| urgent.bool())?;
        let Some(chunk) = self.script.chunks.remove(&(blob, index)) else {
            return refuse("a chunk that is not there, or was sent before");
        };
        self.send(3, chunk);
        Ok(())
    }

    fn take_manifest(&mut self, body: &Body<'_>) -> Result<(), Refusal> {
        let blob = body.bytes(0)?;
        let Some(receiving) = self.receiving.get_mut(&blob).filter(|receiving| receiving.manifest.is_none()) else {
            return refuse("a manifest that was not asked for");
        };
        let Some((chunking, chunks)) = manifest(body)? else {
            self.receiving.remove(&blob);
            self.absent.insert(blob);
            return Ok(());
        };
        let asks = 0..chunks.len() as u32;
        receiving.chunking = chunking;
        receiving.manifest = Some(chunks);
        for index in asks {
            self.ask(map_frame(CHUNK_ASK, 3, |e| e.u8(0)?.bytes(&blob)?.u8(1)?.u32(index)?.u8(2)?.bool(false)?.ok()));
        }
        self.end_blob(blob)
    }

    fn take_chunk(&mut self, body: &[u8]) -> Result<(), Refusal> {
        let (blob, index, bytes) = chunk(body)?;
        let Some(receiving) = self.receiving.get_mut(&blob) else { return refuse("a chunk that was not asked for") };
        let asked = receiving.manifest.as_ref().and_then(|chunks| chunks.get(index as usize));
        let fits = asked.is_some_and(|(len, hash)| *len == bytes.len() && *blake3::hash(bytes).as_bytes() == *hash);
        if !fits || receiving.chunks.insert(index, bytes.to_vec()).is_some() {
            return refuse("a chunk that does not match, or came before");
        }
        self.end_blob(blob)
    }

    /// Publishes a blob once all of it is here.
    fn end_blob(&mut self, blob: Hash) -> Result<(), Refusal> {
        let Some(receiving) = self.receiving.get(&blob) else { return Ok(()) };
        let Some(chunks) = receiving.manifest.as_ref().filter(|chunks| chunks.len() == receiving.chunks.len()) else {
            return Ok(());
        };
        let bytes: Vec<u8> = receiving.chunks.values().flatten().copied().collect();
        if *blake3::hash(&bytes).as_bytes() != blob {
            return refuse("chunks that do not add up to their blob");
        }
        if chunks.iter().map(|(len, _)| *len).ne(cuts(receiving.chunking, &bytes)) {
            return refuse("a blob that is cut in another way than its manifest says");
        }
        self.receiving.remove(&blob);
        self.blobs.insert(blob, bytes);
        Ok(())
    }

    /// Says that it wants nothing more, whenever that has changed.
    fn settle(&mut self) {
        let idle = self.offers_seen > 0 && self.receiving.is_empty() && self.reading.values().all(|(_, more)| !more);
        if idle && self.quiet_sent != Some(self.dealt_with) {
            self.quiet_sent = Some(self.dealt_with);
            let dealt_with = self.dealt_with;
            self.send(0, map_frame(QUIET, 1, |e| e.u8(0)?.u64(dealt_with)?.ok()));
        }
    }

    /// Sends an ask of its own. What the released version asked was written in the same way.
    fn ask(&mut self, frame: Vec<u8>) {
        // The type, and the bucket or most of the hash.
        let asks_the_same = |recorded: &&Vec<u8>| recorded[4] == frame[4] && recorded[6..26] == frame[6..26];
        if self.script.asks.iter().any(|recorded| asks_the_same(&recorded)) {
            assert!(self.script.asks.contains(&frame), "not written as a released version did: {frame:02x?}");
        }
        self.send(0, frame);
    }

    fn send_counted(&mut self, lane: u8, frame: Vec<u8>) {
        self.counted += 1;
        self.other_is_quiet = false;
        self.send(lane, frame);
    }

    fn send(&mut self, lane: u8, frame: Vec<u8>) {
        self.out.push((lane, frame));
    }
}

/// The lengths of the chunks that `bytes` are cut into.
fn cuts(chunking: u8, bytes: &[u8]) -> Vec<usize> {
    const KIB: usize = 1024;
    if chunking == 0 {
        return bytes.chunks(1024 * KIB).map(<[u8]>::len).collect();
    }
    fastcdc::v2020::FastCDC::new(bytes, 64 * KIB, 256 * KIB, 1024 * KIB).map(|chunk| chunk.length).collect()
}
