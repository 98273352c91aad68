//! Image analysis: what a picture is, from its bytes alone, within named limits.
//!
//! [`Analyser::analyse`] turns the bytes of one image into an [`Annotation`]: size as displayed, dominant colours, a
//! placeholder, a perceptual hash and the labels of one model. [`Analyser::thumbnail`] turns them into a smaller JPEG.
//! Both are pure and block the thread: the caller decides when, on which thread and how many at a time.
//!
//! What always holds:
//! - Nothing that the bytes say costs more than [`DecodeLimits`] and [`ModelLimits`] allow, and nothing they say panics.
//! - The same bytes, the same model and the same [`Config`] give the same [`Annotation`].
//!
//! Memory, measured (`tests/main.rs`, module `memory`): at most [`PEAK_BYTES_PER_PIXEL`] for each pixel of the image, twice
//! the size of its file, and [`PEAK_BYTES_FIXED`] beside.
//!
//! Not here: files, jobs, storing what was found (the node and the bridge).

#![warn(missing_docs)]

mod analyser;
mod annotation;
mod colours;
mod decode;
mod hashes;
#[cfg(feature = "models")]
mod model;
mod thumbnail;

pub use analyser::{AnalyseError, Analyser, Config, OpenAnalyserError};
pub use analyser::{PEAK_BYTES_FIXED, PEAK_BYTES_PER_PIXEL};
pub use annotation::{Annotation, Label, ModelId};
pub use colours::Rgb;
pub use decode::{DecodeError, DecodeLimits};
pub use hashes::{Placeholder, distance};
#[cfg(feature = "models")]
pub use model::{ClassifyError, ModelLimits, ModelPackage, OpenModelError};
pub use thumbnail::{Jpeg, THUMBNAIL_EDGE_PX_MAX, ThumbnailError};
