//! The pages as a browser gets them, over a catalogue in memory.

mod library;
mod promises;
mod reading;
mod soundness;
