//! The one way through: decode once, shrink once, look at the small copy from every side.
//!
//! Not here: how each thing is found (`decode`, `colours`, `hashes`, `model`, `thumbnail`).

use image::RgbImage;

use crate::annotation::{Annotation, Label, ModelId};
use crate::colours::dominant_colours;
use crate::decode::{DecodeError, DecodeLimits, decode, over_white};
use crate::hashes::{Placeholder, perceptual_hash};
#[cfg(feature = "models")]
use crate::model::{Classifier, ClassifyError, ModelLimits, ModelPackage, OpenModelError};
use crate::thumbnail::{Jpeg, ThumbnailError, thumbnail};

/// The longer edge of the copy that everything but the size is found on. Large enough for a model's input and for text to
/// look like text, small enough to forget about.
const WORKING_EDGE_PX: u32 = 384;

/// Bytes held at the peak for each pixel of the worst kind of image (16-bit with alpha; a progressive JPEG takes 5).
pub const PEAK_BYTES_PER_PIXEL: u64 = 9;

/// Bytes held at the peak whatever the image: the engine's code, the model, the small copy.
pub const PEAK_BYTES_FIXED: u64 = 48 << 20;

/// What an [`Analyser`] allows itself and looks for.
#[derive(Clone, Debug)]
pub struct Config {
    /// What decoding may cost.
    pub decode: DecodeLimits,
    /// At most so many dominant colours.
    pub dominant_colours_max: usize,
    /// At most so many labels, the best ones.
    pub labels_max: usize,
    /// Labels that score less are not worth keeping; 0 to 1.
    pub label_score_min: f32,
    /// What a model package may cost.
    #[cfg(feature = "models")]
    pub model_limits: ModelLimits,
    /// The model that labels, or none.
    #[cfg(feature = "models")]
    pub model: Option<ModelPackage>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            decode: DecodeLimits::default(),
            dominant_colours_max: 5,
            labels_max: 5,
            label_score_min: 0.2,
            #[cfg(feature = "models")]
            model_limits: ModelLimits::default(),
            #[cfg(feature = "models")]
            model: Some(ModelPackage::page_kind()),
        }
    }
}

/// Why there is no [`Analyser`].
#[derive(Debug, thiserror::Error)]
pub enum OpenAnalyserError {
    /// A score lies between 0 and 1.
    #[error("label_score_min is {0}, which is not between 0 and 1")]
    BadScore(f32),
    /// The model was refused or cannot run here.
    #[cfg(feature = "models")]
    #[error("open the model {}", model.name)]
    Model {
        /// Which one.
        model: ModelId,
        /// Why.
        source: OpenModelError,
    },
}

/// Why an image has no annotation.
#[derive(Debug, thiserror::Error)]
pub enum AnalyseError {
    /// The file is at fault; trying again does not help.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// The model is at fault.
    #[cfg(feature = "models")]
    #[error(transparent)]
    Classify(#[from] ClassifyError),
}

/// Looks at images. Shared freely between threads; the model runs for one of them at a time.
#[derive(Debug)]
pub struct Analyser {
    config: Config,
    #[cfg(feature = "models")]
    classifier: Option<Classifier>,
}

impl Analyser {
    /// Checks `config` and opens its model.
    ///
    /// # Errors
    ///
    /// If a setting makes no sense, or the model is refused.
    pub fn new(config: Config) -> Result<Self, OpenAnalyserError> {
        if !(0.0..=1.0).contains(&config.label_score_min) {
            return Err(OpenAnalyserError::BadScore(config.label_score_min));
        }
        #[cfg(feature = "models")]
        let classifier = match &config.model {
            Some(package) => Some(
                Classifier::open(package, &config.model_limits)
                    .map_err(|source| OpenAnalyserError::Model { model: package.id.clone(), source })?,
            ),
            None => None,
        };
        Ok(Self {
            config,
            #[cfg(feature = "models")]
            classifier,
        })
    }

    /// Everything that can be said about the image in `bytes`.
    ///
    /// # Errors
    ///
    /// [`AnalyseError::Decode`] for what is no whole image within the limits.
    pub fn analyse(&self, bytes: &[u8]) -> Result<Annotation, AnalyseError> {
        let picture = decode(bytes, &self.config.decode)?;
        let (width_px, height_px, orientation) = (picture.width_px(), picture.height_px(), picture.exif_orientation());
        let small = picture.fit(WORKING_EDGE_PX);
        drop(picture);
        let opaque = over_white(&small);
        let (labels, model) = self.labels(&opaque)?;
        Ok(Annotation {
            width_px,
            height_px,
            orientation,
            dominant_colours: dominant_colours(&opaque, self.config.dominant_colours_max),
            placeholder: Placeholder::of(&small),
            perceptual_hash: perceptual_hash(opaque),
            labels,
            model,
        })
    }

    /// A JPEG of the image in `bytes`, oriented, its longer edge at most `max_edge_px`. Small images stay as small as they are.
    ///
    /// # Errors
    ///
    /// If the edge is 0 or past [`THUMBNAIL_EDGE_PX_MAX`](crate::THUMBNAIL_EDGE_PX_MAX), or the bytes are no whole image.
    pub fn thumbnail(&self, bytes: &[u8], max_edge_px: u32) -> Result<Jpeg, ThumbnailError> {
        thumbnail(bytes, max_edge_px, &self.config.decode)
    }

    #[cfg(feature = "models")]
    fn labels(&self, image: &RgbImage) -> Result<(Vec<Label>, Option<ModelId>), AnalyseError> {
        let Some(classifier) = &self.classifier else { return Ok((Vec::new(), None)) };
        let mut labels = classifier.classify(image)?;
        labels.retain(|label| label.score >= self.config.label_score_min);
        labels.truncate(self.config.labels_max);
        Ok((labels, Some(classifier.id().clone())))
    }

    #[cfg(not(feature = "models"))]
    #[expect(clippy::unnecessary_wraps, clippy::unused_self, reason = "the same signature as with models")]
    fn labels(&self, _image: &RgbImage) -> Result<(Vec<Label>, Option<ModelId>), AnalyseError> {
        Ok((Vec::new(), None))
    }
}
