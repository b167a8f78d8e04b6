"""Writes small ONNX models for the client tests: make_identity_models.py OUT_DIR

identity_<type>   y = x, of any shape with two dimensions, one model for each data type
simple            OUTPUT0 = INPUT0 + INPUT1 and OUTPUT1 = INPUT0 - INPUT1, of shape [batch, 4], with a config.pbtxt and labels
"""

import pathlib
import sys

import onnx
from onnx import TensorProto, helper

# The name of a data type in the protocol, and what ONNX calls it.
TYPES = {
    "BOOL": TensorProto.BOOL,
    "UINT8": TensorProto.UINT8,
    "UINT16": TensorProto.UINT16,
    "UINT32": TensorProto.UINT32,
    "UINT64": TensorProto.UINT64,
    "INT8": TensorProto.INT8,
    "INT16": TensorProto.INT16,
    "INT32": TensorProto.INT32,
    "INT64": TensorProto.INT64,
    "FP16": TensorProto.FLOAT16,
    "BF16": TensorProto.BFLOAT16,
    "FP32": TensorProto.FLOAT,
    "FP64": TensorProto.DOUBLE,
    "BYTES": TensorProto.STRING,
}

SIMPLE_CONFIG = """\
platform: "onnxruntime_onnx"
max_batch_size: 8
input [
  { name: "INPUT0" data_type: TYPE_FP32 dims: [ 4 ] },
  { name: "INPUT1" data_type: TYPE_FP32 dims: [ 4 ] }
]
output [
  { name: "OUTPUT0" data_type: TYPE_FP32 dims: [ 4 ] label_filename: "labels.txt" },
  { name: "OUTPUT1" data_type: TYPE_FP32 dims: [ 4 ] }
]
model_warmup { name: "zeros" batch_size: 2
  inputs { key: "INPUT0" value { data_type: TYPE_FP32 dims: 4 zero_data: true } }
  inputs { key: "INPUT1" value { data_type: TYPE_FP32 dims: 4 random_data: true } }
}
"""


def save(directory, nodes, inputs, outputs):
    graph = helper.make_graph(nodes, "graph", inputs, outputs)
    # Versions that have been around for a while, whatever the newest are.
    model = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])
    onnx.checker.check_model(model)
    directory.mkdir(parents=True, exist_ok=True)
    onnx.save(model, directory / "model.onnx")


def identity(out, name, kind):
    shape = ["rows", "columns"]
    x = helper.make_tensor_value_info("x", kind, shape)
    y = helper.make_tensor_value_info("y", kind, shape)
    save(out / f"identity_{name.lower()}", [helper.make_node("Identity", ["x"], ["y"])], [x], [y])


def simple(out):
    def info(name):
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 4])

    nodes = [
        helper.make_node("Add", ["INPUT0", "INPUT1"], ["OUTPUT0"]),
        helper.make_node("Sub", ["INPUT0", "INPUT1"], ["OUTPUT1"]),
    ]
    directory = out / "simple"
    save(directory, nodes, [info("INPUT0"), info("INPUT1")], [info("OUTPUT0"), info("OUTPUT1")])
    (directory / "config.pbtxt").write_text(SIMPLE_CONFIG)
    (directory / "labels.txt").write_text("zero\none\ntwo\nthree\n")


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    out = pathlib.Path(sys.argv[1])
    for name, kind in TYPES.items():
        identity(out, name, kind)
    simple(out)


if __name__ == "__main__":
    main()
