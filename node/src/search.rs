//! Full-text search over titles, names, descriptions and languages.
//!
//! The index is a reader of the feeds like any other: it remembers how far it has read each bucket, in the same commit as
//! what it read, so a restart goes on where it stood. It can always be built again from the store; an index
//! that is damaged, of another layout or of another epoch is thrown away and rebuilt.
//!
//! - [`Search`]: the index, and finding things in it.
//! - [`follow`]: keeps it up with the store.
//! - `words`: from text to the words that are indexed and looked for.

pub mod follow;
mod index;
mod words;

pub use index::{Indexed, Search, SearchError};
