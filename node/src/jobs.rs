//! Work in the background: taking in files, looking at pictures, checking and looking after what is kept.
//!
//! Each job tells its progress as it goes. None of them knows who asked: the command line, a page, or the start of the
//! node.

pub mod align;
pub mod analyse;
pub mod import;
pub mod upkeep;
pub mod verify;

pub use import::{ImportConfig, Importer};
pub use upkeep::UpkeepConfig;
