"""A model server in nothing but Python's standard library: it counts the words of texts.

It serves the Open Inference Protocol over HTTP, as much of it as Plinth asks a server for: whether the model is ready, what it
takes and gives, and an inference. Replace `infer` by whatever you have in Python.
"""

import argparse
import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

INPUTS = [{"name": "text", "datatype": "BYTES", "shape": [-1]}]
OUTPUTS = [
    {"name": "words", "datatype": "INT64", "shape": [-1]},
    {"name": "longest", "datatype": "BYTES", "shape": [-1]},
]


def infer(inputs, parameters):
    """From tensors by name to tensors by name; a ValueError is told to the caller."""
    texts = inputs["text"]
    separator = parameters.get("separator")
    if separator == "":
        raise ValueError("the parameter 'separator' is empty")
    split = [text.split(separator) for text in texts]
    return {
        "words": [len(words) for words in split],
        "longest": [max(words, key=len, default="") for words in split],
    }


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # connections are kept
    wbufsize = 1 << 16  # head and body leave together, or each answer would wait 40 ms for an acknowledgement

    def do_GET(self):
        model = f"/v2/models/{self.server.name}"
        if self.path == f"{model}/ready":
            self.answer(200, {"name": self.server.name, "ready": True})
        elif self.path == model:
            self.answer(200, {"name": self.server.name, "platform": "python", "inputs": INPUTS, "outputs": OUTPUTS})
        elif self.path == "/v2":
            self.answer(200, {"name": "words", "version": "1", "extensions": []})
        else:
            self.answer(404, {"error": "no such path"})

    def do_POST(self):
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path != f"/v2/models/{self.server.name}/infer":
            return self.answer(404, {"error": "no such path"})
        inputs = {tensor["name"]: tensor["data"] for tensor in request["inputs"]}
        try:
            results = infer(inputs, request.get("parameters", {}))
        except ValueError as error:
            return self.answer(400, {"error": str(error)})
        wished = [tensor["name"] for tensor in request.get("outputs", OUTPUTS)]
        types = {tensor["name"]: tensor["datatype"] for tensor in OUTPUTS}
        outputs = [{"name": name, "datatype": types[name], "shape": [len(results[name])], "data": results[name]} for name in wished]
        self.answer(200, {"model_name": self.server.name, "outputs": outputs})

    def answer(self, status, value):
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass  # Plinth counts requests itself; what is printed here goes to its log


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--name", default="words")
    arguments = parser.parse_args()
    server = ThreadingHTTPServer((arguments.host, arguments.port), Handler)
    server.name = arguments.name
    server.serve_forever()


if __name__ == "__main__":
    main()
