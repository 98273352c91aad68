//! Work in the background: taking in files, bundles on sticks, looking at pictures, checking and looking after what is
//! kept, forgetting what was erased.
//!
//! Each job tells its progress as it goes. None of them knows who asked: the command line, a page, or the start of the
//! node.

pub mod align;
pub mod analyse;
pub mod bundle;
pub mod erase;
pub mod import;
pub mod upkeep;
pub mod verify;

pub use bundle::Bundles;
pub use import::{ImportConfig, Importer};
pub use upkeep::UpkeepConfig;
