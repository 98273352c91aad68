//! What the command line and the node say to each other about collections and pins.

use serde::{Deserialize, Serialize};

pub use crate::library::selection::{CollectionState, Level, Phase, SelectionStatus};

/// Choose how much of a collection is kept.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct ChooseRequest {
    /// Its id or its title.
    pub collection: String,
    /// How much.
    pub level: Level,
}

/// Pin a medium or a collection, or take its pin back.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct PinRequest {
    /// Its id, or the title of a collection.
    pub named: String,
    /// Whether it is to be pinned.
    pub pinned: bool,
}

/// What came of it.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct PinAnswer {
    /// What it is called.
    pub title: String,
    /// Whether that changed anything.
    pub changed: bool,
}
