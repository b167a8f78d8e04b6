"""A Plinth node as a child process in a directory of its own, and the command line that talks to it.

The child is ended by its process id, always. What it prints lies in `node.log`; what the commands print is returned.
"""

import http.client
import json
import os
import re
import shlex
import signal
import socket
import subprocess
import time
from pathlib import Path

KEY = re.compile(r"\bplinth_[A-Za-z0-9_]{40,}\b")
DEFAULT_PORTS = {"http": 8000, "metrics": 8002}


class Failed(Exception):
    """The demo cannot go on; the text says why."""


def usable(port: int) -> bool:
    """Whether the port is free."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def choose_ports() -> dict[str, int]:
    """The usual ports where they are free; 0, which lets the system choose, where one of them is not."""
    return {name: port if usable(port) else 0 for name, port in DEFAULT_PORTS.items()}


def clean_environment(directory: Path) -> dict[str, str]:
    """This environment without anything that would configure Plinth, and with no file of the user's in reach."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PLINTH")}
    return kept | {"XDG_CONFIG_HOME": str(directory / "user"), "NO_COLOR": "1"}


class Plinth:
    """The command line, run in the demo's directory. `say` shows each command as one would type it."""

    def __init__(self, program: Path, directory: Path, say):
        self.program, self.directory, self.say = program, directory, say
        self.environment = clean_environment(directory)

    def __call__(self, *arguments: str, expect: tuple[int, ...] | None = (0,)) -> subprocess.CompletedProcess:
        """Runs a command. `expect` are the exit codes that it may have; None means any but 0."""
        self.say("plinth " + shlex.join(arguments))
        command = [str(self.program), *arguments]
        try:
            result = subprocess.run(
                command, cwd=self.directory, env=self.environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60
            )
        except subprocess.TimeoutExpired as error:
            raise Failed(f"`plinth {shlex.join(arguments)}` did not end within 60 s") from error
        as_expected = result.returncode != 0 if expect is None else result.returncode in expect
        if not as_expected:
            wanted = "a refusal" if expect is None else " or ".join(map(str, expect))
            raise Failed(
                f"`plinth {shlex.join(arguments)}` ended with {result.returncode} instead of {wanted}:\n{result.stdout}{result.stderr}".rstrip()
            )
        return result


class Node:
    """A node. Use it in a `with`, which ends it."""

    def __init__(self, plinth: Plinth, config: str):
        self.plinth, self.directory = plinth, plinth.directory
        self.log = self.directory / "node.log"
        (self.directory / "plinth.toml").write_text(config)
        self.child: subprocess.Popen | None = None
        self.http = self.metrics = self.key = ""

    def __enter__(self) -> "Node":
        with self.log.open("wb") as log:
            # A session of its own: Ctrl-C reaches the demo, and the demo ends the node.
            self.child = subprocess.Popen(
                [str(self.plinth.program), "up", "--config", "plinth.toml"],
                cwd=self.directory, env=self.plinth.environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        try:
            self._read_addresses()
            self.until("the node to be ready", lambda: self.get("/v2/health/ready")[0] == 200)
            self.key = self._read_key()
        except BaseException:
            self.__exit__()
            raise
        self.plinth.environment |= {"PLINTH_SERVER": f"http://{self.http}", "PLINTH_KEY": self.key}
        return self

    def __exit__(self, *_) -> None:
        if self.child is None or self.child.poll() is not None:
            return
        self.child.send_signal(signal.SIGTERM)
        try:
            self.child.wait(30)
        except (subprocess.TimeoutExpired, KeyboardInterrupt):
            self.child.kill()
            self.child.wait()

    def text(self) -> str:
        """Everything that the node has printed."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def alive(self) -> None:
        """Fails when the node has ended."""
        if self.child is None or self.child.poll() is not None:
            raise Failed(f"the node ended by itself (exit code {self.child.returncode if self.child else '?'})")

    def stay(self) -> None:
        """Returns never, unless the node ends by itself, which is a failure."""
        while True:
            self.alive()
            time.sleep(0.5)

    def until(self, what: str, ready, seconds: float = 30.0):
        """Asks again and again; the first answer that is not false. Fails after the deadline, or when the node is gone."""
        end = time.monotonic() + seconds
        while not (answer := ready()):
            self.alive()
            if time.monotonic() > end:
                raise Failed(f"waited {seconds:.0f} s in vain for {what}")
            time.sleep(0.02)
        return answer

    def _read_addresses(self) -> None:
        file = self.directory / "data" / "node.json"

        def read():
            try:
                return json.loads(file.read_text())
            except (OSError, ValueError):
                return None

        addresses = self.until("the node to listen", read)
        self.http, self.metrics = addresses["http"], addresses.get("metrics") or ""

    def _read_key(self) -> str:
        return self.until("the node to print its admin key", lambda: KEY.search(self.text()), 5).group(0)

    def get(self, path: str, address: str | None = None) -> tuple[int, bytes]:
        """One request on a connection of its own; status 0 when nobody answers."""
        host, port = (address or self.http).rsplit(":", 1)
        connection = http.client.HTTPConnection(host, int(port), timeout=5)
        try:
            connection.request("GET", path, headers={"Authorization": f"Bearer {self.key}"} if self.key else {})
            response = connection.getresponse()
            return response.status, response.read()
        except (OSError, http.client.HTTPException):
            return 0, b""
        finally:
            connection.close()
