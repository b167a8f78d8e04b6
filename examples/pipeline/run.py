#!/usr/bin/env python3
"""A pipeline from picture files to names, and a pre-processor that is replaced without touching the model.

    python3 examples/pipeline/run.py --plinth target/release/plinth

It needs Python's standard library, a `plinth` binary and `make setup`; it keeps everything in a temporary directory and ends
the node that it starts.

The pipeline `read-digit` has three steps: `digit-pixels` (decode and resize), `digit-net` (an ONNX model with a convolution)
and `digit-names` (the three most probable names). The pictures are scans: dark ink on light paper. The first version of
`digit-pixels` was written for light ink on a dark ground, so nearly every answer is wrong; the second turns the values round.
"""

import argparse
import http.client
import json
import struct
import sys
import tempfile
import zlib
from pathlib import Path

HERE = Path(__file__).resolve().parent
DIGITS = HERE.parent / "digits"
sys.path.insert(0, str(DIGITS))

from node import Failed, Node, Plinth  # noqa: E402  (the digits example starts nodes)

NAMES = (HERE / "models" / "digit-names" / "names.txt").read_text().split()
LARGER = 12
BATCH = 20


def scan(pixels: list[int]) -> bytes:
    """An image of the digits example (0 paper, 16 ink) as a scanner gives it: a PNG file of 96x96 greys, 255 for paper."""
    rows = [[255 - min(255, p * 255 // 16) for p in pixels[y * 8 : y * 8 + 8] for _ in range(LARGER)] for y in range(8)]
    raw = b"".join(b"\0" + bytes(row) for row in rows for _ in range(LARGER))
    side = 8 * LARGER

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b"")


class Reader:
    """Asks the pipeline, with the pictures as binary tensors behind the JSON."""

    def __init__(self, node: Node):
        host, port = node.http.rsplit(":", 1)
        self.connection, self.key = http.client.HTTPConnection(host, int(port), timeout=30), node.key

    def read(self, files: list[bytes]) -> list[tuple[str, float]]:
        """The most probable name of each picture, and how probable it is."""
        data = b"".join(struct.pack("<I", len(file)) + file for file in files)
        picture = {"name": "PICTURE", "datatype": "BYTES", "shape": [len(files), 1], "parameters": {"binary_data_size": len(data)}}
        head = json.dumps({"inputs": [picture]}).encode()
        headers = {"Inference-Header-Content-Length": str(len(head)), "Authorization": f"Bearer {self.key}"}
        self.connection.request("POST", "/v2/models/read-digit/infer", head + data, headers)
        answer = self.connection.getresponse()
        body = answer.read()
        if answer.status != 200:
            raise Failed(f"the pipeline answered {answer.status}: {body.decode(errors='replace')}")
        outputs = {output["name"]: output["data"] for output in json.loads(body)["outputs"]}
        return [(outputs["NAME"][3 * i], outputs["PROBABILITY"][3 * i]) for i in range(len(files))]


def push(plinth: Plinth, model: str, directory: str) -> None:
    plinth("model", "push", str(HERE / "models" / directory), "--name", model, "--promote", "--wait")


def judge(reader: Reader, images: list[dict]) -> int:
    right = 0
    for start in range(0, len(images), BATCH):
        some = images[start : start + BATCH]
        answers = reader.read([scan(image["pixels"]) for image in some])
        right += sum(name == NAMES[image["label"]] for (name, _), image in zip(answers, some, strict=True))
    return right


def served(node: Node, model: str) -> tuple[int, int]:
    """Version and process of a model."""
    rows = json.loads(node.get("/v1/status")[1])["models"]
    row = next(row for row in rows if row["model"] == model and row["default"])
    return row["version"], row["pid"]


def run(program: Path, directory: Path) -> None:
    library = HERE.parents[1] / ".plinth" / "lib" / "libonnxruntime.so"
    config = (
        '[node]\ndata_dir = "data"\n\n[listen]\nhttp = "127.0.0.1:0"\ngrpc = ""\nmetrics = "127.0.0.1:0"\n\n'
        f"[engine]\nonnxruntime = {json.dumps(str(library))}\n"
    )
    images = json.loads((DIGITS / "images.json").read_text())
    plinth = Plinth(program, directory, lambda line: print(f"  $ {line}", flush=True))
    with Node(plinth, config) as node:
        print("The steps, each a version of its own, and the pipeline over them:")
        for model, files in [("digit-pixels", "digit-pixels-1"), ("digit-net", "digit-net"), ("digit-names", "digit-names")]:
            push(plinth, model, files)
        push(plinth, "read-digit", "read-digit")
        reader = Reader(node)
        name, probability = reader.read([scan(images[0]["pixels"])])[0]
        print(f"\nA scan of a {NAMES[images[0]['label']]} is read as {name} ({probability:.0%}): the ink is dark, not light.")
        before = judge(reader, images)
        print(f"Of {len(images)} scans {before} are read rightly.\n")
        model = served(node, "digit-net")

        print("Another pre-processor, for dark ink on light paper:")
        push(plinth, "digit-pixels", "digit-pixels-2")
        name, probability = reader.read([scan(images[0]["pixels"])])[0]
        after = judge(reader, images)
        print(f"\nThe same scan is read as {name} ({probability:.0%}); of {len(images)} scans {after} are read rightly.")
        if served(node, "digit-net") != model:
            raise Failed("the model in the middle was touched")
        print(f"The model was not touched: digit-net is still version {model[0]} in process {model[1]}.")
        if not before < len(images) // 10 < len(images) * 9 // 10 < after:
            raise Failed("that is not what this example promises")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--plinth", type=Path, required=True, help="the plinth binary")
    program = parser.parse_args().plinth.resolve()
    with tempfile.TemporaryDirectory(prefix="plinth-pipeline-") as directory:
        try:
            run(program, Path(directory))
        except Failed as error:
            print(f"the example failed: {error}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
