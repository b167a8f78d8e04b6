"""A node for the examples of Triton's public client: open, on ports of its own, with what the examples expect of a server."""

import contextlib
import json
import pathlib
import subprocess
import sys
import tempfile
import time
import urllib.request

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
LIBRARY = ROOT / ".plinth/lib/libonnxruntime.so"
# How long the node may take to be ready, and to end.
START, END = 30, 30


class Node:
    def __init__(self, plinth, directory, addresses):
        self.plinth, self.directory = plinth, directory
        self.http, self.grpc, self.metrics = addresses["http"], addresses["grpc"], addresses["metrics"]

    def push(self, name):
        """Pushes one of make_models.py's models, and waits until it answers."""
        subprocess.run([sys.executable, "-B", HERE / "make_models.py", self.directory / "models", name], check=True)
        command = [self.plinth, "model", "push", self.directory / "models" / name, "--name", name, "--promote", "--wait", "--quiet"]
        subprocess.run([*command, "--server", f"http://{self.http}"], check=True, stdout=subprocess.DEVNULL)

    def load(self, name):
        """Loads a model as it was pushed."""
        request = urllib.request.Request(f"http://{self.http}/v2/repository/models/{name}/load", method="POST")
        urllib.request.urlopen(request, timeout=START).close()


@contextlib.contextmanager
def node(plinth, onnxruntime=LIBRARY):
    """A node in a directory that is deleted afterwards."""
    settings = {
        "listen.http": "127.0.0.1:0",
        "listen.grpc": "127.0.0.1:0",
        "listen.metrics": "127.0.0.1:0",
        "http.server_name": "triton",
        "shared_memory.enabled": "true",
        "engine.onnxruntime": onnxruntime.resolve(),
    }
    plinth = plinth.resolve()
    with tempfile.TemporaryDirectory() as directory:
        directory = pathlib.Path(directory)
        command = [plinth, "up", "--dev", "--data-dir", directory / "data"]
        for key, value in settings.items():
            command += ["--set", f"{key}={value}"]
        with (directory / "log").open("w") as log:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=directory)
        try:
            yield Node(plinth, directory, wait_ready(process, directory))
        finally:
            process.terminate()
            try:
                process.wait(END)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def wait_ready(process, directory):
    deadline = time.monotonic() + START
    while process.poll() is None and time.monotonic() < deadline:
        try:
            addresses = json.loads((directory / "data/node.json").read_text())
            with urllib.request.urlopen(f"http://{addresses['http']}/v2/health/ready", timeout=5):
                return addresses
        except (OSError, ValueError):
            time.sleep(0.05)
    sys.exit("the node did not start:\n" + (directory / "log").read_text()[-4000:])
