//! What a parsed ONNX file says, held against what a classifier may say.
//!
//! Refused is what the backend is known not to survive (weights listed as inputs, names with a NUL, shapes that are not
//! fixed), what reaches outside the file, and every operator whose result can be far larger than its inputs or that runs
//! others. Results of weights alone are computed while loading, before anything can be measured: there only operators
//! that keep the size are allowed.
//!
//! Not here: shapes inside the graph (`rehearsal`).

use std::collections::{HashMap, HashSet};

use tract_onnx::pb::tensor_shape_proto::dimension::Value::DimValue;
use tract_onnx::pb::type_proto::Value::TensorType;
use tract_onnx::pb::{AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto};

use super::{ModelLimits, OpenModelError};

/// ONNX's number for 32-bit floats, `TensorProto.FLOAT`.
const FLOAT: i32 = 1;
/// ONNX's number for tensors kept in other files, `TensorProto.EXTERNAL`.
const EXTERNAL: i32 = 1;
/// Kernels, strides, paddings, axes: nothing in a classifier is larger, and with larger ones a small file asks for huge results.
const ATTRIBUTE_MAX: u64 = 1024;

/// What keeps the size of its first input.
const SAME_SIZE: &[&str] = &[
    "Cast",
    "Constant",
    "DequantizeLinear",
    "Dropout",
    "Flatten",
    "Identity",
    "Reshape",
    "Squeeze",
    "Transpose",
    "Unsqueeze",
];
/// What else a classifier is made of.
const LAYERS: &[&str] = &[
    "Add",
    "AveragePool",
    "BatchNormalization",
    "Clip",
    "Concat",
    "Conv",
    "Div",
    "Elu",
    "Gemm",
    "GlobalAveragePool",
    "GlobalMaxPool",
    "HardSigmoid",
    "HardSwish",
    "LeakyRelu",
    "LRN",
    "MatMul",
    "MaxPool",
    "Mul",
    "PRelu",
    "ReduceMax",
    "ReduceMean",
    "Relu",
    "Sigmoid",
    "Softmax",
    "Sub",
    "Tanh",
];

/// What the model wants to see.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct InputSize {
    pub(super) width: u32,
    pub(super) height: u32,
}

/// Checks everything that can be told without running anything.
pub(super) fn check(model: &ModelProto, classes: usize, limits: &ModelLimits) -> Result<InputSize, OpenModelError> {
    let graph = model.graph.as_ref().ok_or(OpenModelError::NotOnnx)?;
    let weights: HashMap<&str, u64> = graph
        .initializer
        .iter()
        .map(|tensor| Ok((tensor.name.as_str(), elements_of(tensor, limits)?)))
        .collect::<Result<_, OpenModelError>>()?;
    if let Some(input) = graph.input.iter().find(|input| weights.contains_key(input.name.as_str())) {
        return Err(OpenModelError::InitializerIsInput { name: input.name.clone() });
    }
    let size = input_size(graph, limits)?;
    check_output(graph, classes)?;
    check_nodes(graph, weights, limits)?;
    Ok(size)
}

fn input_size(graph: &GraphProto, limits: &ModelLimits) -> Result<InputSize, OpenModelError> {
    let limit_px = limits.input_edge_px_max;
    let edge = |length: i64| u32::try_from(length).ok().filter(|edge| (1..=limit_px).contains(edge));
    let size = match graph.input.as_slice() {
        [image] if is_plain(&image.name) => match fixed_floats(image).as_deref() {
            Some(&[1, 3, height, width]) => edge(width).zip(edge(height)),
            _ => None,
        },
        _ => None,
    };
    size.map(|(width, height)| InputSize { width, height }).ok_or(OpenModelError::BadInput { limit_px })
}

fn check_output(graph: &GraphProto, classes: usize) -> Result<(), OpenModelError> {
    let scores = i64::try_from(classes).unwrap_or(i64::MAX);
    match graph.output.as_slice() {
        [output] if is_plain(&output.name) && fixed_floats(output).is_some_and(|shape| shape == [1, scores]) => {
            let is_made = graph.node.iter().any(|node| node.output.contains(&output.name));
            if is_made { Ok(()) } else { Err(OpenModelError::BadOutput { classes }) }
        }
        _ => Err(OpenModelError::BadOutput { classes }),
    }
}

/// The backend turns names into C strings and ends the process over those that cannot be.
fn is_plain(name: &str) -> bool {
    !name.is_empty() && !name.contains('\0')
}

fn fixed_floats(value: &ValueInfoProto) -> Option<Vec<i64>> {
    let TensorType(tensor) = value.r#type.as_ref()?.value.as_ref()?;
    if tensor.elem_type != FLOAT {
        return None;
    }
    let length = |value: &_| if let Some(DimValue(length)) = value { Some(*length) } else { None };
    tensor.shape.as_ref()?.dim.iter().map(|dimension| length(&dimension.value)).collect()
}

/// `constants` are the weights, and how many numbers each has.
fn check_nodes<'a>(
    graph: &'a GraphProto,
    mut constants: HashMap<&'a str, u64>,
    limits: &ModelLimits,
) -> Result<(), OpenModelError> {
    // ONNX wants nodes in the order they run in; in any other this would miss constants, so it is refused.
    let mut known: HashSet<&str> =
        constants.keys().copied().chain(graph.input.iter().map(|input| input.name.as_str())).collect();
    let mut elements = constants.values().fold(0u64, |sum, count| sum.saturating_add(*count));
    for node in &graph.node {
        let own_elements = check_node(node, limits)?;
        let inputs = || node.input.iter().map(String::as_str).filter(|name| !name.is_empty());
        if let Some(name) = inputs().find(|name| !known.contains(name)) {
            return Err(OpenModelError::Unsupported { what: format!("{name} before it is there") });
        }
        if inputs().all(|name| constants.contains_key(name)) {
            if !SAME_SIZE.contains(&node.op_type.as_str()) {
                return Err(OpenModelError::Unsupported { what: format!("{} of weights alone", node.op_type) });
            }
            let count = inputs().filter_map(|name| constants.get(name).copied()).fold(own_elements, u64::max);
            for output in &node.output {
                elements = elements.saturating_add(count);
                constants.insert(output, count);
            }
        }
        if elements > limits.elements_max {
            return Err(OpenModelError::TooDear { what: "elements", needed: elements, limit: limits.elements_max });
        }
        for output in node.output.iter().filter(|name| !name.is_empty()) {
            if !known.insert(output) {
                return Err(OpenModelError::Unsupported { what: format!("{output} twice") });
            }
        }
    }
    Ok(())
}

/// Checks the operator and returns how many numbers its attributes hold.
fn check_node(node: &NodeProto, limits: &ModelLimits) -> Result<u64, OpenModelError> {
    let operator = node.op_type.as_str();
    let is_standard = node.domain.is_empty() || node.domain == "ai.onnx";
    if !is_standard || !(SAME_SIZE.contains(&operator) || LAYERS.contains(&operator)) {
        return Err(OpenModelError::Unsupported { what: format!("the operator {operator}") });
    }
    node.attribute.iter().try_fold(1, |elements: u64, attribute| {
        Ok(elements.saturating_add(check_attribute(operator, attribute, limits)?))
    })
}

fn check_attribute(operator: &str, attribute: &AttributeProto, limits: &ModelLimits) -> Result<u64, OpenModelError> {
    let numbers = attribute.ints.iter().chain([&attribute.i]);
    if numbers.into_iter().any(|number| number.unsigned_abs() > ATTRIBUTE_MAX) {
        return Err(OpenModelError::Unsupported { what: format!("a number past {ATTRIBUTE_MAX} in {operator}") });
    }
    let own = (attribute.ints.len() + attribute.floats.len()) as u64;
    let mut tensors = attribute.t.iter().chain(&attribute.tensors);
    tensors.try_fold(own, |elements, tensor| Ok(elements.saturating_add(elements_of(tensor, limits)?)))
}

fn elements_of(tensor: &TensorProto, limits: &ModelLimits) -> Result<u64, OpenModelError> {
    if tensor.data_location == Some(EXTERNAL) || !tensor.external_data.is_empty() {
        return Err(OpenModelError::Unsupported { what: format!("weights outside the file ({})", tensor.name) });
    }
    let elements =
        tensor.dims.iter().try_fold(1u64, |elements, &length| elements.checked_mul(u64::try_from(length).ok()?));
    elements
        .filter(|&elements| elements <= limits.elements_max)
        .ok_or_else(|| OpenModelError::Unsupported { what: format!("an impossible shape ({})", tensor.name) })
}
