"""Inference requests over persistent HTTP connections, one after the other or from many threads, with what came back.

Speaks the Open Inference Protocol in JSON with nothing but the standard library.
"""

import dataclasses
import http.client
import json
import threading
import time


@dataclasses.dataclass(frozen=True)
class Answer:
    """What the model said of one image, how long that took, and when it was there (`time.perf_counter`)."""

    label: int
    probability: float
    version: str
    seconds: float
    at: float


class Refused(Exception):
    """The server answered, but not with 200."""


class Connection:
    """One persistent connection; opened by the first request and after a failure."""

    def __init__(self, address: str, key: str, model: str, timeout: float = 10.0):
        self.host, port = address.rsplit(":", 1)
        self.port, self.timeout = int(port), timeout
        self.path = f"/v2/models/{model}/infer"
        self.headers = {"Content-Type": "application/json", "Authorization": f"Bearer {key}"}
        self.connection: http.client.HTTPConnection | None = None

    def infer(self, pixels: list[int]) -> Answer:
        """Asks for one image. Raises OSError, http.client.HTTPException, ValueError or Refused."""
        tensor = {"name": "image", "shape": [1, 64], "datatype": "FP32", "data": pixels}
        body = json.dumps({"inputs": [tensor]}).encode()
        started = time.perf_counter()
        try:
            if self.connection is None:
                self.connection = http.client.HTTPConnection(self.host, self.port, timeout=self.timeout)
            self.connection.request("POST", self.path, body, self.headers)
            response = self.connection.getresponse()
            text = response.read()
        except (OSError, http.client.HTTPException):
            self.close()
            raise
        ended = time.perf_counter()
        if response.status != 200:
            raise Refused(f"{response.status}: {text[:300].decode(errors='replace')}")
        answer = json.loads(text)
        outputs = {o["name"]: o["data"] for o in answer["outputs"]}
        label = outputs["label"][0]
        return Answer(label, outputs["probabilities"][label], str(answer["model_version"]), ended - started, ended)

    def close(self) -> None:
        if self.connection is not None:
            self.connection.close()
            self.connection = None


FAILURES = (OSError, http.client.HTTPException, Refused, ValueError, KeyError, IndexError, TypeError)


class Load:
    """Threads that send images without pause until told to stop, each on its own connection."""

    def __init__(self, connect, images: list[dict], threads: int = 8):
        self.images = images
        self.stopping = threading.Event()
        self.answers: list[list[Answer]] = [[] for _ in range(threads)]
        self.failures: list[str] = []
        self.workers = [threading.Thread(target=self._work, args=(k, connect()), daemon=True) for k in range(threads)]

    def _work(self, k: int, connection: Connection) -> None:
        position = k * len(self.images) // len(self.workers)
        while not self.stopping.is_set():
            try:
                self.answers[k].append(connection.infer(self.images[position % len(self.images)]["pixels"]))
            except FAILURES as error:
                self.failures.append(f"{type(error).__name__}: {error}")
                self.stopping.wait(0.05)
            position += 1
        connection.close()

    def __enter__(self) -> "Load":
        self.started = time.perf_counter()
        for worker in self.workers:
            worker.start()
        return self

    def __exit__(self, *_) -> None:
        self.stopping.set()
        for worker in self.workers:
            worker.join(30)
        self.seconds = time.perf_counter() - self.started

    def count(self) -> int:
        """How many answers there are so far."""
        return sum(len(answers) for answers in self.answers)

    def seen(self, version: str) -> bool:
        """Whether every thread's newest answer came from this version."""
        return all(answers and answers[-1].version == version for answers in self.answers)

    def all(self) -> list[Answer]:
        """Every answer; call it after the end."""
        return [answer for answers in self.answers for answer in answers]


    def steps(self, count: int) -> list[list[Answer]]:
        """Every answer, in steps of equal time."""
        steps: list[list[Answer]] = [[] for _ in range(count)]
        for answer in self.all():
            steps[max(0, min(count - 1, int((answer.at - self.started) * count / self.seconds)))].append(answer)
        return steps


def percentile(values: list[float], share: float) -> float:
    """The smallest value that at least this share of the values does not exceed (nearest rank)."""
    ordered = sorted(values)
    rank = -(-len(ordered) * share // 1)
    return ordered[max(0, int(rank) - 1)]
