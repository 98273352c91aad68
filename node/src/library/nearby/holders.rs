//! Which of the nodes nearby hold what is not here, for those who look at it.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use alexandria_sync::chunk::BlobHash;
use alexandria_sync::driver::HostInput;
use alexandria_sync::id::NodeId;
use tokio::time::Instant;

use super::{Nearby, State};

/// Blobs whose holders are remembered, at most; those past it are asked about each time.
const REMEMBERED_MAX: usize = 10_000;
/// What a neighbour has said is good for so long.
const GOOD_FOR: Duration = Duration::from_mins(1);
/// Who looks does not wait longer for an answer.
const ANSWER_WITHIN: Duration = Duration::from_millis(300);

/// What neighbours have said they hold, and when.
#[derive(Default)]
pub(super) struct Holders {
    answers: HashMap<BlobHash, BTreeMap<NodeId, (Instant, bool)>>,
}

impl Holders {
    pub(super) fn note(&mut self, blob: BlobHash, node: NodeId, is_held: bool, now: Instant) {
        if self.answers.len() >= REMEMBERED_MAX && !self.answers.contains_key(&blob) {
            let is_good = |(at, _): &(Instant, bool)| now.duration_since(*at) < GOOD_FOR;
            self.answers.retain(|_, answers| answers.values().any(is_good));
            if self.answers.len() >= REMEMBERED_MAX {
                return;
            }
        }
        self.answers.entry(blob).or_default().insert(node, (now, is_held));
    }

    /// A neighbour is gone.
    pub(super) fn forget(&mut self, node: NodeId) {
        self.answers.retain(|_, answers| {
            answers.remove(&node);
            !answers.is_empty()
        });
    }

    /// What a neighbour has said, if it still counts.
    fn answer(&self, blob: BlobHash, node: NodeId, now: Instant) -> Option<bool> {
        let (at, is_held) = self.answers.get(&blob)?.get(&node)?;
        (now.duration_since(*at) < GOOD_FOR).then_some(*is_held)
    }
}

impl Nearby {
    /// What people call the nodes nearby that hold each of these, as far as they answer at once; those that nobody holds are
    /// left out.
    pub async fn holders(&self, blobs: &[BlobHash]) -> HashMap<BlobHash, Vec<String>> {
        if blobs.is_empty() {
            return HashMap::new();
        }
        let mut changed = self.inner.changed.subscribe();
        let deadline = Instant::now() + ANSWER_WITHIN;
        self.state().ask_about(blobs, Instant::now());
        let answered = async {
            while !self.state().has_answers(blobs, Instant::now()) {
                if changed.changed().await.is_err() {
                    return;
                }
            }
        };
        // Who does not answer in time is not waited for.
        let _ = tokio::time::timeout_at(deadline, answered).await;
        self.state().named(blobs, Instant::now())
    }
}

impl State {
    fn ask_about(&self, blobs: &[BlobHash], now: Instant) {
        for (node, neighbour) in &self.neighbours {
            let unknown = blobs.iter().copied().filter(|blob| self.holders.answer(*blob, *node, now).is_none());
            let unknown: Vec<BlobHash> = unknown.collect();
            if !unknown.is_empty() {
                // One that is too busy is taken to hold nothing.
                neighbour.tell(HostInput::CheckBlobs(unknown));
            }
        }
    }

    fn has_answers(&self, blobs: &[BlobHash], now: Instant) -> bool {
        let is_answered = |node: &NodeId| blobs.iter().all(|blob| self.holders.answer(*blob, *node, now).is_some());
        self.neighbours.keys().all(is_answered)
    }

    fn named(&self, blobs: &[BlobHash], now: Instant) -> HashMap<BlobHash, Vec<String>> {
        let names = |blob: BlobHash| {
            let holds = move |node: &NodeId| self.holders.answer(blob, *node, now) == Some(true);
            let named = self.neighbours.iter().filter(move |(node, _)| holds(node));
            named.map(|(node, neighbour)| neighbour.called(*node)).collect::<Vec<_>>()
        };
        let held = blobs.iter().map(|blob| (*blob, names(*blob)));
        held.filter(|(_, names)| !names.is_empty()).collect()
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc;

    use super::*;

    fn node(number: u8) -> NodeId {
        NodeId::from_bytes([number; 16])
    }

    #[tokio::test]
    async fn who_holds_what_is_told_by_name_and_who_does_not_answer_is_not_waited_for() {
        let nearby = Nearby::default();
        let blobs: Vec<BlobHash> = (0..3u8).map(|number| BlobHash::of(&[number])).collect();
        assert_eq!(nearby.holders(&blobs).await, HashMap::new(), "nobody is there");
        let (session, mut questions) = mpsc::channel(16);
        let (silent, _unread) = mpsc::channel(16);
        nearby.joined(node(1), session.clone());
        nearby.joined(node(2), silent);
        nearby.is_called(node(1), "clinic");
        let answering = async {
            let Some(HostInput::CheckBlobs(asked)) = questions.recv().await else { panic!("it is asked") };
            assert_eq!(asked, blobs);
            for (at, blob) in asked.into_iter().enumerate() {
                nearby.answered(node(1), blob, at > 0);
            }
        };
        let (held, ()) = tokio::join!(nearby.holders(&blobs), answering);
        let clinic = vec!["clinic".to_owned()];
        assert_eq!(held, HashMap::from([(blobs[1], clinic.clone()), (blobs[2], clinic)]));
        nearby.holders(&blobs).await;
        assert!(questions.try_recv().is_err(), "what was answered a moment ago is not asked again");
        nearby.left(node(1), &session);
        assert_eq!(nearby.holders(&blobs).await, HashMap::new());
    }

    #[test]
    fn what_is_remembered_is_bounded_and_does_not_last() {
        let mut holders = Holders::default();
        let now = Instant::now();
        let blob = |number: usize| BlobHash::of(&number.to_be_bytes());
        for number in 0..REMEMBERED_MAX + 10 {
            holders.note(blob(number), node(1), true, now);
        }
        assert_eq!(holders.answers.len(), REMEMBERED_MAX);
        assert_eq!(holders.answer(blob(0), node(1), now), Some(true));
        assert_eq!(holders.answer(blob(0), node(1), now + GOOD_FOR), None);
        holders.note(blob(REMEMBERED_MAX + 1), node(1), true, now + GOOD_FOR);
        assert_eq!(holders.answers.len(), 1, "what is old makes room");
    }
}
