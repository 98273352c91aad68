"""Writes the trained classifier as ONNX and runs it, as any other program would, to compare.

The file has one input `image` (float32, 1x3xEDGExEDGE, RGB, 0 to 255) and one output `prob` (float32, 1xKINDS, adding up
to 1). Shapes are fixed, weights are initializers and never listed as inputs: the pure-Rust backend needs both.
"""
import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

EPSILON = 1e-5
OPSET = 13


class Graph:
    """Collects nodes and initializers; every method returns the name of its result."""

    def __init__(self):
        self.nodes, self.initializers = [], []

    def constant(self, name, values):
        self.initializers.append(numpy_helper.from_array(np.ascontiguousarray(values, np.float32), name))
        return name

    def node(self, kind, inputs, result, **attributes):
        self.nodes.append(helper.make_node(kind, inputs, [result], name=result, **attributes))
        return result

    def convolution(self, x, name, weights, bias, stride, groups):
        edge = weights.shape[2]
        border = edge // 2
        inputs = [x, self.constant(f"{name}.weight", weights), self.constant(f"{name}.bias", bias)]
        x = self.node("Conv", inputs, name, kernel_shape=[edge, edge], strides=[stride, stride], pads=[border] * 4, group=groups)
        return self.node("Relu", [x], f"{name}.relu")


def folded(layer, moments):
    """The factor and the offset, for each channel, that normalisation after a convolution comes down to."""
    mean, variance = moments
    factor = layer["scale"] / np.sqrt(variance + EPSILON)
    return factor, layer["shift"] - mean * factor


def write(path, weights, seen, strides, edge):
    graph, seen = Graph(), iter(seen)
    x = graph.node("Div", ["image", graph.constant("half", [127.5])], "scaled")
    x = graph.node("Sub", [x, graph.constant("one", [1.0])], "centred")
    factor, offset = folded(weights["first"], next(seen))
    kernel = (weights["first"]["w"] * factor).reshape(3, 3, 3, -1).transpose(3, 2, 0, 1)
    x = graph.convolution(x, "first", kernel, offset, 2, 1)
    for i, (block, stride) in enumerate(zip(weights["blocks"], strides)):
        factor, offset = folded(block["deep"], next(seen))
        kernel = (block["deep"]["w"] * factor).reshape(3, 3, 1, -1).transpose(3, 2, 0, 1)
        x = graph.convolution(x, f"block{i}.deep", kernel, offset, stride, len(kernel))
        factor, offset = folded(block["point"], next(seen))
        kernel = (block["point"]["w"] * factor).T[:, :, None, None]
        x = graph.convolution(x, f"block{i}.point", kernel, offset, 1, 1)
    mean, peak = graph.node("GlobalAveragePool", [x], "mean"), graph.node("GlobalMaxPool", [x], "peak")
    x = graph.node("Flatten", [graph.node("Concat", [mean, peak], "both", axis=1)], "features", axis=1)
    head = weights["head"]
    x = graph.node("Gemm", [x, graph.constant("head.weight", head["w"]), graph.constant("head.bias", head["b"])], "logits")
    graph.node("Softmax", [x], "prob", axis=1)

    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, edge, edge])
    prob = helper.make_tensor_value_info("prob", TensorProto.FLOAT, [1, head["b"].shape[0]])
    model = helper.make_model(
        helper.make_graph(graph.nodes, "page-kind", [image], [prob], graph.initializers),
        opset_imports=[helper.make_opsetid("", OPSET)],
        producer_name="alexandria",
    )
    model.ir_version = 8
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)


def run(path, pixels):
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    images = pixels.transpose(0, 3, 1, 2).astype(np.float32)
    return np.concatenate([session.run(["prob"], {"image": image[None]})[0] for image in images])
