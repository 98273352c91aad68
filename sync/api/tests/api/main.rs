//! The API over a catalogue in memory, through its router, as a client sees it.

mod blobs;
mod changes;
mod client;
mod lists;
mod memory;
mod patches;
mod problems;
mod records;
