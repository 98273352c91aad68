//! One ONNX model that gives an image labels, from a file that is not to be trusted.
//!
//! The backend behind `ort` is called through a C interface: a panic in it ends the process. So a file comes to it only
//! after three steps, each bounded by [`ModelLimits`]:
//! 1. `fields` counts what the file would unfold into, before it is parsed.
//! 2. `graph` reads the parsed file and refuses what the backend cannot survive or what could cost more than it shows.
//! 3. `rehearsal` lets the backend's own engine load, optimise and run it once, where a panic is caught.
//!
//! Not here: which models an operator has installed (the node).

mod fields;
mod graph;
mod rehearsal;

use std::borrow::Cow;
use std::cmp::Ordering;
use std::error::Error;
use std::sync::{Mutex, PoisonError};

use image::{RgbImage, imageops};
use ort::environment::Environment;
use ort::session::Session;
use ort::session::builder::GraphOptimizationLevel;
use ort::value::Tensor;

use crate::annotation::{Label, ModelId};
use graph::InputSize;

/// What a model may cost.
#[derive(Clone, Debug)]
pub struct ModelLimits {
    /// Bytes of the ONNX file.
    pub file_bytes_max: usize,
    /// Strings, messages and blocks of numbers in the file.
    pub fields_max: usize,
    /// Pixels of each edge of the input.
    pub input_edge_px_max: u32,
    /// Classes it tells apart.
    pub classes_max: usize,
    /// Numbers in all tensors together, weights and results.
    pub elements_max: u64,
    /// Multiplications for one image.
    pub multiplications_max: u64,
}

impl Default for ModelLimits {
    /// MobileNet and the like pass: a few seconds for one image on a slow node, 256 MB at the very worst.
    fn default() -> Self {
        Self {
            file_bytes_max: 16 << 20,
            fields_max: 100_000,
            input_edge_px_max: 1024,
            classes_max: 10_000,
            elements_max: 64 << 20,
            multiplications_max: 4_000_000_000,
        }
    }
}

/// A classifier and what its answers mean. Nothing is checked before an [`Analyser`](crate::Analyser) opens it.
///
/// The graph takes one float tensor 1x3xHxW, red, green and blue from 0 to 255, and gives one of 1xCLASSES, from 0 to 1; all
/// shapes are fixed.
#[derive(Clone, Debug)]
pub struct ModelPackage {
    /// Whose labels these are.
    pub id: ModelId,
    /// The names of the classes, in the order of the output.
    pub classes: Vec<String>,
    /// The ONNX file.
    pub onnx: Cow<'static, [u8]>,
}

impl ModelPackage {
    /// The model that this project made: blank, text, cover, diagram or photo. See `models/README.md`.
    pub fn page_kind() -> Self {
        Self {
            id: ModelId { name: "page-kind".into(), version: 1 },
            classes: ["blank", "text", "cover", "diagram", "photo"].map(String::from).to_vec(),
            onnx: Cow::Borrowed(include_bytes!("../models/page-kind.onnx")),
        }
    }
}

/// Why a model is refused.
#[derive(Debug, thiserror::Error)]
pub enum OpenModelError {
    /// Larger than [`ModelLimits::file_bytes_max`].
    #[error("the model has {size_bytes} bytes; the limit is {limit_bytes}")]
    FileTooLarge {
        /// What came.
        size_bytes: usize,
        /// What is allowed.
        limit_bytes: usize,
    },
    /// Not an ONNX file, or one cut off.
    #[error("not a whole ONNX file")]
    NotOnnx,
    /// More than [`ModelLimits::fields_max`].
    #[error("the model has more than {limit} fields")]
    TooManyFields {
        /// What is allowed.
        limit: usize,
    },
    /// A part of ONNX that no classifier here may use.
    #[error("the model uses {what}, which is not supported")]
    Unsupported {
        /// The operator or feature.
        what: String,
    },
    /// Older exporters list the weights as inputs; the backend would abort.
    #[error(
        "the model lists its initializer {name} as an input; export it without (keep_initializers_as_inputs=False)"
    )]
    InitializerIsInput {
        /// The first of them.
        name: String,
    },
    /// An input that is not 1x3xHxW of floats, or not the only one.
    #[error("the model's input is not one float tensor of the fixed shape 1x3xHxW with edges up to {limit_px}")]
    BadInput {
        /// The largest edge allowed.
        limit_px: u32,
    },
    /// An output that is not one score for each class.
    #[error("the model's output is not one float tensor of the fixed shape 1x{classes}")]
    BadOutput {
        /// How many the package names.
        classes: usize,
    },
    /// None, or more than [`ModelLimits::classes_max`].
    #[error("the model has {classes} classes; 1 to {limit} are allowed")]
    BadClasses {
        /// How many the package names.
        classes: usize,
        /// What is allowed.
        limit: usize,
    },
    /// Running it takes more than [`ModelLimits`] allow.
    #[error("the model takes {needed} {what}; the limit is {limit}")]
    TooDear {
        /// Elements or multiplications.
        what: &'static str,
        /// What it needs.
        needed: u64,
        /// What is allowed.
        limit: u64,
    },
    /// The engine refused it.
    #[error("the model does not load")]
    Load {
        /// What the engine says.
        source: Box<dyn Error + Send + Sync>,
    },
    /// The engine panicked over it.
    #[error("the inference engine gave up on the model")]
    EnginePanicked,
    /// It loads by itself, but not in the runtime.
    #[error("open the model in the inference runtime")]
    Runtime(#[from] ort::Error),
}

/// Why a model did not answer.
#[derive(Debug, thiserror::Error)]
pub enum ClassifyError {
    /// The runtime failed.
    #[error("run the model")]
    Run(#[from] ort::Error),
    /// Scores that are no numbers, or too few.
    #[error("the model's answer is not one number for each class")]
    BadAnswer,
}

/// A model ready to run, for one image at a time.
#[derive(Debug)]
pub(crate) struct Classifier {
    id: ModelId,
    classes: Vec<String>,
    input: InputSize,
    session: Mutex<Session>,
}

impl Classifier {
    pub(crate) fn open(package: &ModelPackage, limits: &ModelLimits) -> Result<Self, OpenModelError> {
        let (size_bytes, limit_bytes) = (package.onnx.len(), limits.file_bytes_max);
        if size_bytes > limit_bytes {
            return Err(OpenModelError::FileTooLarge { size_bytes, limit_bytes });
        }
        let classes = package.classes.len();
        if classes == 0 || classes > limits.classes_max {
            return Err(OpenModelError::BadClasses { classes, limit: limits.classes_max });
        }
        fields::check(&package.onnx, limits.fields_max)?;
        let input = rehearsal::rehearse(&package.onnx, classes, limits)?;
        let session = open_session(&package.onnx)?;
        Ok(Self { id: package.id.clone(), classes: package.classes.clone(), input, session: Mutex::new(session) })
    }

    pub(crate) fn id(&self) -> &ModelId {
        &self.id
    }

    /// Every class with its score, best first.
    pub(crate) fn classify(&self, image: &RgbImage) -> Result<Vec<Label>, ClassifyError> {
        let tensor = Tensor::from_array((
            [1, 3, self.input.height as usize, self.input.width as usize],
            planes(image, self.input),
        ))?;
        // A run that failed leaves nothing behind in the session.
        let mut session = self.session.lock().unwrap_or_else(PoisonError::into_inner);
        let outputs = session.run(ort::inputs![tensor])?;
        let (_, scores) = outputs[0].try_extract_tensor::<f32>()?;
        if scores.len() != self.classes.len() || !scores.iter().all(|score| score.is_finite()) {
            return Err(ClassifyError::BadAnswer);
        }
        let mut labels: Vec<Label> = self
            .classes
            .iter()
            .zip(scores)
            .map(|(name, &score)| Label { name: name.clone(), score: score.clamp(0.0, 1.0) })
            .collect();
        labels.sort_by(|a, b| b.score.partial_cmp(&a.score).unwrap_or(Ordering::Equal));
        Ok(labels)
    }
}

/// All reds, then all greens, then all blues, of `image` at the size the model takes.
fn planes(image: &RgbImage, size: InputSize) -> Vec<f32> {
    let small = imageops::resize(image, size.width, size.height, imageops::FilterType::Triangle);
    (0..3).flat_map(|channel| small.pixels().map(move |pixel| f32::from(pixel.0[channel]))).collect()
}

fn open_session(onnx: &[u8]) -> Result<Session, ort::Error> {
    let environment = environment()?;
    // Without a level the backend optimises nothing and takes 2 to 14 times as long.
    let builder = Session::builder(&environment)?.with_optimization_level(GraphOptimizationLevel::Level3);
    let mut builder = builder.map_err(|error| -> ort::Error { error.into() })?;
    builder.commit_from_memory(onnx)
}

/// The runtime allows one environment for each process, and forgets it with its last user: it is kept.
fn environment() -> Result<Environment, ort::Error> {
    static ENVIRONMENT: Mutex<Option<Environment>> = Mutex::new(None);
    let mut kept = ENVIRONMENT.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(environment) = &*kept {
        return Ok(environment.clone());
    }
    // Does nothing if a program has already set another runtime, which is its right.
    ort::set_api(ort_tract::api());
    let environment = ort::init().with_name("alexandria").with_telemetry(false).build()?;
    Ok(kept.insert(environment).clone())
}
