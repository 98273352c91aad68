//! The first night of a model, where a fall hurts nobody.
//!
//! Loads, measures, optimises and runs it in the engine that `ort-tract` wraps, with the same steps, but called from Rust:
//! whatever panics here is caught and refuses the model. What got through here once does the same in the runtime.
//!
//! Not here: what can be told from the file alone (`graph`).

use std::panic::{AssertUnwindSafe, catch_unwind};

use tract_onnx::prelude::{Datum, Framework, InferenceModelExt, TDim, Tensor, TractError, TypedFact, TypedModel, tvec};
use tract_onnx::tract_core::model::IntoRunnable;
use tract_onnx::tract_hir::infer::Factoid;

use super::graph::{self, InputSize};
use super::{ModelLimits, OpenModelError};

/// Runs the model once on nothing, and returns what it wants to see.
pub(super) fn rehearse(onnx: &[u8], classes: usize, limits: &ModelLimits) -> Result<InputSize, OpenModelError> {
    catch_unwind(AssertUnwindSafe(|| run_once(onnx, classes, limits))).unwrap_or(Err(OpenModelError::EnginePanicked))
}

fn run_once(mut onnx: &[u8], classes: usize, limits: &ModelLimits) -> Result<InputSize, OpenModelError> {
    let engine = tract_onnx::onnx();
    let file = engine.proto_model_for_read(&mut onnx).map_err(|_| OpenModelError::NotOnnx)?;
    let input = graph::check(&file, classes, limits)?;

    let mut model = engine.parse(&file, None).map_err(refused)?.model;
    drop(file);
    // Shapes first: what they add up to is known before anything of that size is made.
    model.analyse(false).map_err(refused)?;
    let mut elements = 0;
    for output in model.nodes().iter().flat_map(|node| &node.outputs) {
        elements += output.fact.shape.concretize().and_then(|shape| volume(&shape)).ok_or_else(unknown_shape)?;
        dear("elements", elements, limits.elements_max)?;
    }

    let model = model.into_optimized().map_err(refused)?;
    measure(&model, limits)?;
    let shape = [1, 3, input.height as usize, input.width as usize];
    let answer =
        model.into_runnable().and_then(|plan| plan.run(tvec![Tensor::zero::<f32>(&shape)?.into()])).map_err(refused)?;
    match answer.as_slice() {
        [scores] if scores.shape() == [1, classes] && scores.datum_type() == f32::datum_type() => Ok(input),
        _ => Err(OpenModelError::BadOutput { classes }),
    }
}

/// Holds the optimised model, which is what will run, against the limits.
fn measure(model: &TypedModel, limits: &ModelLimits) -> Result<(), OpenModelError> {
    let (mut elements, mut multiplications) = (0u64, 0u64);
    for node in model.nodes() {
        for output in &node.outputs {
            elements = elements.saturating_add(volume(&output.fact.shape.to_tvec()).ok_or_else(unknown_shape)?);
        }
        let inputs: Vec<&TypedFact> = model.node_input_facts(node.id).map_err(refused)?.into_iter().collect();
        for (kind, count) in node.op.cost(&inputs).map_err(refused)? {
            if kind.is_compute() {
                let count =
                    count.to_i64().ok().and_then(|count| u64::try_from(count).ok()).ok_or_else(unknown_shape)?;
                multiplications = multiplications.saturating_add(count);
            }
        }
    }
    dear("elements", elements, limits.elements_max)?;
    dear("multiplications", multiplications, limits.multiplications_max)
}

fn dear(what: &'static str, needed: u64, limit: u64) -> Result<(), OpenModelError> {
    if needed > limit { Err(OpenModelError::TooDear { what, needed, limit }) } else { Ok(()) }
}

fn volume(shape: &[TDim]) -> Option<u64> {
    shape.iter().try_fold(1u64, |volume, length| volume.checked_mul(u64::try_from(length.to_i64().ok()?).ok()?))
}

fn refused(error: TractError) -> OpenModelError {
    OpenModelError::Load { source: error.into() }
}

fn unknown_shape() -> OpenModelError {
    OpenModelError::Unsupported { what: "a shape that is not fixed".into() }
}
