#!/usr/bin/env python3
"""Makes `models/digit-net/model.onnx`, the model in the middle of the example's pipeline.

The file in this directory came out of this script; the example never runs it. To run it again, with the Python of the tests:

    ../../.plinth/venv/bin/python build.py

It is the second version of the digits example behind a convolution: `pixels` (FP32, [batch, 3, 8, 8], ink from 0 to 1 in
each of three channels) becomes one channel from 0 to 16, as that model was trained, and then `logits` (FP32, [batch, 10]).
"""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

HERE = Path(__file__).resolve().parent
DIGITS = HERE.parent / "digits" / "models" / "2" / "model.onnx"
INK = 16.0


def main() -> None:
    digits = onnx.load(DIGITS)
    kept = [node for node in digits.graph.node if node.op_type not in ("Softmax", "ArgMax")]
    for node in kept:
        node.input[:] = ["flat" if name == "image" else name for name in node.input]
    grey = numpy_helper.from_array(np.full((1, 3, 1, 1), INK / 3, np.float32), "grey")
    front = [
        helper.make_node("Conv", ["pixels", "grey"], ["ink"], kernel_shape=[1, 1]),
        helper.make_node("Flatten", ["ink"], ["flat"], axis=1),
    ]
    graph = helper.make_graph(
        front + kept,
        "digit-net",
        [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ["batch", 3, 8, 8])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 10])],
        [grey, *digits.graph.initializer],
    )
    model = helper.make_model(graph, producer_name="plinth", opset_imports=digits.opset_import, ir_version=digits.ir_version)
    onnx.checker.check_model(model, full_check=True)
    (HERE / "models" / "digit-net" / "model.onnx").write_bytes(model.SerializeToString())


if __name__ == "__main__":
    main()
