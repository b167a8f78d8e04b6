#!/usr/bin/env python3
"""Trains the two versions of the digits model and sets the held-out images aside.

The models and images in this directory came out of this script; the demo never runs it. To run it again:

    python3 -m venv .venv && .venv/bin/pip install -r requirements.txt && .venv/bin/python train.py

Both models take `image` (FP32, [batch, 64]: 8x8 pixels row by row, 0 = paper to 16 = ink, as the data set has them)
and answer `probabilities` (FP32, [batch, 10]) and `label` (INT64, [batch, 1]). The scaling to 0..1 is part of the
graph, so nobody who calls the model can forget it.

Version 1 is a softmax regression that saw 60 images: good enough to look right, bad enough to be replaced.
Version 2 is a perceptron with one hidden layer that saw all 1,597 training images, moved about by one pixel.
The 200 held-out images, 20 of each digit, were seen by neither.
"""

import json
import struct
import zlib
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from sklearn.datasets import load_digits

HERE = Path(__file__).resolve().parent
SEED = 20240817
OPSET = 17
IR_VERSION = 8
HELD_OUT_PER_DIGIT = 20
FIRST_VERSION_PER_DIGIT = 6
INK = 16.0


def split(labels: np.ndarray, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Indices to train with and indices to hold out, the latter with every digit equally often."""
    held_out = np.concatenate([random.permutation(np.flatnonzero(labels == d))[:HELD_OUT_PER_DIGIT] for d in range(10)])
    held_out = random.permutation(held_out)
    return np.setdiff1d(np.arange(len(labels)), held_out), held_out


def softmax(logits: np.ndarray) -> np.ndarray:
    e = np.exp(logits - logits.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


class Adam:
    """Adam with the usual constants; `step` changes the parameters in place."""

    def __init__(self, parameters: list[np.ndarray], rate: float):
        self.parameters, self.rate, self.count = parameters, rate, 0
        self.mean = [np.zeros_like(p) for p in parameters]
        self.square = [np.zeros_like(p) for p in parameters]

    def step(self, gradients: list[np.ndarray]) -> None:
        self.count += 1
        for p, g, m, v in zip(self.parameters, gradients, self.mean, self.square):
            m += 0.1 * (g - m)
            v += 0.001 * (g * g - v)
            p -= self.rate * (m / (1 - 0.9**self.count)) / (np.sqrt(v / (1 - 0.999**self.count)) + 1e-8)


def train(layers: list[int], images: np.ndarray, labels: np.ndarray, random: np.random.Generator, *, epochs: int, decay: float):
    """A chain of linear layers with ReLU between them, trained on cross entropy. Returns [(weight, bias), ...]."""
    sizes = list(zip(layers[:-1], layers[1:]))
    weights = [random.normal(0, np.sqrt(1 / i), (i, o)) * (o != 10) for i, o in sizes]
    biases = [np.zeros(o) for _, o in sizes]
    optimiser = Adam(weights + biases, rate=0.004)
    targets = np.eye(10)[labels]
    for _ in range(epochs):
        for batch in np.array_split(random.permutation(len(images)), max(1, len(images) // 64)):
            activations = [images[batch]]
            for w, b in zip(weights[:-1], biases[:-1]):
                activations.append(np.maximum(activations[-1] @ w + b, 0))
            error = (softmax(activations[-1] @ weights[-1] + biases[-1]) - targets[batch]) / len(batch)
            weight_gradients, bias_gradients = [], []
            for k in reversed(range(len(weights))):
                weight_gradients.insert(0, activations[k].T @ error + decay * weights[k])
                bias_gradients.insert(0, error.sum(axis=0))
                if k:
                    error = (error @ weights[k].T) * (activations[k] > 0)
            optimiser.step(weight_gradients + bias_gradients)
    return list(zip(weights, biases))


def moved(images: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The images and their copies moved by one pixel to each of the four sides."""
    grid = np.pad(images.reshape(-1, 8, 8), ((0, 0), (1, 1), (1, 1)))
    shifts = [(1, 1), (0, 1), (2, 1), (1, 0), (1, 2)]
    copies = [grid[:, y : y + 8, x : x + 8].reshape(-1, 64) for y, x in shifts]
    return np.concatenate(copies), np.tile(labels, len(shifts))


def graph(layers: list[tuple[np.ndarray, np.ndarray]], name: str) -> onnx.ModelProto:
    """The layers as an ONNX model."""
    nodes = [helper.make_node("Mul", ["image", "scale"], ["h0"])]
    constants = [numpy_helper.from_array(np.array(1 / INK, np.float32), "scale")]
    for k, (w, b) in enumerate(layers):
        constants += [numpy_helper.from_array(w.astype(np.float32), f"w{k}"), numpy_helper.from_array(b.astype(np.float32), f"b{k}")]
        last = k == len(layers) - 1
        nodes.append(helper.make_node("Gemm", [f"h{k}", f"w{k}", f"b{k}"], ["logits" if last else f"z{k}"]))
        if not last:
            nodes.append(helper.make_node("Relu", [f"z{k}"], [f"h{k + 1}"]))
    nodes.append(helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1))
    nodes.append(helper.make_node("ArgMax", ["logits"], ["label"], axis=1, keepdims=1))
    model = helper.make_model(
        helper.make_graph(
            nodes,
            name,
            [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 64])],
            [
                helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", 10]),
                helper.make_tensor_value_info("label", TensorProto.INT64, ["batch", 1]),
            ],
            constants,
        ),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="plinth examples/digits/train.py",
    )
    onnx.checker.check_model(model, full_check=True)
    return model


CONFIG = """\
name: "digits"
platform: "onnxruntime_onnx"
max_batch_size: 64
input [
  { name: "image", data_type: TYPE_FP32, dims: [ 64 ] }
]
output [
  { name: "probabilities", data_type: TYPE_FP32, dims: [ 10 ] },
  { name: "label", data_type: TYPE_INT64, dims: [ 1 ] }
]
"""


def png(image: np.ndarray) -> bytes:
    """An 8x8 greyscale PNG. Ink is white, as in the data set, so that a brighter pixel is a larger number."""
    rows = np.rint(image.reshape(8, 8) * (255 / INK)).astype(np.uint8)
    raw = b"".join(b"\0" + row.tobytes() for row in rows)

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", 8, 8, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(raw, 9)) + chunk(b"IEND", b"")


def accuracy(path: Path, images: np.ndarray, labels: np.ndarray) -> float:
    """The share of right labels that ONNX Runtime gets out of the file itself."""
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    probabilities, label = session.run(None, {"image": images.astype(np.float32)})
    assert probabilities.shape == (len(images), 10) and label.shape == (len(images), 1) and label.dtype == np.int64
    assert np.allclose(probabilities.sum(axis=1), 1, atol=1e-5)
    return float((label[:, 0] == labels).mean())


def main() -> None:
    digits = load_digits()
    images, labels = digits.data, digits.target
    random = np.random.default_rng(SEED)
    training, held_out = split(labels, random)

    few = np.concatenate([random.permutation(training[labels[training] == d])[:FIRST_VERSION_PER_DIGIT] for d in range(10)])
    first = train([64, 10], images[few] / INK, labels[few], np.random.default_rng(SEED + 1), epochs=300, decay=1e-4)
    more_images, more_labels = moved(images[training] / INK, labels[training])
    second = train([64, 64, 10], more_images, more_labels, np.random.default_rng(SEED + 2), epochs=30, decay=1e-4)

    for version, layers in [("1", first), ("2", second)]:
        directory = HERE / "models" / version
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "model.onnx").write_bytes(graph(layers, f"digits-{version}").SerializeToString(deterministic=True))
        (directory / "config.pbtxt").write_text(CONFIG)
        share = accuracy(directory / "model.onnx", images[held_out], labels[held_out])
        print(f"version {version}: {share:.1%} of the {len(held_out)} held-out images")

    lines = [json.dumps({"label": int(labels[i]), "pixels": [int(p) for p in images[i]]}, separators=(",", ":")) for i in held_out]
    (HERE / "images.json").write_text("[\n" + ",\n".join(lines) + "\n]\n")
    (HERE / "png").mkdir(exist_ok=True)
    for digit in (0, 2, 3, 7, 8):
        index = next(i for i in held_out if labels[i] == digit)
        (HERE / "png" / f"{digit}.png").write_bytes(png(images[index]))


if __name__ == "__main__":
    main()
