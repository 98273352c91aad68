//! What image analysis found about a picture.

use serde::{Deserialize, Serialize};

use super::kind_table::kind_table;
use super::{InvalidField, check_entries};
use crate::chunk::BlobHash;
use crate::id::RecordId;

/// A name that a model gave, and how sure it was.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, minicbor::Encode, minicbor::Decode)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
#[cbor(map)]
pub struct Label {
    /// What it is called.
    #[n(0)]
    pub name: String,
    /// From 0 to 1.
    #[n(1)]
    pub score: f32,
}

kind_table! {
    /// What analysis found in one blob. Lives in the bucket of the medium that shows it.
    Annotation = 10 "annotation" {
        /// The medium that shows the picture.
        1 lww media: RecordId,
        /// The picture.
        2 lww blob: Option<BlobHash>,
        /// Width in pixels, upright.
        3 lww width_px: u32,
        /// Height in pixels, upright.
        4 lww height_px: u32,
        /// Dominant colours as 0xRRGGBB, most frequent first.
        5 lww dominant_colours: Vec<u32>,
        /// A placeholder to show while the picture loads, as a data-free hash string.
        6 lww placeholder: String,
        /// 64-bit perceptual hash; near pictures differ in few bits.
        7 lww perceptual_hash: u64,
        /// What the model saw.
        8 lww labels: Vec<Label>,
        /// The model, as "name version"; empty if none ran.
        9 lww model: String,
    }
}

impl Annotation {
    /// The id of the annotation of `blob` as shown by `media`.
    pub fn record_id(media: RecordId, blob: BlobHash) -> RecordId {
        RecordId::derived(&[b"annotation", media.as_bytes(), blob.as_bytes()])
    }

    fn check(&self) -> Result<(), InvalidField> {
        check_entries("dominant_colours", &self.dominant_colours)?;
        check_entries("labels", &self.labels)
    }
}
