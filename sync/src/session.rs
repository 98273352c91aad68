//! One conversation with one peer, as a pure state machine.
//!
//! [`Session`] decides what to ask, what to answer and when. It never touches a clock, a socket or a disk: whoever drives
//! it feeds it [`Input`]s with the time, and carries out every [`Output`].
//!
//! Both ends run the same code. Each pulls what it wants: feeds of buckets ([`pull`] asks, [`serve`] answers) and content
//! ([`fetch`] asks, [`provide`] answers). Lanes keep control, records and content apart, so that the first two never wait
//! behind content, whose classes take turns (`schedule`). Where a link has a budget, content keeps within it (`credit`).
//!
//! Invariants:
//! - What is asked for and not yet durable never exceeds the window: a cut costs no more than that (invariant 12).
//! - A page is applied with its cursor in one step, in the order of the feed (invariant 4).
//! - Nothing is sent or taken outside the [`Scope`] (invariant 17's part of it).
//! - Every queue has a limit; a peer that exceeds one, or breaks any rule, ends this session and harms no other.
//!
//! Not here: redialling and policy (the host), framing (`wire`), the stores (`store`).

pub mod check;
pub mod fetch;
pub mod provide;
pub mod pull;
pub mod serve;

mod credit;
mod disk;
mod schedule;
mod scope;
mod standing;

use std::collections::VecDeque;

pub use disk::{Begun, DiskDone, DiskRequest, WriteFailure};
pub use schedule::READER_WAITS_BYTES_MAX;
pub use scope::{Chosen, Collections, Scope, Selection};

use crate::absence::Standing;
use crate::budget::Word;
use crate::chunk::BlobHash;
use crate::id::{BucketId, NodeId, Seq};
use crate::lineage;
use crate::store::{Applied, Peer};
use crate::wire::message::FETCHING_BLOBS_MAX;
use crate::wire::{CloseReason, Hello, Lane, Message, PROTOCOL_MAX, PROTOCOL_MIN, feature};

/// The limits of a session. The defaults suit a node with little memory on a slow link.
#[derive(Clone, Debug)]
pub struct Config {
    /// Size of the pages asked for, in bytes.
    pub page_bytes: u32,
    /// Bytes that may have to be sent again after a cut, on a link too slow for [`Self::resend_window_ms`].
    pub resend_bytes: u64,
    /// The same in time of the link, for fast ones.
    pub resend_window_ms: u64,
    /// The window never grows past this, in bytes.
    pub window_bytes_max: u64,
    /// Written content is made durable after this long at the latest, in milliseconds.
    pub sync_after_ms: u64,
    /// Blobs received at the same time, at most.
    pub blobs_in_flight_max: usize,
    /// A blob that the peer did not have, or for which there was no room, is asked for again after this long, in milliseconds.
    pub absent_retry_ms: u64,
    /// A blob that another session is receiving is asked for again after this long, in milliseconds: that session may
    /// be a dead one of the same peer.
    pub busy_retry_ms: u64,
    /// The peer's hello must be here within this, in milliseconds.
    pub hello_deadline_ms: u64,
    /// Bytes of received records that may wait to be applied, before the lane is held back.
    pub backlog_bytes_max: usize,
    /// Manifests kept at hand for a peer that asks for chunks of them, in bytes: 36 for each chunk. The last one is kept however large it is; others
    /// are read again.
    pub manifest_bytes_max: usize,
    /// What may cross the wire until [`Input::Credit`] says how much more; `None` on a link without a budget or a rate.
    pub credit: Option<Word>,
    /// How a peer stands that does not tell it (`absence`), as far as it is known here.
    pub standing_unless_told: Standing,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            page_bytes: 64 * 1024,
            resend_bytes: 4_000_000,
            resend_window_ms: 2_000,
            window_bytes_max: 32 * 1024 * 1024,
            sync_after_ms: 2_000,
            blobs_in_flight_max: 32,
            absent_retry_ms: 5 * 60 * 1000,
            busy_retry_ms: 3_000,
            hello_deadline_ms: 30_000,
            backlog_bytes_max: pull::BACKLOG_BYTES_MAX,
            manifest_bytes_max: 64 * 1024 * 1024,
            credit: None,
            standing_unless_told: Standing::default(),
        }
    }
}

/// What happens to a session.
#[derive(Debug)]
pub enum Input {
    /// A message arrived.
    Message(Lane, Message),
    /// What was last sent on the lane has left; it takes more.
    LaneDrained(Lane),
    /// A disk request was carried out.
    Disk(DiskDone),
    /// The bucket's feed here has grown.
    LocalChange(BucketId),
    /// What is wanted here has changed: a reader waits, or there is room again.
    WantsChanged,
    /// More may be wanted here, by records that came from elsewhere; nothing is known of room.
    MoreWanted,
    /// A blob has become whole here, from elsewhere.
    BlobCompleted(BlobHash),
    /// Ask the peer which of these blobs it holds whole: [`Event::BlobChecked`] answers for each.
    CheckBlobs(Vec<BlobHash>),
    /// Tell the peer, another node, that these are fetched over the link to the bridge, or are about to be.
    Fetching {
        /// Which.
        blobs: Vec<BlobHash>,
        /// Whether they are already.
        begun: bool,
    },
    /// What may follow what had crossed the wire a moment ago.
    Credit(Word),
    /// The time from [`Session::next_timeout`] has come. Early is harmless.
    Timer,
    /// The host, or the transport, wants to end: why, and in words.
    Stop(CloseReason, String),
}

/// What is to be done for a session.
#[derive(Debug)]
pub enum Output {
    /// Send the message, then tell [`Input::LaneDrained`].
    Send(Lane, Message),
    /// Carry it out, then tell [`Input::Disk`]. A store's own failure ends the session.
    Disk(DiskRequest),
    /// Tell the host.
    Event(Event),
    /// The session is over. Send what is still queued on the control lane, then drop the connection.
    Closed(Closed),
}

/// Why a session is over.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Closed {
    /// The reason, as on the wire.
    pub reason: CloseReason,
    /// In words.
    pub text: String,
    /// Whether the peer closed it.
    pub by_peer: bool,
}

/// What the host may want to know.
#[derive(Clone, Debug)]
pub enum Event {
    /// The peer has introduced itself.
    PeerHello(Hello),
    /// A page was merged.
    Applied(BucketId, Applied),
    /// A blob has become whole through this session.
    BlobReceived {
        /// Which.
        blob: BlobHash,
        /// Its size.
        size_bytes: u64,
    },
    /// The peer has made durable what this end sent of a bucket that it does not want itself, up to this row of the feed
    /// here, and would give it back.
    HeldByPeer {
        /// Which bucket.
        bucket: BucketId,
        /// The last row that it has.
        upto: Seq,
    },
    /// A bucket of [`Selection::returning`] has been read to its end.
    Returned(BucketId),
    /// The peer was asked whether it holds a blob.
    BlobChecked {
        /// Which.
        blob: BlobHash,
        /// Whether it does, and may give it.
        held_by_peer: bool,
    },
    /// The peer, another node, fetches these over its link to the bridge, or is about to.
    PeerFetches {
        /// Which.
        blobs: Vec<BlobHash>,
        /// Whether it has begun.
        begun: bool,
    },
    /// No room for content here; records go on.
    ContentBlocked,
    /// Content would take so many bytes at once, beyond what has crossed the wire, and may not.
    CreditShort(u64),
    /// Both ends want nothing more of what each has told, and have dealt with it. What is written at the other end, or follows
    /// there from an erasure that it has just carried out, may be on its way. Comes again after changes.
    Quiet,
}

/// What a session is busy with.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Progress {
    /// Rows of the peer's feeds that were not applied yet, as far as the peer's offers tell.
    pub rows_behind: u64,
    /// Rows of the feeds here that were sent in this session.
    pub rows_sent: u64,
    /// Blobs being received.
    pub blobs_receiving: u32,
    /// Bytes of those that are not durable yet.
    pub bytes_to_receive: u64,
    /// Content received, in bytes a second, over the last second or so.
    pub receive_rate: u64,
    /// Content bytes received in this session.
    pub bytes_received: u64,
    /// Content bytes sent in this session.
    pub bytes_sent: u64,
    /// Bytes of content that the peer has asked for and that have not left.
    pub bytes_to_send: u64,
    /// Bytes that content would take at once beyond what has crossed the wire, if it may not.
    pub credit_short: Option<u64>,
}

/// What a session keeps in memory, in bytes (invariant 15): each has its limit, whatever the peer does.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Held {
    /// Records received and not applied, and the page that waits to be sent: [`Config::backlog_bytes_max`] and two pages.
    pub record_bytes: usize,
    /// Chunks received and not durable: [`Config::window_bytes_max`]. What is sent is read only when a lane is free.
    pub content_bytes: usize,
    /// What is wanted, asked, offered and remembered, with the manifests at hand ([`Config::manifest_bytes_max`]): limits on how many there are of each.
    pub list_bytes: usize,
}

impl std::ops::Add for Held {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            record_bytes: self.record_bytes + other.record_bytes,
            content_bytes: self.content_bytes + other.content_bytes,
            list_bytes: self.list_bytes + other.list_bytes,
        }
    }
}

/// A rule of the protocol that the peer broke.
#[derive(Debug)]
pub(crate) struct Violation(pub(crate) String);

impl Violation {
    fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

/// The outputs that were not drained yet.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    queue: VecDeque<Output>,
    /// Pages, offers and haves sent: what the peer's `Quiet` counts.
    counted: u64,
}

impl Outbox {
    fn send(&mut self, lane: Lane, message: Message) {
        if matches!(message, Message::Page { .. } | Message::Offer(_) | Message::Have { .. }) {
            self.counted += 1;
        }
        self.queue.push_back(Output::Send(lane, message));
    }

    fn control(&mut self, message: Message) {
        self.send(Lane::Control, message);
    }

    fn disk(&mut self, request: DiskRequest) {
        self.queue.push_back(Output::Disk(request));
    }

    fn event(&mut self, event: Event) {
        self.queue.push_back(Output::Event(event));
    }
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Phase {
    AwaitingHello,
    Open,
    Closed,
}

/// One conversation with one peer.
#[derive(Debug)]
pub struct Session {
    config: Config,
    local: Hello,
    expected_peer: NodeId,
    /// Whether the site that moves is that of this end.
    is_site: bool,
    phase: Phase,
    opened_at_ms: u64,
    outbox: Outbox,
    puller: pull::Puller,
    server: serve::Server,
    fetcher: fetch::Fetcher,
    provider: provide::Provider,
    checks: check::Checks,
    credit: credit::Credit,
    standings: standing::Standings,
    quiet: QuietState,
}

/// Who has said that they want nothing more.
#[derive(Debug, Default)]
struct QuietState {
    /// What the last `Quiet` sent said.
    sent: Option<u64>,
    /// What the last `Quiet` received said.
    received: Option<u64>,
    /// Whether the host was told of the present quiet.
    told: bool,
}

impl Session {
    /// A session of the replica that `local` introduces, with the peer that the transport has authenticated.
    pub fn new(config: Config, local: Hello, expected_peer: NodeId, scope: Scope, now_ms: u64) -> Self {
        let mut outbox = Outbox::default();
        outbox.control(Message::Hello(local.clone()));
        let is_site = scope.site == local.node;
        let mut credit = credit::Credit::default();
        if let Some(word) = config.credit {
            credit.set(word);
        }
        Self {
            puller: pull::Puller::new(scope.clone(), config.page_bytes, config.backlog_bytes_max),
            server: serve::Server::new(scope, local.epoch),
            fetcher: fetch::Fetcher::new(config.clone(), now_ms),
            provider: provide::Provider::new(config.manifest_bytes_max),
            checks: check::Checks::default(),
            credit,
            standings: standing::Standings::new(local.standing),
            config,
            local,
            expected_peer,
            is_site,
            phase: Phase::AwaitingHello,
            opened_at_ms: now_ms,
            outbox,
            quiet: QuietState::default(),
        }
    }

    /// The same, reading only what this end wants of what is in scope. Before the first input.
    #[must_use]
    pub fn selecting(mut self, selection: Selection) -> Self {
        self.standings.reads_anew = selection.all_anew;
        self.puller.select(selection.clone());
        self.server.select(selection);
        self
    }

    /// Applies one input at `now_ms`, milliseconds on any clock that never goes back. Drain [`Self::poll`] after it.
    pub fn handle(&mut self, input: Input, now_ms: u64) {
        if self.phase == Phase::Closed {
            return;
        }
        if let Err(Violation(text)) = self.dispatch(input, now_ms) {
            self.close(CloseReason::Violation, text);
            return;
        }
        if self.phase == Phase::Open && self.standings.met {
            self.puller.pump(&mut self.outbox);
            self.server.pump(&mut self.credit, &mut self.outbox);
            self.credit.try_again();
            self.fetcher.pump(now_ms, &mut self.credit, &mut self.outbox);
            self.provider.pump(now_ms, &mut self.credit, &mut self.outbox);
            self.checks.pump(&mut self.credit, &mut self.outbox);
            if let Some(bytes) = self.credit.newly_short_of() {
                self.outbox.event(Event::CreditShort(bytes));
            }
            self.note_caught_up();
            self.settle();
        }
    }

    /// The next thing to do for the session, if any.
    pub fn poll(&mut self) -> Option<Output> {
        self.outbox.queue.pop_front()
    }

    /// When to hand in [`Input::Timer`], in the milliseconds of [`Self::handle`].
    pub fn next_timeout(&self) -> Option<u64> {
        match self.phase {
            Phase::AwaitingHello => Some(self.opened_at_ms + self.config.hello_deadline_ms),
            Phase::Open => self.fetcher.next_timeout(),
            Phase::Closed => None,
        }
    }

    /// Whether the next message of the lane should be read now. Not reading holds the peer back through the transport.
    pub fn accepts(&self, lane: Lane) -> bool {
        match lane {
            Lane::Records => self.puller.has_room() && self.credit.lets_records(),
            Lane::Control | Lane::Content(_) => true,
        }
    }

    /// What it is busy with.
    pub fn progress(&self) -> Progress {
        let mut progress = self.fetcher.progress();
        progress.rows_behind = self.puller.rows_behind();
        progress.rows_sent = self.server.rows_sent();
        progress.bytes_sent = self.provider.bytes_sent();
        progress.bytes_to_send = self.provider.bytes_to_send();
        progress.credit_short = self.credit.short_of();
        progress
    }

    /// What it keeps in memory now.
    pub fn held(&self) -> Held {
        self.puller.held() + self.server.held() + self.fetcher.held() + self.provider.held() + self.checks.held()
    }

    /// Takes note of a disk request that was still under way when the session ended. Before [`Self::receiving`].
    pub fn settle_after_close(&mut self, done: &DiskDone) {
        self.fetcher.settle(done);
    }

    /// Blobs whose receiving was begun: to be made durable and released when the session ends.
    pub fn receiving(&self) -> impl Iterator<Item = DiskRequest> + '_ {
        self.fetcher.unfinished()
    }

    fn dispatch(&mut self, input: Input, now_ms: u64) -> Result<(), Violation> {
        let out = &mut self.outbox;
        match input {
            Input::Message(lane, message) => return self.take_message(lane, message, now_ms),
            Input::LaneDrained(Lane::Records) => self.server.lane_drained(),
            Input::LaneDrained(Lane::Content(lane)) => self.provider.lane_drained(lane, &mut self.credit),
            Input::LaneDrained(Lane::Control) => {}
            Input::Disk(done) => return self.take_disk(done, now_ms),
            Input::LocalChange(bucket) => self.server.local_change(bucket, out),
            Input::WantsChanged => self.fetcher.wants_changed(),
            Input::MoreWanted => self.fetcher.more_wanted(),
            Input::Credit(word) => self.credit.set(word),
            Input::BlobCompleted(blob) => {
                self.fetcher.completed_elsewhere(blob, out);
                if self.phase == Phase::Open && self.provider.was_missed(blob) {
                    out.control(Message::Have { blob });
                }
            }
            Input::CheckBlobs(blobs) => self.checks.add(blobs),
            Input::Fetching { blobs, begun } => {
                let told = if self.phase == Phase::Open { blobs.as_slice() } else { &[] };
                for blobs in told.chunks(FETCHING_BLOBS_MAX) {
                    out.control(Message::Fetching { blobs: blobs.to_vec(), begun });
                }
            }
            Input::Timer => {
                if self.phase == Phase::AwaitingHello && now_ms >= self.opened_at_ms + self.config.hello_deadline_ms {
                    return Err(Violation::new("no hello within its deadline"));
                }
                self.fetcher.timer(now_ms);
            }
            Input::Stop(reason, text) => self.close(reason, text),
        }
        Ok(())
    }

    fn take_message(&mut self, lane: Lane, message: Message, now_ms: u64) -> Result<(), Violation> {
        let expected = message.lane();
        let in_place = match expected {
            Lane::Content(_) => matches!(lane, Lane::Content(_)),
            Lane::Control | Lane::Records => lane == expected,
        };
        if !in_place {
            return Err(Violation::new("a message in the wrong lane"));
        }
        let out = &mut self.outbox;
        match (self.phase, message) {
            (_, Message::Close { reason, text }) => {
                self.phase = Phase::Closed;
                out.queue.push_back(Output::Closed(Closed { reason, text, by_peer: true }));
                Ok(())
            }
            (Phase::AwaitingHello, Message::Hello(hello)) => {
                self.take_hello(hello);
                Ok(())
            }
            (Phase::AwaitingHello, _) => Err(Violation::new("a message before the hello")),
            (_, Message::Hello(_)) => Err(Violation::new("a second hello")),
            (_, Message::Offer(offered)) => self.puller.take_offer(&offered),
            (_, Message::Page { bucket, next, more, records, moment }) => {
                self.standings.check_page(records.len())?;
                self.credit.note_page(&records);
                self.puller.take_page(bucket, next, more, &records, moment)
            }
            (_, Message::Pull { bucket, after, epoch, page_bytes, own_too }) => {
                self.server.take_pull((bucket, after, epoch), page_bytes, own_too, out)
            }
            (_, Message::ManifestAsk { blob }) => self.provider.take_manifest_ask(blob),
            (_, Message::ChunkAsk { blob, index, class }) => {
                self.provider.take_chunk_ask(blob, index, class, Vec::new())
            }
            (_, Message::PatchAsk { blob, index, class, basis }) => {
                self.provider.take_chunk_ask(blob, index, class, basis)
            }
            (_, Message::Manifest { blob, manifest }) if self.checks.awaits(blob) => {
                self.checks.take_manifest(blob, manifest.as_deref(), &mut self.credit, out)
            }
            (_, Message::Manifest { blob, manifest }) => {
                self.fetcher.take_manifest(blob, manifest, now_ms, &mut self.credit, out)
            }
            (_, Message::Chunk { blob, index, bytes }) => {
                self.fetcher.take_chunk(blob, index, bytes, now_ms, &mut self.credit, out)
            }
            (_, Message::Patch { blob, index, patch }) => {
                self.fetcher.take_patch(blob, index, patch, now_ms, &mut self.credit, out)
            }
            (_, Message::Have { blob }) => {
                self.fetcher.take_have(blob);
                self.puller.note_have();
                Ok(())
            }
            (_, Message::Fetching { blobs, begun }) => {
                out.event(Event::PeerFetches { blobs, begun });
                Ok(())
            }
            (_, Message::Quiet { dealt_with }) => {
                self.quiet.received = Some(dealt_with);
                if dealt_with == self.outbox.counted {
                    self.server.all_is_dealt_with(&mut self.outbox);
                }
                Ok(())
            }
        }
    }

    fn take_hello(&mut self, hello: Hello) {
        if hello.node != self.expected_peer || hello.node == self.local.node {
            self.close(CloseReason::NotWelcome, format!("the certificate is not that of node {}", hello.node));
            return;
        }
        if hello.protocol_min > PROTOCOL_MAX
            || hello.protocol_max < PROTOCOL_MIN
            || hello.protocol_min > hello.protocol_max
        {
            let text = format!(
                "protocol {PROTOCOL_MIN} to {PROTOCOL_MAX} is spoken here, {} to {} there",
                hello.protocol_min, hello.protocol_max
            );
            self.close(CloseReason::NoCommonVersion, text);
            return;
        }
        if let Err(why) = self.standings.take(hello.standing, self.config.standing_unless_told) {
            self.close(CloseReason::NotWelcome, why.into());
            return;
        }
        let peer = Peer { node: hello.node, epoch: hello.epoch };
        self.phase = Phase::Open;
        let gives_back = hello.features & feature::OWN_ROWS != 0;
        let known = lineage::known_of(&self.local.remembered, hello.epoch);
        self.puller.open(peer, known, gives_back);
        self.server.open(peer, gives_back);
        self.fetcher.open(hello.features & feature::PATCHES != 0);
        let (standing, remembered) = (self.standings.theirs(), hello.remembered.clone());
        self.outbox.event(Event::PeerHello(hello));
        self.outbox.disk(DiskRequest::Meet { peer, standing, remembered });
    }

    fn take_disk(&mut self, done: DiskDone, now_ms: u64) -> Result<(), Violation> {
        let out = &mut self.outbox;
        match done {
            DiskDone::Met if self.standings.lapsed => {
                let text = "this end was away for longer than its lease, and reads all anew first";
                self.close(CloseReason::GoingAway, text.into());
            }
            DiskDone::Met => {
                self.standings.met = true;
                out.disk(DiskRequest::Heads);
            }
            DiskDone::SetBack => {
                let text = "this end was set back to an older copy, or there are two of it: it begins a new life";
                self.close(CloseReason::GoingAway, text.into());
            }
            DiskDone::Overtaken => self.close_overtaken(),
            DiskDone::CaughtUp if self.standings.reads_anew => {
                self.close(CloseReason::GoingAway, "everything was read anew".into());
            }
            DiskDone::CaughtUp => {}
            DiskDone::Heads(heads) => self.server.take_heads(&heads, out),
            DiskDone::Cursor { bucket, cursor, known } => {
                if !self.puller.take_cursor(bucket, cursor, &known, out) {
                    self.close_overtaken();
                }
            }
            // A copy of the peer has written what the page leaves out as the peer's own.
            DiskDone::Page { known: Some(known), .. } if !self.puller.knows(&known) => self.close_overtaken(),
            DiskDone::Page { bucket, page, moment, .. } => self.server.take_page(bucket, &page, moment),
            DiskDone::Applied(bucket, applied) => {
                self.puller.take_applied(bucket);
                out.event(Event::Applied(bucket, applied));
                if applied.applied > 0 {
                    self.fetcher.wants_changed();
                }
            }
            DiskDone::Urgent(blobs) => self.fetcher.take_urgent(&blobs),
            DiskDone::Wanted(blobs) => self.fetcher.take_wanted(&blobs),
            DiskDone::Manifest(blob, manifest) => self.provider.take_manifest(blob, manifest),
            DiskDone::Read { blob, index, lane, bytes } => self.provider.take_read(blob, index, lane, bytes, out),
            DiskDone::ReadPatch { blob, index, lane, patch } => {
                self.provider.take_patch(blob, index, lane, patch, out);
            }
            DiskDone::Began(blob, result) => return self.fetcher.take_began(blob, result, out),
            DiskDone::Claimed(blob, result) => return self.fetcher.take_claimed(blob, result, now_ms, out),
            DiskDone::Wrote(blob, index, result) => return self.fetcher.take_wrote(blob, index, result, now_ms, out),
            DiskDone::Synced(blob, result) => return self.fetcher.take_synced(blob, result, out),
            DiskDone::Finished(blob, result) => return self.fetcher.take_finished(blob, result, out),
        }
        Ok(())
    }

    /// Tells the store, once, when all is read that the peer held at its hello. Whoever is this session's site waits until it
    /// knows how far the peer has the feeds here, too.
    fn note_caught_up(&mut self) {
        let knows = self.server.is_pulled_whole() || !self.is_site;
        if self.standings.told || !knows || !self.puller.has_read_all() {
            return;
        }
        self.standings.told = true;
        let (with, has) = self.server.pulled();
        self.outbox.disk(DiskRequest::CaughtUp { with, standing: self.standings.theirs(), has });
    }

    /// Tells the peer, and the host, when there is nothing left to want.
    fn settle(&mut self) {
        if !(self.puller.is_idle() && self.fetcher.is_idle() && self.checks.is_idle()) {
            self.quiet.told = false;
            return;
        }
        let dealt_with = self.puller.dealt_with();
        if self.quiet.sent != Some(dealt_with) {
            self.quiet.sent = Some(dealt_with);
            self.outbox.control(Message::Quiet { dealt_with });
        }
        let peer_is_done = self.quiet.received == Some(self.outbox.counted);
        let quiet = peer_is_done && self.server.is_idle() && self.provider.is_idle();
        if quiet && !self.quiet.told {
            self.outbox.event(Event::Quiet);
        }
        self.quiet.told = quiet;
    }

    fn close_overtaken(&mut self) {
        let text = "another session in the same life has come first: a copy of this peer, or an earlier connection";
        self.close(CloseReason::GoingAway, text.into());
    }

    fn close(&mut self, reason: CloseReason, text: String) {
        if self.phase == Phase::Closed {
            return;
        }
        self.phase = Phase::Closed;
        self.outbox.control(Message::Close { reason, text: text.clone() });
        self.outbox.queue.push_back(Output::Closed(Closed { reason, text, by_peer: false }));
    }
}
