//! The nodes nearby, and where content comes from: from one of them that has it, or over the link to the bridge, fetched by one of
//! all for all.
//!
//! While sessions with other nodes are open, content that is wanted here is asked of the bridge only if [`Nearby`] says so:
//!
//! - Neighbours are asked first whether they hold it. What one of them holds comes from there.
//! - Who wants to ask the bridge says so to its neighbours. Of several that say it at about the same time, the one that has
//!   the highest weight for the blob begins (rendezvous hashing: Thaler and Ravishankar, 1998), and says that it has begun;
//!   the others, and whoever comes later, get it from that one.
//! - Whatever was decided, it holds for a limited time: then the bridge is asked. Nothing waits for a neighbour that hangs.
//!
//! What is asked of the bridge is only a matter of thrift: two that fetch the same do no harm.
//!
//! Not here: what is wanted, and what is coming in already (`store/blobs`); who finds the others (`lan`), and who asks the bridge
//! (`replication/over_the_link`).

mod holders;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use alexandria_sync::chunk::BlobHash;
use alexandria_sync::driver::HostInput;
use alexandria_sync::id::NodeId;
use alexandria_sync::store::Wanted;
use alexandria_sync::wire::message::NAME_CHARS_MAX;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{broadcast, mpsc, watch};
use tokio::time::Instant;

use self::holders::Holders;

/// Blobs about which something is decided, at most; more are asked of the bridge at once.
const DECIDED_MAX: usize = 20_000;
/// Blobs that neighbours have said they fetch, at most; what they say of more is not remembered.
const CLAIMED_MAX: usize = 20_000;
/// Questions to one neighbour that it has not answered, at most. What is not asked yet is not asked of the bridge either.
const QUESTIONS_MAX: usize = 512;
/// A neighbour has so long to say whether it holds something.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// Who wants the same at about the same time says so within this.
const SETTLED_AFTER: Duration = Duration::from_secs(1);
/// What a neighbour holds has so long to begin to come from there.
const COMES_WITHIN: Duration = Duration::from_mins(2);
/// Who fetches something says so this often.
const SAY_AGAIN: Duration = Duration::from_mins(1);
/// Who has not said it for so long does not fetch it any more.
const BELIEVED_FOR: Duration = Duration::from_mins(3);
/// Nobody is believed to fetch the same thing for longer.
const FETCHED_WITHIN: Duration = Duration::from_mins(30);
/// The same for all of these where a reader waits, who waits for nobody to fetch it for all.
const READER_WITHIN: Duration = Duration::from_secs(2);
/// What waits for a neighbour is looked at again this often.
const LOOK_AGAIN: Duration = Duration::from_secs(5);
/// What comes in crowds (answers, arrivals) makes it be looked at this often, at most.
const LOOK_AGAIN_MIN: Duration = Duration::from_millis(500);

/// Who holds what nearby, and who fetches it. Clones are handles on the same knowledge.
#[derive(Clone, Default)]
pub struct Nearby {
    inner: Arc<Inner>,
}

#[derive(Default)]
struct Inner {
    state: Mutex<State>,
    /// Counts what may change a decision.
    changed: watch::Sender<u64>,
}

#[derive(Default)]
struct State {
    neighbours: BTreeMap<NodeId, Neighbour>,
    holders: Holders,
    wants: HashMap<BlobHash, Want>,
    claims: HashMap<BlobHash, BTreeMap<NodeId, Claim>>,
}

/// Of the id of a node that does not say what it is called.
const ID_DIGITS_SHOWN: usize = 8;

/// Another node with which a session is open.
struct Neighbour {
    session: mpsc::Sender<HostInput>,
    /// What people call it; empty until it has said so, or if it does not.
    name: String,
}

impl Neighbour {
    /// What people call it, or at least its id's first digits.
    fn called(&self, node: NodeId) -> String {
        if self.name.is_empty() { node.to_string().chars().take(ID_DIGITS_SHOWN).collect() } else { self.name.clone() }
    }

    /// Whether it takes the input; a session that is too busy, or gone, does not.
    fn tell(&self, input: HostInput) -> bool {
        self.session.try_send(input).is_ok()
    }
}

/// What is wanted here, since neighbours were asked about it.
struct Want {
    since: Instant,
    /// What neighbours have answered; `None` while one was asked and has not.
    answers: BTreeMap<NodeId, Option<bool>>,
    /// When neighbours were last told that it is fetched here, if it is.
    begun_said_at: Option<Instant>,
}

/// A neighbour's word that it fetches something, or wants to.
#[derive(Clone, Copy)]
struct Claim {
    first: Instant,
    last: Instant,
    begun: bool,
}

impl Claim {
    fn is_believed(self, now: Instant) -> bool {
        now.duration_since(self.last) < BELIEVED_FOR && now.duration_since(self.first) < FETCHED_WITHIN
    }
}

/// What is to be said to neighbours, and what they have not answered yet.
#[derive(Default)]
struct Words {
    questions: BTreeMap<NodeId, Vec<BlobHash>>,
    unanswered: BTreeMap<NodeId, usize>,
    wanted: Vec<BlobHash>,
    begun: Vec<BlobHash>,
}

impl Nearby {
    /// A session with another node is open; it takes questions from now on.
    pub(crate) fn joined(&self, node: NodeId, session: mpsc::Sender<HostInput>) {
        let mut state = self.state();
        state.neighbours.insert(node, Neighbour { session, name: String::new() });
        for want in state.wants.values_mut() {
            // It has not heard it.
            want.begun_said_at = None;
        }
        drop(state);
        self.note_change();
    }

    /// What people call a neighbour.
    pub(crate) fn is_called(&self, node: NodeId, name: &str) {
        if let Some(neighbour) = self.state().neighbours.get_mut(&node) {
            neighbour.name = name.chars().take(NAME_CHARS_MAX).filter(|character| !character.is_control()).collect();
        }
    }

    /// That session is over, unless another has taken its place.
    pub(crate) fn left(&self, node: NodeId, session: &mpsc::Sender<HostInput>) {
        let mut state = self.state();
        if state.neighbours.get(&node).is_some_and(|known| known.session.same_channel(session)) {
            state.neighbours.remove(&node);
            for want in state.wants.values_mut() {
                want.answers.remove(&node);
            }
            state.holders.forget(node);
            state.claims.retain(|_, claims| {
                claims.remove(&node);
                !claims.is_empty()
            });
            drop(state);
            self.note_change();
        }
    }

    /// A neighbour has said whether it holds a blob.
    pub(crate) fn answered(&self, node: NodeId, blob: BlobHash, is_held: bool) {
        let mut state = self.state();
        if let Some(want) = state.wants.get_mut(&blob) {
            want.answers.insert(node, Some(is_held));
        }
        state.holders.note(blob, node, is_held, Instant::now());
        drop(state);
        self.note_change();
    }

    /// A neighbour has said that it fetches these over its link, or wants to.
    pub(crate) fn fetches(&self, node: NodeId, blobs: &[BlobHash], begun: bool) {
        self.state().note_claims(node, blobs, begun, Instant::now());
        self.note_change();
    }

    /// A session with the bridge begins, and has decided nothing yet.
    pub(crate) fn begin(&self) {
        self.state().wants.clear();
    }

    /// Those of `wanted` that `here` is to ask the bridge for now; it is getting from there already what `has_begun` tells. Says
    /// to neighbours what they are to know, and asks them about the others.
    pub(crate) fn over_the_link(
        &self,
        here: NodeId,
        mut wanted: Vec<Wanted>,
        has_begun: impl Fn(BlobHash) -> bool,
        now: Instant,
    ) -> Vec<Wanted> {
        let mut state = self.state();
        if state.neighbours.is_empty() {
            state.wants.clear();
            return wanted;
        }
        // Counting reads all that is decided, and only what nothing is decided about yet needs the count.
        let is_new = wanted.iter().any(|wanted| !state.wants.contains_key(&wanted.blob));
        let unanswered = if is_new { state.unanswered(now) } else { BTreeMap::new() };
        let mut words = Words { unanswered, ..Words::default() };
        wanted.retain(|wanted| state.is_for_the_bridge(here, *wanted, has_begun(wanted.blob), now, &mut words));
        state.say(words);
        wanted
    }

    /// Tells the session with the bridge to look again at what is wanted, whenever that may come out otherwise, until the
    /// session is gone. `arrivals` are of blobs that have become whole here.
    pub(crate) async fn look_again(
        self,
        mut arrivals: broadcast::Receiver<BlobHash>,
        session: mpsc::Sender<HostInput>,
    ) {
        let mut changed = self.inner.changed.subscribe();
        loop {
            tokio::select! {
                () = session.closed() => return,
                arrived = arrivals.recv() => {
                    match arrived {
                        Ok(blob) => self.state().forget(blob),
                        Err(RecvError::Lagged(_)) => self.begin(),
                        Err(RecvError::Closed) => return,
                    }
                    continue;
                }
                _ = changed.changed() => {}
                () = tokio::time::sleep(LOOK_AGAIN) => if self.state().wants.is_empty() { continue },
            }
            if session.send(HostInput::MoreWanted).await.is_err() {
                return;
            }
            let _ = tokio::time::timeout(LOOK_AGAIN_MIN, session.closed()).await;
        }
    }

    fn note_change(&self) {
        self.inner.changed.send_modify(|times| *times += 1);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.inner.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn note_claims(&mut self, node: NodeId, blobs: &[BlobHash], begun: bool, now: Instant) {
        for blob in blobs {
            if self.claims.len() >= CLAIMED_MAX && !self.claims.contains_key(blob) {
                self.claims.retain(|_, claims| claims.values().any(|claim| claim.is_believed(now)));
                if self.claims.len() >= CLAIMED_MAX {
                    return;
                }
            }
            let claims = self.claims.entry(*blob).or_default();
            let claim = claims.entry(node).or_insert(Claim { first: now, last: now, begun });
            (claim.last, claim.begun) = (now, claim.begun || begun);
        }
    }

    /// The blob is here.
    fn forget(&mut self, blob: BlobHash) {
        self.wants.remove(&blob);
        self.claims.remove(&blob);
    }

    /// Questions that each neighbour is likely to answer yet.
    fn unanswered(&self, now: Instant) -> BTreeMap<NodeId, usize> {
        let mut unanswered = BTreeMap::new();
        for want in self.wants.values().filter(|want| now.duration_since(want.since) < ANSWER_WITHIN) {
            for (node, _) in want.answers.iter().filter(|(_, answer)| answer.is_none()) {
                *unanswered.entry(*node).or_default() += 1;
            }
        }
        unanswered
    }

    /// Whether `here` is to ask the bridge for it now, and what is to be said to neighbours about it.
    fn is_for_the_bridge(
        &mut self,
        here: NodeId,
        wanted: Wanted,
        has_begun: bool,
        now: Instant,
        words: &mut Words,
    ) -> bool {
        let Wanted { blob, class, .. } = wanted;
        if !self.wants.contains_key(&blob) {
            if self.wants.len() >= DECIDED_MAX {
                return true;
            }
            let is_busy = |node: &NodeId| words.unanswered.get(node).is_some_and(|count| *count >= QUESTIONS_MAX);
            if !class.is_urgent() && self.neighbours.keys().any(is_busy) {
                return has_begun;
            }
            let want = Want { since: now, answers: BTreeMap::new(), begun_said_at: None };
            self.wants.insert(blob, want);
            words.wanted.push(blob);
        }
        let Some(want) = self.wants.get_mut(&blob) else { return true };
        for node in self.neighbours.keys().filter(|node| !want.answers.contains_key(node)).collect::<Vec<_>>() {
            words.questions.entry(*node).or_default().push(blob);
            *words.unanswered.entry(*node).or_default() += 1;
            want.answers.insert(*node, None);
        }
        let is_mine = has_begun || want.is_for_the_bridge(here, wanted, self.claims.get(&blob), now);
        let is_said = want.begun_said_at.is_some_and(|said_at| now.duration_since(said_at) < SAY_AGAIN);
        if is_mine && !is_said {
            want.begun_said_at = Some(now);
            words.begun.push(blob);
        }
        is_mine
    }

    fn say(&mut self, mut words: Words) {
        for (node, neighbour) in &self.neighbours {
            let questions = words.questions.remove(node).unwrap_or_default();
            let tell = |input| neighbour.tell(input);
            let is_told = (words.wanted.is_empty()
                || tell(HostInput::Fetching { blobs: words.wanted.clone(), begun: false }))
                && (words.begun.is_empty() || tell(HostInput::Fetching { blobs: words.begun.clone(), begun: true }))
                && (questions.is_empty() || tell(HostInput::CheckBlobs(questions.clone())));
            if !is_told {
                // It is too busy: it is asked the next time.
                for blob in &questions {
                    if let Some(want) = self.wants.get_mut(blob) {
                        want.answers.remove(node);
                    }
                }
            }
        }
    }
}

impl Want {
    /// Whether `here` is to ask the bridge for it, as far as neighbours have answered and said what they do.
    fn is_for_the_bridge(
        &self,
        here: NodeId,
        wanted: Wanted,
        claims: Option<&BTreeMap<NodeId, Claim>>,
        now: Instant,
    ) -> bool {
        let reader_waits = wanted.class.is_urgent();
        let waited = now.duration_since(self.since);
        let within = |usual: Duration| waited < if reader_waits { usual.min(READER_WITHIN) } else { usual };
        if self.answers.values().any(|answer| *answer == Some(true)) {
            return !within(COMES_WITHIN);
        }
        if self.answers.values().any(Option::is_none) && within(ANSWER_WITHIN) {
            return false;
        }
        if reader_waits || self.begun_said_at.is_some() {
            return true;
        }
        let believed = || claims.into_iter().flatten().filter(|(_, claim)| claim.is_believed(now));
        let candidates = believed().map(|(node, _)| *node).chain([here]);
        waited >= SETTLED_AFTER
            && !believed().any(|(_, claim)| claim.begun)
            && elected(candidates, wanted.blob) == Some(here)
    }
}

/// The one among `nodes` that fetches `blob` for all: the same, whoever of them asks.
fn elected(nodes: impl Iterator<Item = NodeId>, blob: BlobHash) -> Option<NodeId> {
    nodes.max_by_key(|node| {
        let mut hasher = blake3::Hasher::new_derive_key("alexandria 2026 who fetches a blob for its neighbours");
        hasher.update(node.as_bytes()).update(blob.as_bytes());
        (*hasher.finalize().as_bytes(), *node)
    })
}

#[cfg(test)]
mod tests;
