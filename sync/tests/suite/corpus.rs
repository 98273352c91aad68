//! Every input that the fuzz targets start from, and every one that once broke a promise, kept in `sync/fuzz/corpus`: handed to
//! the same functions, without the fuzzer.

use std::path::Path;
use std::{env, fs, panic};

use alexandria_sync::sim::Seeded;

#[path = "../../fuzz/src/lib.rs"]
#[expect(unreachable_pub, reason = "the fuzz targets, a crate of their own, use it too")]
mod targets;

/// The kept inputs of a target, by their file names, in order.
fn inputs(name: &str) -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(name);
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("no inputs for {name}: {error}"));
    let mut inputs: Vec<_> = entries
        .map(|entry| entry.expect("it can be listed").path())
        .map(|path| (path.display().to_string(), fs::read(&path).expect("it can be read")))
        .collect();
    inputs.sort();
    assert!(!inputs.is_empty(), "no inputs for {name}");
    inputs
}

#[test]
fn no_kept_input_breaks_a_promise() {
    for (name, target) in targets::TARGETS {
        for (path, input) in inputs(name) {
            // Shown when one of them panics.
            println!("{path}");
            target(&input);
        }
    }
}

/// A little of what the fuzzer does, where there is none: kept inputs with some bytes changed, put in or left out, and joined
/// with others. `ALEXANDRIA_FUZZ_ROUNDS` for more than a hundred for each input.
#[test]
fn no_input_like_a_kept_one_breaks_a_promise() {
    let number = |name: &str, otherwise| env::var(name).map_or(otherwise, |text| text.parse().expect("it is a number"));
    let seed = number("ALEXANDRIA_SEED", u64::from(std::process::id()));
    println!("seed {seed} (repeat with ALEXANDRIA_SEED={seed})");
    let mut rng = Seeded::new(seed);
    for (name, target) in targets::TARGETS {
        let inputs = inputs(name);
        for _ in 0..number("ALEXANDRIA_FUZZ_ROUNDS", 100) * inputs.len() as u64 {
            let mut input = rng.pick(&inputs).expect("there are some").1.clone();
            for _ in 0..=rng.below(6) {
                change(&mut input, &inputs, &mut rng);
            }
            let shown = hex::encode(&input);
            let outcome = panic::catch_unwind(panic::AssertUnwindSafe(|| target(&input)));
            assert!(outcome.is_ok(), "{name} breaks its promise for {shown}");
        }
    }
}

fn change(input: &mut Vec<u8>, inputs: &[(String, Vec<u8>)], rng: &mut Seeded) {
    const EDGES: [u8; 12] = [0, 1, 23, 24, 0x18, 0x1b, 0x7f, 0x80, 0x9f, 0xbf, 0xf6, 0xff];
    let at = rng.below(input.len() as u64 + 1) as usize;
    let byte = if rng.chance(50) { EDGES[rng.below(EDGES.len() as u64) as usize] } else { rng.below(256) as u8 };
    match rng.below(6) {
        0 | 1 if at < input.len() => input[at] = byte,
        2 if at < input.len() => input[at] ^= 1 << rng.below(8),
        3 => input.truncate(at),
        4 => {
            let other = &rng.pick(inputs).expect("there are some").1;
            let from = rng.below(other.len() as u64 + 1) as usize;
            input.truncate(at);
            input.extend_from_slice(&other[from..]);
        }
        _ => {
            let len = rng.below(8) as usize;
            let noise = rng.noise(len);
            input.splice(at..at, noise);
        }
    }
}

/// A target that is not built is not fuzzed.
#[test]
fn every_function_has_its_fuzz_target() {
    let manifest =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/Cargo.toml")).expect("it is there");
    for (name, _) in targets::TARGETS {
        assert!(manifest.contains(&format!("[[bin]]\nname = \"{name}\"\n")), "{name}");
    }
}
