use alexandria_sync::wire::Class;

use super::*;

const HERE: NodeId = NodeId::from_bytes([1; 16]);

fn node(number: u8) -> NodeId {
    NodeId::from_bytes([number; 16])
}

fn blob(number: u32) -> BlobHash {
    BlobHash::from(blake3::hash(&number.to_be_bytes()))
}

fn wanted(number: u32, class: Class) -> Vec<Wanted> {
    vec![Wanted { blob: blob(number), class, size_bytes: 1, from_bytes: 0 }]
}

/// Knowledge with one neighbour, and what it is told.
fn with_neighbour(number: u8, inputs: usize) -> (Nearby, mpsc::Sender<HostInput>, mpsc::Receiver<HostInput>) {
    let nearby = Nearby::default();
    let (session, heard) = mpsc::channel(inputs);
    nearby.joined(node(number), session.clone());
    (nearby, session, heard)
}

fn is_asked(nearby: &Nearby, here: NodeId, number: u32, class: Class, now: Instant) -> bool {
    nearby.over_the_link(here, wanted(number, class), |_| false, now).len() == 1
}

#[test]
fn of_several_that_want_a_blob_one_is_elected_whoever_asks_and_all_take_part() {
    let mut fetched = BTreeMap::new();
    for number in 0..3000 {
        let [one, other] = [[1, 2, 3], [3, 1, 2]].map(|order| elected(order.into_iter().map(node), blob(number)));
        assert_eq!(one, other);
        *fetched.entry(one).or_insert(0) += 1;
        // Who goes changes nothing about what others fetch.
        let without = elected([1, 2].into_iter().map(node), blob(number));
        assert!(one == Some(node(3)) || without == one);
    }
    assert!(fetched.len() == 3 && fetched.values().all(|count| (800..1200).contains(count)), "{fetched:?}");
}

#[test]
fn neighbours_are_asked_first_and_told_once_and_what_one_holds_is_not_asked_of_the_bridge() {
    let started = Instant::now();
    assert!(is_asked(&Nearby::default(), HERE, 0, Class::Background, started), "nobody is there");
    let (nearby, session, mut heard) = with_neighbour(2, 16);
    let asked = |at| is_asked(&nearby, HERE, 7, Class::Background, at);
    assert!(!asked(started));
    let said = [heard.try_recv(), heard.try_recv()].map(Result::unwrap);
    let [HostInput::Fetching { blobs: told, begun: false }, HostInput::CheckBlobs(questions)] = &said else {
        panic!("{said:?}")
    };
    assert_eq!((told.as_slice(), questions.as_slice()), ([blob(7)].as_slice(), [blob(7)].as_slice()));
    assert!(!asked(started + SETTLED_AFTER), "it has not answered");
    nearby.answered(node(2), blob(7), true);
    assert!(!asked(started + COMES_WITHIN / 2) && heard.try_recv().is_err(), "it is asked once");
    assert!(asked(started + COMES_WITHIN), "it does not come");
    nearby.left(node(2), &session);
    assert!(is_asked(&nearby, HERE, 8, Class::Background, started), "it is gone");
}

#[test]
fn what_a_neighbour_neither_holds_nor_wants_is_asked_of_the_bridge_after_a_moment() {
    let started = Instant::now();
    let (nearby, _session, mut heard) = with_neighbour(2, 16);
    let asked = |at| is_asked(&nearby, HERE, 7, Class::Background, at);
    assert!(!asked(started));
    nearby.answered(node(2), blob(7), false);
    assert!(!asked(started + SETTLED_AFTER / 2) && asked(started + SETTLED_AFTER));
    let last = std::iter::from_fn(|| heard.try_recv().ok()).last();
    assert!(matches!(last, Some(HostInput::Fetching { begun: true, .. })), "the neighbour hears that it has begun");
}

/// Two nodes with everything that one says reaching the other, at any two moments: one fetches, and only one.
#[test]
fn two_that_want_the_same_fetch_it_once_however_far_apart_they_begin() {
    for number in 0..200 {
        for apart_ms in [0, 30, 500, 990, 1010, 5000, 60_000] {
            let started = Instant::now();
            let (one, _kept, mut from_one) = with_neighbour(2, 64);
            let (two, _kept, mut from_two) = with_neighbour(1, 64);
            let (mut by_one, mut by_two) = (false, false);
            for step in 0..400 {
                let now = started + Duration::from_millis(step * 50);
                by_one |= is_asked(&one, node(1), number, Class::Background, now);
                if step * 50 >= apart_ms {
                    by_two |= is_asked(&two, node(2), number, Class::Background, now);
                }
                for (heard, who, other) in [(&mut from_one, node(1), &two), (&mut from_two, node(2), &one)] {
                    while let Ok(input) = heard.try_recv() {
                        match input {
                            HostInput::Fetching { blobs, begun } => {
                                other.state().note_claims(who, &blobs, begun, now);
                            }
                            // Neither holds it.
                            HostInput::CheckBlobs(blobs) => {
                                let asker = if who == node(1) { &one } else { &two };
                                let asked = if who == node(1) { node(2) } else { node(1) };
                                for blob in blobs {
                                    asker.answered(asked, blob, false);
                                }
                            }
                            _ => {}
                        }
                    }
                }
            }
            let both = (by_one, by_two);
            let is_last_of_two = apart_ms >= 20_000;
            assert!(both == (true, false) || (both == (false, true) && !is_last_of_two), "{apart_ms} ms: {both:?}");
        }
    }
}

#[test]
fn nobody_is_believed_to_fetch_a_blob_for_ever() {
    let started = Instant::now();
    let (nearby, _session, _heard) = with_neighbour(2, 64);
    let asked = |at| is_asked(&nearby, HERE, 7, Class::Background, at);
    let fetches = |at| nearby.state().note_claims(node(2), &[blob(7)], true, at);
    fetches(started);
    assert!(!asked(started));
    nearby.answered(node(2), blob(7), false);
    assert!(!asked(started + BELIEVED_FOR / 2), "it fetches it");
    let mut now = started;
    while now < started + FETCHED_WITHIN {
        fetches(now);
        assert!(!asked(now + SAY_AGAIN / 2));
        now += SAY_AGAIN;
    }
    assert!(asked(now + SAY_AGAIN / 2), "it says so for too long");
    let (nearby, _session, _heard) = with_neighbour(2, 64);
    nearby.state().note_claims(node(2), &[blob(7)], true, started);
    assert!(!is_asked(&nearby, HERE, 7, Class::Background, started));
    assert!(is_asked(&nearby, HERE, 7, Class::Background, started + BELIEVED_FOR), "it has not said so again");
}

#[test]
fn a_reader_waits_for_a_neighbour_for_a_moment_only_and_for_nobody_to_fetch_it() {
    let started = Instant::now();
    let (nearby, _session, _heard) = with_neighbour(2, 64);
    for number in 0..20 {
        nearby.state().note_claims(node(2), &[blob(number)], true, started);
        let asked = |at| is_asked(&nearby, HERE, number, Class::Reader, at);
        assert!(!asked(started));
        assert!(asked(started + READER_WITHIN));
        nearby.answered(node(2), blob(number), false);
        assert!(asked(started));
    }
}

#[test]
fn what_is_under_way_from_the_bridge_goes_on_and_a_new_neighbour_hears_of_it() {
    let started = Instant::now();
    let (nearby, _session, mut heard) = with_neighbour(2, 64);
    let fetched = |at| nearby.over_the_link(HERE, wanted(7, Class::Background), |_| true, at).len() == 1;
    assert!(fetched(started));
    assert!(
        std::iter::from_fn(|| heard.try_recv().ok())
            .any(|said| matches!(said, HostInput::Fetching { begun: true, .. }))
    );
    let (session, mut heard) = mpsc::channel(16);
    nearby.joined(node(3), session);
    assert!(fetched(started));
    assert!(
        std::iter::from_fn(|| heard.try_recv().ok())
            .any(|said| matches!(said, HostInput::Fetching { begun: true, .. }))
    );
}

#[test]
fn what_is_remembered_and_asked_at_a_time_is_bounded() {
    let started = Instant::now();
    let (nearby, _session, _heard) = with_neighbour(2, 4096);
    let all: Vec<Wanted> = (0..DECIDED_MAX as u32 + 500).flat_map(|number| wanted(number, Class::Background)).collect();
    let ask = || nearby.over_the_link(HERE, all.clone(), |_| false, started).len();
    assert_eq!(ask(), 0, "what is not asked yet waits for its turn");
    assert_eq!(nearby.state().wants.len(), QUESTIONS_MAX);
    nearby.answered(node(2), all[0].blob, true);
    assert_eq!((ask(), nearby.state().wants.len()), (0, QUESTIONS_MAX + 1));
    let mut asked = 0;
    while nearby.state().wants.len() < DECIDED_MAX {
        for wanted in &all {
            if nearby.state().wants.get(&wanted.blob).is_some_and(|want| want.answers.contains_key(&node(2))) {
                nearby.state().holders.forget(node(2));
                nearby.answered(node(2), wanted.blob, true);
            }
        }
        asked = ask();
    }
    assert_eq!(asked, 500, "the bridge is asked for what nothing can be decided about");
    assert_eq!(nearby.state().wants.len(), DECIDED_MAX);
    let blobs: Vec<BlobHash> = (0..CLAIMED_MAX as u32 + 500).map(blob).collect();
    nearby.state().note_claims(node(2), &blobs, false, started);
    assert_eq!(nearby.state().claims.len(), CLAIMED_MAX);
}
