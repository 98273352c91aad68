use std::sync::atomic::AtomicBool;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

fn opened() -> (tempfile::TempDir, Engine) {
    let dir = tempfile::tempdir().unwrap();
    let engine = Engine::open(&dir.path().join("records"), 1 << 20).unwrap();
    (dir, engine)
}

/// Few keys, so that they meet; some sort around the ends of what there is.
fn key() -> impl Strategy<Value = Vec<u8>> {
    vec(prop_oneof![1u8..4, 250u8..255], 1..4)
}

fn value() -> impl Strategy<Value = Option<Vec<u8>>> {
    prop_oneof![
        2 => Just(None),
        5 => (0usize..300, any::<u8>()).prop_map(|(len, byte)| Some(vec![byte; len])),
        1 => (700usize..9000, any::<u8>()).prop_map(|(len, byte)| Some(vec![byte; len])),
    ]
}

fn everything(engine: &Engine) -> Vec<Row> {
    engine.scan(Bound::Unbounded, Bound::Unbounded, Direction::Ascending).map(Result::unwrap).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Whatever is written, by one handle or after it was opened again, reads as from an ordered map: row by row, and in each range
    /// in both directions.
    #[test]
    fn it_reads_as_an_ordered_map_does(batches in vec(vec((key(), value()), 1..40), 1..12), a in key(), b in key()) {
        let (dir, mut engine) = opened();
        let mut model: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
        for (number, batch) in batches.into_iter().enumerate() {
            for (key, value) in &batch {
                match value {
                    Some(value) => drop(model.insert(key.clone(), value.clone())),
                    None => drop(model.remove(key)),
                }
            }
            engine.apply(batch).unwrap();
            if number % 4 == 3 {
                engine.flush().unwrap();
                drop(engine);
                engine = Engine::open(&dir.path().join("records"), 1 << 20).unwrap();
            }
            for (from, to) in [
                (Bound::Unbounded, Bound::Unbounded),
                (Bound::Included(a.clone()), Bound::Unbounded),
                (Bound::Unbounded, Bound::Excluded(a.clone())),
                (Bound::Included(a.clone()), Bound::Included(b.clone())),
                (Bound::Excluded(a.clone()), Bound::Excluded(b.clone())),
            ] {
                let rows = |(key, value): (&Vec<u8>, &Vec<u8>)| (key.clone(), value.clone());
                let within: Vec<Row> = if is_empty(&from, &to) {
                    Vec::new()
                } else {
                    model.range((from.clone(), to.clone())).map(rows).collect()
                };
                let up = engine.scan(from.clone(), to.clone(), Direction::Ascending).map(Result::unwrap);
                prop_assert_eq!(&up.collect::<Vec<_>>(), &within);
                let down = engine.scan(from, to, Direction::Descending).map(Result::unwrap);
                let mut down: Vec<_> = down.collect();
                down.reverse();
                prop_assert_eq!(&down, &within);
            }
            for key in [&a, &b] {
                prop_assert_eq!(engine.get(key).unwrap(), model.get(key).cloned());
                prop_assert_eq!(engine.contains(key).unwrap(), model.contains_key(key));
            }
        }
    }
}

/// Before blocks, each row was one of the tree, and said itself whether its value lies in pieces.
#[test]
fn what_an_earlier_version_wrote_is_read_written_between_and_replaced() {
    let (_dir, engine) = opened();
    let long = vec![7; 2 * PIECE_BYTES + 1];
    {
        let files = engine.files.read();
        let db = &files.as_ref().unwrap().db;
        db.insert(b"ra", [&[0], b"one".as_slice()].concat()).unwrap();
        db.insert(b"rc", vec![1, 0, 3]).unwrap();
        for (number, piece) in (0..).zip(long.chunks(PIECE_BYTES)) {
            db.insert(piece_key(b"rc", number), piece).unwrap();
        }
    }
    let row = |key: &[u8], value: &[u8]| (key.to_vec(), value.to_vec());
    assert_eq!(everything(&engine), [row(b"ra", b"one"), row(b"rc", &long)]);
    let written = ["r", "rb", "rd"].map(|key| (key.as_bytes().to_vec(), Some(b"new".to_vec())));
    engine.apply(written).unwrap();
    assert_eq!(
        everything(&engine),
        [row(b"r", b"new"), row(b"ra", b"one"), row(b"rb", b"new"), row(b"rc", &long), row(b"rd", b"new")]
    );
    assert_eq!(engine.get(b"rc").unwrap(), Some(long));
    engine.apply([(b"rc".to_vec(), None), (b"ra".to_vec(), Some(b"two".to_vec()))]).unwrap();
    assert_eq!(engine.get(b"ra").unwrap().as_deref(), Some(b"two".as_slice()));
    assert_eq!(everything(&engine).len(), 4);
    let files = engine.files.read();
    let pieces = files.as_ref().unwrap().db.scan_prefix([PIECE_TABLE]).count();
    assert_eq!(pieces, 0, "nothing is left of a value that was removed");
}

/// Of a value in pieces that is replaced while it is read, one version or the other is seen, and that is no damage.
#[test]
fn a_value_in_pieces_is_read_whole_while_it_is_replaced() {
    let (_dir, engine) = opened();
    let versions: Vec<Vec<u8>> = (1..6u8).map(|number| vec![number; usize::from(number) * 3000]).collect();
    let put = |version: &Vec<u8>| engine.apply([(b"rx".to_vec(), Some(version.clone()))]).unwrap();
    put(&versions[0]);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for round in 0..2000 {
                put(&versions[round % versions.len()]);
            }
            done.store(true, Ordering::SeqCst);
        });
        while !done.load(Ordering::SeqCst) {
            let read = engine.get(b"rx").unwrap().unwrap();
            assert!(versions.contains(&read), "{} bytes of which some are of another version", read.len());
            assert_eq!(everything(&engine).len(), 1);
        }
    });
    assert!(!engine.is_damaged());
}

/// Blocks are cut and emptied under the feet of who reads on: what was there before and after is told once, in order.
#[test]
fn a_scan_beside_a_writer_tells_each_row_that_stays_once() {
    let (_dir, engine) = opened();
    let key = |number: u32| [b"f".as_slice(), &number.to_be_bytes()].concat();
    let stays: Vec<Vec<u8>> = (0..2000).map(|number| key(number * 2)).collect();
    engine.apply(stays.iter().map(|key| (key.clone(), Some(vec![1; 20])))).unwrap();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for round in 0..40u32 {
                let between = (0..2000).filter(|number| number % 40 == round);
                engine.apply(between.clone().map(|number| (key(number * 2 + 1), Some(vec![2; 200])))).unwrap();
                engine.apply(between.map(|number| (key(number * 2 + 1), None))).unwrap();
            }
            done.store(true, Ordering::SeqCst);
        });
        while !done.load(Ordering::SeqCst) {
            for direction in [Direction::Ascending, Direction::Descending] {
                let told = engine.scan(Bound::Unbounded, Bound::Unbounded, direction).map(|row| row.unwrap().0);
                let mut told: Vec<Vec<u8>> = told.filter(|key| key[4] % 2 == 0).collect();
                if direction == Direction::Descending {
                    told.reverse();
                }
                assert_eq!(told, stays);
            }
        }
    });
}
