"""A model server out of the standard library that misbehaves on demand: what the tests of the process backend start.

The first argument is the port, the second the mode. A request's parameter `deed` asks for more.
"""

import json
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PORT, MODE = int(sys.argv[1]), sys.argv[2]
BEGUN = time.monotonic()
STATE = {"requests": 0, "connections": 0, "cancelled": 0, "deaf": False}
SPECS = {
    "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1]}],
    "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1]}, {"name": "says", "datatype": "BYTES", "shape": [1]}],
}


def facts():
    def tried(path):
        try:
            with open(path, "w") as file:
                file.write("x")
            return "written"
        except OSError as error:
            return type(error).__name__

    def read(path):
        try:
            with open(path, "rb") as file:
                return len(file.read())
        except OSError as error:
            return type(error).__name__

    status = dict(line.split(":", 1) for line in open("/proc/self/status"))
    return {
        "env": dict(os.environ),
        "cwd": os.getcwd(),
        "uid": os.getuid(),
        "pid": os.getpid(),
        "in_cwd": tried("planted"),
        "in_tmp": tried(os.path.join(os.environ["TMPDIR"], "mine")),
        "outside": tried(os.environ.get("OUTSIDE", "/nowhere")),
        "hidden": read(os.environ.get("HIDDEN", "/nowhere")),
        "processes": sorted(int(name) for name in os.listdir("/proc") if name.isdigit()),
        "caps": status["CapEff"].strip(),
        "no_new_privs": status["NoNewPrivs"].strip(),
        "leader": os.getsid(0) == os.getpid(),
        "fds": sorted(int(name) for name in os.listdir("/proc/self/fd")),
    }


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def setup(self):
        super().setup()
        STATE["connections"] += 1

    def log_message(self, *args):
        pass

    def reply(self, status, body, headers=()):
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def json(self, value, status=200):
        self.reply(status, json.dumps(value).encode(), [("Content-Type", "application/json")])

    def do_GET(self):
        if STATE["deaf"]:
            time.sleep(3600)
        if self.path.endswith("/ready") or self.path == "/health":
            late = MODE == "late" and time.monotonic() - BEGUN < 0.5
            if MODE == "redirect_health":
                return self.reply(302, b"", [("Location", os.environ["ELSEWHERE"])])
            return self.json({}, 503 if late or MODE == "never" or STATE.get("ill") else 200)
        if self.path == "/v2":
            extensions = ["binary_tensor_data"] if MODE == "binary" else []
            return self.json({"name": "stub", "version": "1", "extensions": extensions})
        if MODE == "wrong_metadata":
            return self.json({"inputs": [{"name": "x", "datatype": "FP33", "shape": [-7]}], "outputs": []})
        if MODE == "endless_metadata":
            self.send_response(200)
            self.end_headers()
            while True:
                self.wfile.write(b" " * 65536)
        if MODE == "no_metadata":
            return self.json({"error": "no"}, 404)
        return self.json({"name": "m", **SPECS})

    def do_POST(self):
        STATE["requests"] += 1
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if MODE == "token" and self.headers.get("Authorization") != "Bearer " + os.environ["TOKEN"]:
            return self.json({"error": "who are you"}, 401)
        if self.path.startswith("/v1/"):
            return self.openai(json.loads(body))
        length = self.headers.get("Inference-Header-Content-Length")
        head = json.loads(body[: int(length)] if length else body)
        rest = body[int(length):] if length else b""
        given = head["inputs"][0]
        if length:
            values = list(struct.unpack(f"<{len(rest) // 4}f", rest))
        else:
            values = given["data"]
        says = self.deed(head.get("parameters", {}))
        if says is None:
            return
        y = [value + 1 for value in values]
        self.answer(head, y, says)

    def answer(self, head, y, says):
        wished = [output["name"] for output in head["outputs"]]
        outputs, parts = [], []
        # In another order than was asked for, as servers may.
        for name in reversed(wished):
            if name == "y":
                raw, output = struct.pack(f"<{len(y)}f", *y), {"name": "y", "datatype": "FP32", "shape": [len(y)], "data": y}
            else:
                text = says.encode()
                raw = struct.pack("<I", len(text)) + text
                output = {"name": "says", "datatype": "BYTES", "shape": [1], "data": [says]}
            if MODE == "binary":
                del output["data"]
                output["parameters"] = {"binary_data_size": len(raw)}
                parts.append(raw)
            outputs.append(output)
        reply = json.dumps({"model_name": "m", "outputs": outputs}).encode()
        if MODE == "binary":
            return self.reply(200, reply + b"".join(parts), [("Inference-Header-Content-Length", str(len(reply)))])
        return self.reply(200, reply)

    def deed(self, parameters):
        """What the answer shall say; None when there is none any more."""
        deed, value = parameters.get("deed", "nothing"), parameters.get("value")
        if deed == "sleep":
            time.sleep(float(value))
        elif deed == "facts":
            return json.dumps(facts())
        elif deed == "state":
            return json.dumps(STATE)
        elif deed == "parameters":
            return json.dumps(parameters, sort_keys=True)
        elif deed == "crash":
            os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(10)
        elif deed == "exit":
            os._exit(7)
        elif deed == "garbage":
            self.wfile.write(b"\x00\x01 this is no http\r\n\r\n")
            self.close_connection = True
            return None
        elif deed == "half":
            self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{")
            self.close_connection = True
            return None
        elif deed == "nonsense":
            self.reply(200, b'{"outputs": [{"name": "y", "datatype": "FP32", "shape": [5], "data": [1]}]}')
            return None
        elif deed == "missing":
            self.reply(200, b'{"outputs": []}')
            return None
        elif deed == "huge":
            self.send_response(200)
            self.send_header("Content-Length", str(1 << 40))
            self.end_headers()
            return None
        elif deed == "endless":
            self.send_response(200)
            self.end_headers()
            try:
                while True:
                    self.wfile.write(b" " * (1 << 20))
            except OSError:
                return None
        elif deed == "trickle":
            self.send_response(200)
            self.send_header("Content-Length", "1000000")
            self.end_headers()
            try:
                while True:
                    self.wfile.write(b" ")
                    time.sleep(0.01)
            except OSError:
                STATE["cancelled"] += 1
                self.close_connection = True
                return None
        elif deed == "redirect":
            self.reply(307, b"", [("Location", value)])
            return None
        elif deed == "status":
            status, text = value.split(" ", 1)
            self.json({"error": text.replace("CWD", os.getcwd())}, int(status))
            return None
        elif deed == "spawn":
            # A grandchild in a session of its own, whose parent is gone.
            code = f"import os, time\nif os.fork(): os._exit(0)\nos.setsid()\nopen({value!r}, 'w').write(os.readlink('/proc/self'))\ntime.sleep(3600)"
            subprocess.run([sys.executable, "-c", code], check=True)
        elif deed == "deaf":
            STATE["deaf"] = True
        elif deed == "ill":
            STATE["ill"] = bool(value)
        elif deed == "eat":
            STATE["food"] = b"x" * (int(value) << 20)
        elif deed == "feed":
            code = f"import time\nfood = b'x' * ({int(value)} << 20)\nprint('full', flush=True)\ntime.sleep(3600)"
            child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
            child.stdout.readline()
        elif deed == "print":
            print("a line of the server", flush=True)
        return "done"

    def openai(self, body):
        prompt = body["prompt"] if "prompt" in body else body["messages"][0]["content"]
        text = f"{body['model']}:{prompt}:{body.get('max_tokens')}"
        chat = "chat" in self.path
        if prompt == "fail":
            return self.json({"error": {"message": "no such thing"}}, 400)
        if not body["stream"]:
            choice = {"message": {"content": text}} if chat else {"text": text}
            return self.json({"choices": [choice]})
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        self.close_connection = True
        try:
            for piece in [text[i : i + 3] for i in range(0, len(text), 3)]:
                choice = {"delta": {"content": piece}} if chat else {"text": piece}
                self.wfile.write(b"data: " + json.dumps({"choices": [choice]}).encode() + b"\n\n")
            if prompt == "cut":
                return
            if prompt == "crash":
                os._exit(1)
            while prompt == "forever":
                self.wfile.write(b'data: {"choices": [{"text": "x", "delta": {"content": "x"}}]}\n\n')
                time.sleep(0.01)
            self.wfile.write(b'data: {"choices": []}\n\ndata: [DONE]\n\n')
        except OSError:
            STATE["cancelled"] += 1


if MODE == "stubborn":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
if MODE == "polite":
    signal.signal(signal.SIGTERM, lambda *_: (open(os.environ["GOODBYE"], "w").write("bye"), os._exit(0)))
if MODE == "dies":
    sys.exit(3)
if MODE == "patient":
    # Does not give up when the port is taken.
    while True:
        try:
            socket.create_server(("127.0.0.1", PORT)).close()
            break
        except OSError:
            time.sleep(0.05)

ThreadingHTTPServer.daemon_threads = True
ThreadingHTTPServer(("0.0.0.0" if MODE == "exposed" else "127.0.0.1", PORT), Handler).serve_forever()
