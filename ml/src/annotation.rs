//! What is said about an image: the words of this crate's answers.
//!
//! Not here: how it is found out (`analyser`), how it is stored and replicated (the node).

use crate::colours::Rgb;
use crate::hashes::Placeholder;

/// What was found out about one image.
#[derive(Clone, Debug, PartialEq)]
pub struct Annotation {
    /// Width as displayed, the orientation applied.
    pub width_px: u32,
    /// Height as displayed, the orientation applied.
    pub height_px: u32,
    /// The EXIF orientation that the file asks for, 1 (as stored) to 8; everything here has it applied.
    pub orientation: u8,
    /// The most frequent colours, the most frequent first; transparent counts as white.
    pub dominant_colours: Vec<Rgb>,
    /// A few bytes that a page can show until the image has come.
    pub placeholder: Placeholder,
    /// Near in bits ([`distance`](crate::distance)) means alike to look at.
    pub perceptual_hash: u64,
    /// What the model says, best first.
    pub labels: Vec<Label>,
    /// Who says it; `None` if there is no model.
    pub model: Option<ModelId>,
}

/// One class that a model gives an image.
#[derive(Clone, Debug, PartialEq)]
pub struct Label {
    /// The class, as its package names it.
    pub name: String,
    /// 0 to 1.
    pub score: f32,
}

/// Which model spoke, so that another version's labels can be told apart and replaced.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct ModelId {
    /// Such as `page-kind`.
    pub name: String,
    /// Grows with every release of the model.
    pub version: u32,
}
