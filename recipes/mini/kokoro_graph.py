"""Kokoro's 8-bit graph with its convolutions as matrix products: the same samples, bit for bit, in a quarter less time.

ONNX Runtime's ConvInteger is slow. A convolution over time with K taps and dilation D is one product of the input,
K times beside itself, with the weights as [K * channels, outputs]:

    y[t] = sum over k of W[k] x[t + k D - padding]  =  [x[t - padding], x[t + D - padding], ...] W

MatMulInteger computes it, fastest with signed weights; w - 128 with zero point z - 128 is the same integer as w with z.
But on processors without VNNI (before Intel's Ice Lake and AMD's Zen 4), ONNX Runtime adds two products of signed
weights in 16 bits, which overflow without a word: there the weights stay unsigned.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

OPEN_END = 2**62


@functools.cache
def multiplies_signed() -> bool:
    """Try whether this processor multiplies signed weights exactly, on the largest numbers there are."""
    import onnxruntime
    from onnx import TensorProto, helper, numpy_helper

    weight = np.full((64, 64), 127, np.int8)
    x, y = (
        helper.make_tensor_value_info(name, kind, [64, 64])
        for name, kind in (("x", TensorProto.UINT8), ("y", TensorProto.INT32))
    )
    product = helper.make_node("MatMulInteger", ["x", "w"], ["y"])
    graph = helper.make_graph([product], "product", [x], [y], [numpy_helper.from_array(weight, "w")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"x": np.full((64, 64), 255, np.uint8)})
    return bool((found == 64 * 127 * 255).all())


def rewritten(path: Path, outputs: Sequence[str] = ()) -> bytes:
    """Replace every plain one-dimensional ConvInteger of the model, and serialize it.

    ``outputs`` names the values inside that are wanted instead of the model's own; nothing else is then computed.
    """
    import onnx
    from onnx import numpy_helper

    model = onnx.load(str(path))
    graph = model.graph
    if outputs:
        keep_what_makes(graph, outputs)
    weights = {tensor.name: tensor for tensor in graph.initializer}
    nodes: list[Any] = []
    constants = {"axis_of_time": np.array([1])}
    for node in graph.node:
        attributes = {item.name: onnx.helper.get_attribute_value(item) for item in node.attribute}
        plain = attributes.get("group", 1) == 1 and attributes.get("strides", [1]) == [1]
        if node.op_type == "ConvInteger" and plain and len(attributes["kernel_shape"]) == 1:
            _, weight, _, zero = node.input
            values = numpy_helper.to_array(weights[weight])
            nodes += as_product(node, attributes, values, numpy_helper.to_array(weights[zero]), constants)
        else:
            nodes.append(node)
    used = {name for node in nodes for name in node.input}
    kept = [tensor for tensor in graph.initializer if tensor.name in used]
    kept += [numpy_helper.from_array(value, name) for name, value in constants.items()]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(nodes)
    graph.initializer.extend(kept)
    return model.SerializeToString()


def keep_what_makes(graph: Any, outputs: Sequence[str]) -> None:
    """Leave of a graph what it takes to compute some of its values."""
    from onnx import TensorProto, helper

    wanted, kept = set(outputs), []
    for node in reversed(graph.node):
        if wanted.intersection(node.output):
            kept.append(node)
            wanted.update(node.input)
    del graph.node[:], graph.output[:]
    graph.node.extend(reversed(kept))
    graph.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs)


def as_product(
    node: Any, attributes: dict[str, Any], weight: np.ndarray, zero: np.ndarray, constants: dict[str, np.ndarray]
) -> list[Any]:
    """Nodes that compute what ``node``, a ConvInteger with unsigned weights, does; their constants are added."""
    from onnx import helper

    x, name, x_zero, _ = node.input
    y = node.output[0]
    (taps,), (dilation,) = attributes["kernel_shape"], attributes.get("dilations", [1])
    before, after = attributes.get("pads", [0, 0])
    offset, kind = (128, np.int8) if multiplies_signed() else (0, np.uint8)
    moved = (weight.astype(np.int16) - offset).astype(kind)  # [outputs, channels, taps]
    constants[f"{name}_product"] = np.ascontiguousarray(moved.transpose(2, 1, 0).reshape(-1, len(moved)))
    constants[f"{name}_product_zero"] = np.array(int(zero) - offset, kind)
    nodes, current = [helper.make_node("Transpose", [x], [f"{y}_time"], perm=[0, 2, 1])], f"{y}_time"
    if before or after:
        constants[f"{y}_pads"] = np.array([0, before, 0, 0, after, 0], np.int64)
        nodes.append(helper.make_node("Pad", [current, f"{y}_pads", x_zero], [f"{y}_padded"]))
        current = f"{y}_padded"
    if taps > 1:
        parts = []
        for tap in range(taps):
            left = (taps - 1 - tap) * dilation
            constants[f"{y}_{tap}_start"] = np.array([tap * dilation])
            constants[f"{y}_{tap}_end"] = np.array([-left if left else OPEN_END])
            inputs = [current, f"{y}_{tap}_start", f"{y}_{tap}_end", "axis_of_time"]
            nodes.append(helper.make_node("Slice", inputs, [f"{y}_{tap}"]))
            parts.append(f"{y}_{tap}")
        nodes.append(helper.make_node("Concat", parts, [f"{y}_taps"], axis=2))
        current = f"{y}_taps"
    product = [current, f"{name}_product", x_zero, f"{name}_product_zero"]
    nodes.append(helper.make_node("MatMulInteger", product, [f"{y}_product"]))
    nodes.append(helper.make_node("Transpose", [f"{y}_product"], [y], perm=[0, 2, 1]))
    return nodes
