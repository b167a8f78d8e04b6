"""Makes the models that the examples of Triton's public client ask for, each as a directory that can be pushed.

    make_models.py OUT [NAME…]

The models are ours: graphs built here, with the names, tensors and behaviour that the examples check. Seven of them are what
`simple_http_model_control.py` counts; `densenet_onnx`, the eighth that `simple_grpc_model_control.py` counts, has the tensors of the network
for pictures and knows nothing: its classes are the three colours.
"""

import pathlib
import sys

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

INT32, STRING, INT8, FLOAT = TensorProto.INT32, TensorProto.STRING, TensorProto.INT8, TensorProto.FLOAT

# The arithmetic of `simple` and its kin happens in this type; ONNX Runtime adds no INT8 and no texts.
NUMBER = INT32


def node(kind, inputs, outputs, **attributes):
    return helper.make_node(kind, inputs.split(), outputs.split(), **attributes)


def save(directory, config, nodes, inputs, outputs, weights=()):
    """Checks and writes one model; tensors are (name, type, shape)."""

    def infos(tensors):
        return [helper.make_tensor_value_info(name, kind, shape) for name, kind, shape in tensors]

    graph = helper.make_graph(nodes, "graph", infos(inputs), infos(outputs), list(weights))
    # Versions that have been around for a while, whatever the newest are.
    model = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])
    onnx.checker.check_model(model, full_check=True)
    directory.mkdir(parents=True, exist_ok=True)
    onnx.save(model, directory / "model.onnx")
    (directory / "config.pbtxt").write_text(config)


def add_and_subtract(directory, kind, data_type):
    """OUTPUT0 is the sum and OUTPUT1 the difference of 16 numbers, which may be texts."""
    config = f"""\
platform: "onnxruntime_onnx"
max_batch_size: 8
input [
  {{ name: "INPUT0" data_type: {data_type} dims: [ 16 ] }},
  {{ name: "INPUT1" data_type: {data_type} dims: [ 16 ] }}
]
output [
  {{ name: "OUTPUT0" data_type: {data_type} dims: [ 16 ] }},
  {{ name: "OUTPUT1" data_type: {data_type} dims: [ 16 ] }}
]
dynamic_batching {{ }}
"""
    if kind == NUMBER:
        nodes = [node("Add", "INPUT0 INPUT1", "OUTPUT0"), node("Sub", "INPUT0 INPUT1", "OUTPUT1")]
    else:
        nodes = [
            node("Cast", "INPUT0", "a", to=NUMBER),
            node("Cast", "INPUT1", "b", to=NUMBER),
            node("Add", "a b", "sum"),
            node("Sub", "a b", "difference"),
            node("Cast", "sum", "OUTPUT0", to=kind),
            node("Cast", "difference", "OUTPUT1", to=kind),
        ]
    shape = ["batch", 16]
    save(directory, config, nodes, [(n, kind, shape) for n in ("INPUT0", "INPUT1")], [(n, kind, shape) for n in ("OUTPUT0", "OUTPUT1")])


def identity(directory):
    """Gives texts back."""
    config = """\
platform: "onnxruntime_onnx"
max_batch_size: 8
input { name: "INPUT0" data_type: TYPE_STRING dims: [ -1 ] }
output { name: "OUTPUT0" data_type: TYPE_STRING dims: [ -1 ] }
dynamic_batching { }
"""
    shape = ["batch", "columns"]
    save(directory, config, [node("Identity", "INPUT0", "OUTPUT0")], [("INPUT0", STRING, shape)], [("OUTPUT0", STRING, shape)])


def control(name, kind, what=None):
    what = what or "int32_false_true: [ 0, 1 ]"
    return f'  control_input {{ name: "{name}" control {{ kind: {kind} {what} }} }}\n'


START = control("START", "CONTROL_SEQUENCE_START")
READY = control("READY", "CONTROL_SEQUENCE_READY")
END = control("END", "CONTROL_SEQUENCE_END")
# Longer than the second between requests that Triton allows when nothing is said: tests run on busy machines.
SEQUENCE = """\
platform: "onnxruntime_onnx"
max_batch_size: 8
input {{ name: "INPUT" data_type: TYPE_INT32 dims: [ 1 ] }}
output {{ name: "OUTPUT" data_type: TYPE_INT32 dims: [ 1 ] }}
sequence_batching {{
  max_sequence_idle_microseconds: 10000000
{controls}{strategy}}}
"""
OLDEST = "  oldest { max_candidate_sequences: 64 max_queue_delay_microseconds: 500 }\n"
ROW = ["batch", 1]


def sequence(directory):
    """The input; one more when it begins a sequence. Sequences keep their slot of the batch (strategy direct)."""
    config = SEQUENCE.format(controls=START + READY, strategy="  direct { }\n")
    nodes = [node("Add", "INPUT START", "sum"), node("Mul", "sum READY", "OUTPUT")]
    save(directory, config, nodes, [(n, INT32, ROW) for n in ("INPUT", "START", "READY")], [("OUTPUT", INT32, ROW)])


def dyna_sequence(directory):
    """As `sequence`, with the sequence's id added to the last output. Batches are formed of what is oldest."""
    corrid = control("CORRID", "CONTROL_SEQUENCE_CORRID", "data_type: TYPE_UINT64")
    config = SEQUENCE.format(controls=START + READY + END + corrid, strategy=OLDEST)
    nodes = [
        node("Cast", "CORRID", "id", to=INT32),
        node("Mul", "END id", "last"),
        node("Add", "INPUT START", "first"),
        node("Add", "first last", "sum"),
        node("Mul", "sum READY", "OUTPUT"),
    ]
    inputs = [(n, INT32, ROW) for n in ("INPUT", "START", "READY", "END")] + [("CORRID", TensorProto.UINT64, ROW)]
    save(directory, config, nodes, inputs, [("OUTPUT", INT32, ROW)])


def string_dyna_sequence(directory):
    """The sum of a sequence so far, kept by the server between requests; with the id, a text, added to the last."""
    corrid = control("CORRID", "CONTROL_SEQUENCE_CORRID", "data_type: TYPE_STRING")
    state = '  state { input_name: "SUM_IN" output_name: "SUM_OUT" data_type: TYPE_INT32 dims: [ 1 ] }\n'
    config = SEQUENCE.format(controls=START + READY + END + corrid + state, strategy=OLDEST)
    nodes = [
        node("Sub", "one START", "follows"),
        node("Mul", "SUM_IN follows", "before"),
        node("Add", "before INPUT", "sum"),
        node("Mul", "sum READY", "SUM_OUT"),
        node("Cast", "CORRID", "id", to=INT32),
        node("Mul", "END id", "last"),
        node("Add", "SUM_OUT last", "OUTPUT"),
    ]
    inputs = [(n, INT32, ROW) for n in ("INPUT", "START", "READY", "END", "SUM_IN")] + [("CORRID", STRING, ROW)]
    one = numpy_helper.from_array(np.ones(1, dtype=np.int32), "one")
    save(directory, config, nodes, inputs, [("OUTPUT", INT32, ROW), ("SUM_OUT", INT32, ROW)], [one])


def pictures(directory):
    """Three channels in, a thousand classes out, of which the first three are the mean of a channel and the rest nothing."""
    config = """\
platform: "onnxruntime_onnx"
max_batch_size: 0
input { name: "data_0" data_type: TYPE_FP32 format: FORMAT_NCHW dims: [ 3, 224, 224 ] }
output { name: "fc6_1" data_type: TYPE_FP32 dims: [ 1000 ] label_filename: "labels.txt" }
"""
    nodes = [
        node("ReduceMean", "data_0", "means", axes=[1, 2], keepdims=0),
        node("Concat", "means nothing", "fc6_1", axis=0),
    ]
    nothing = numpy_helper.from_array(np.full(997, -1e9, dtype=np.float32), "nothing")
    save(directory, config, nodes, [("data_0", FLOAT, [3, 224, 224])], [("fc6_1", FLOAT, [1000])], [nothing])
    (directory / "labels.txt").write_text("\n".join(["red", "green", "blue"] + [f"nothing {n}" for n in range(3, 1000)]) + "\n")


# The one for pictures.
PICTURES = "densenet_onnx"
MODELS = {
    "simple": lambda directory: add_and_subtract(directory, INT32, "TYPE_INT32"),
    "simple_int8": lambda directory: add_and_subtract(directory, INT8, "TYPE_INT8"),
    "simple_string": lambda directory: add_and_subtract(directory, STRING, "TYPE_STRING"),
    "simple_identity": identity,
    "simple_sequence": sequence,
    "simple_dyna_sequence": dyna_sequence,
    "simple_string_dyna_sequence": string_dyna_sequence,
    PICTURES: pictures,
}


def main():
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    out, names = pathlib.Path(sys.argv[1]), sys.argv[2:] or list(MODELS)
    for name in names:
        MODELS[name](out / name)


if __name__ == "__main__":
    main()
