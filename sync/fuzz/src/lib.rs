//! What must hold for whatever bytes a peer sends, or a stick brings: one function for each decoder, for a whole session, and for
//! files of bundles.
//!
//! Each takes the bytes that a fuzzer made up, and panics if a promise is broken. `fuzz_targets/` hands them to libFuzzer
//! (`tests/fuzz`); the crate's own tests run them over every file of `corpus/`, so that what was found once stays found.

mod bundles;
mod conversation;
mod decoders;
mod patches;
mod script;

pub use bundles::{bundle, receipt};
pub use conversation::session;
pub use decoders::{certificate, frame, have, manifest, merge, message, name, record};
pub use patches::patch;

/// A function and its name.
pub type Target = (&'static str, fn(&[u8]));

/// Every function, by the name of its fuzz target and of its folder in `corpus/`.
pub const TARGETS: [Target; 12] = [
    ("bundle", bundle),
    ("certificate", certificate),
    ("frame", frame),
    ("have", have),
    ("manifest", manifest),
    ("merge", merge),
    ("message", message),
    ("name", name),
    ("patch", patch),
    ("receipt", receipt),
    ("record", record),
    ("session", session),
];
