#!/usr/bin/env python3
"""The demo: registers, signs, serves and replaces a model, and shows each step.

Run it with `make demo`. It needs Python's standard library and a `plinth` binary, keeps everything under `.plinth/demo`, and
ends the node that it starts. `DEMO_ONCE=1` makes it end after the last step instead of waiting for Ctrl-C.
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pictures
import traffic
from node import Failed, Node, Plinth, choose_ports, fresh_directory

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
IMAGES = json.loads((HERE / "images.json").read_text())
MODEL = "digits"
THREADS = 8
EXIT_UNVERIFIED = 7


class Screen:
    """Where the demo writes. Colours only on a terminal that wants them; shades only where they can be printed."""

    def __init__(self):
        self.colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
        self.columns = shutil.get_terminal_size((100, 24)).columns
        unicode = (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
        self.shades = pictures.SHADES if unicode else pictures.ASCII_SHADES
        self.good, self.bad, self.line = ("✓", "✗", "─") if unicode else ("ok", "x", "-")
        self.sections = 0

    def style(self, code: str, text: str) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if self.colour else text

    def write(self, text: str = "") -> None:
        print(text, flush=True)

    def section(self, title: str) -> None:
        self.sections += 1
        rule = self.line * max(4, min(self.columns, 100) - len(title) - 5)
        self.write(f"\n{self.style('1;36', f'{self.sections} {title}')} {self.style('2', rule)}")

    def command(self, line: str) -> None:
        self.write(self.style("2", f"  $ {line}"))

    def fact(self, name: str, value: str) -> None:
        self.write(f"  {name:<24}{self.style('1', value)}")

    def done(self, text: str) -> None:
        self.write(f"  {self.style('32', self.good)} {text}")

    def refused(self, text: str) -> None:
        self.write(f"  {self.style('33', self.bad)} refused: {text}")

    def note(self, text: str) -> None:
        self.write(self.style("2", f"  {text}"))


def milliseconds(seconds: float) -> str:
    return f"{seconds * 1000:.2f} ms"


class Demo:
    def __init__(self, program: Path):
        self.screen = Screen()
        self.directory = fresh_directory(ROOT)
        self.plinth = Plinth(program, self.directory, self.screen.command)
        self.private, self.public = self.directory / "keys" / "signer.pem", self.directory / "keys" / "signer.pub.pem"
        self.node: Node
        self.finished = False

    def config(self, ports: dict[str, int]) -> str:
        library = ROOT / ".plinth" / "lib" / "libonnxruntime.so"
        return (
            f'[node]\ndata_dir = "data"\n\n'
            f'[listen]\nhttp = "127.0.0.1:{ports["http"]}"\ngrpc = ""\nmetrics = "127.0.0.1:{ports["metrics"]}"\n\n'
            f"[engine]\nonnxruntime = {json.dumps(str(library))}\n\n"
            f"# Only versions that this key has signed are served.\n"
            f"[signing]\nrequire_signature = true\ntrusted_keys = [{json.dumps(str(self.public))}]\n"
        )

    # The steps, in the order of the story.

    def make_key(self) -> str:
        self.screen.section("A key to sign with, and a node that serves nothing unsigned")
        self.private.parent.mkdir()
        self.plinth("key", "new", "--out", str(self.private.parent.relative_to(self.directory) / "signer"))
        ports = choose_ports()
        if 0 in ports.values():
            self.screen.note("a usual port (8000, 8002) is taken on this machine: using free ones")
        return self.config(ports)

    def introduce(self, started: float) -> None:
        node = self.node
        self.screen.command("plinth up")
        self.screen.done(f"ready after {time.perf_counter() - started:.2f} s, process {node.child.pid}, log in {self.short(node.log)}")
        status, body = node.get("/v2")
        if status == 200:
            server = json.loads(body)
            self.screen.fact("server", f"{server['name']} {server['version']} at http://{node.http}")

    def first_version(self) -> None:
        self.screen.section("Version 1: signed, pushed, promoted, served")
        source = self.copy("models/1", "digits-1")
        self.push(source, "--sign-key", self.short(self.private), "--promote")
        self.node.wait(f"/v2/models/{MODEL}/ready", "version 1 to be served")
        self.screen.done("version 1 verified, loaded in a process of its own, and ready")

        answers = self.ask_all()
        wrong = [k for k, a in enumerate(answers) if a.label != IMAGES[k]["label"]]
        right = [k for k in range(len(answers)) if k not in wrong]
        places = pictures.fitting(self.screen.columns)
        self.show(right[: places - 1] + wrong[:1], answers)
        self.report(answers, "1")
        self.misread = wrong[:places]

    def second_version(self) -> None:
        self.screen.section(f"Version 2, promoted while {THREADS} clients send without pause")
        source = self.copy("models/2", "digits-2")
        self.push(source, "--sign-key", self.short(self.private))
        with traffic.Load(self.connect, IMAGES, THREADS) as load:
            self.node.until("the clients to be answered by version 1", lambda: load.seen("1"))
            time.sleep(1)
            self.plinth("model", "promote", f"{MODEL}@2")
            self.node.until("every client to be answered by version 2", lambda: load.seen("2"))
            time.sleep(1)
        answers = load.all()
        by_version = {v: [a for a in answers if a.version == v] for v in sorted({a.version for a in answers})}
        seconds = [a.seconds for a in answers]
        for version, part in by_version.items():
            self.screen.fact(f"answered by version {version}", f"{len(part):>7,}   {len(part) / len(answers):6.1%}")
        self.screen.fact("failed", f"{len(load.failures):>7,}")
        self.screen.fact("throughput", f"{len(answers) / load.seconds:>7,.0f}   requests/s from {THREADS} Python threads")
        self.screen.fact("latency p50, p99", f"{milliseconds(traffic.percentile(seconds, 0.5))}, {milliseconds(traffic.percentile(seconds, 0.99))}")
        if load.failures:
            raise Failed(f"{len(load.failures)} requests failed during the promotion; the first: {load.failures[0]}")
        if set(by_version) != {"1", "2"}:
            raise Failed(f"answers came from version {', '.join(by_version)} instead of 1 and 2")
        self.screen.done("the versions were swapped and no request noticed")

        answers = self.ask_all()
        self.screen.write("\n  What version 1 misread, as version 2 sees it:")
        self.show(self.misread, answers)
        self.report(answers, "2")

    def command_line(self) -> None:
        self.screen.section("The same from the command line")
        image = os.path.relpath(HERE / "png" / "7.png", self.directory)
        result = self.plinth("infer", MODEL, "--input", image, "--white", "16", "--output", "label")
        for line in result.stdout.rstrip().splitlines():
            self.screen.write(f"  {line}")

    def tampering(self) -> None:
        screen = self.screen
        screen.section("A tampered copy")
        signed = self.copy("models/2", "digits-2-signed")
        self.sign(signed)
        self.plinth("model", "verify", self.short(signed), "--public-key", self.short(self.public))
        screen.done("the signed copy verifies")
        model = signed / "model.onnx"
        content = bytearray(model.read_bytes())
        content[len(content) // 2] ^= 1
        model.write_bytes(content)
        screen.note(f"one bit of {self.short(model)} is flipped")
        self.refusal("model", "verify", self.short(signed), "--public-key", self.short(self.public))
        self.refusal("model", "push", self.short(signed), "--name", MODEL)
        self.serves("2")

    def unsigned(self) -> None:
        screen = self.screen
        screen.section("A version that nobody signed")
        unsigned = self.copy("models/2", "digits-3-unsigned")
        with (unsigned / "config.pbtxt").open("a") as config:
            config.write("# another version\n")
        self.push(unsigned)
        # Either the registry refuses to move the alias, or it moves and the node refuses to load what it points to.
        promoted = self.plinth("model", "promote", f"{MODEL}@3", expect=(0, EXIT_UNVERIFIED))
        self.promoted = promoted.returncode == 0
        why = self.node.until("the node to refuse version 3", self.reason_of_refusal) if self.promoted else reason(promoted)
        screen.refused(why)
        self.serves("2")

    def undo(self) -> None:
        if not self.promoted:
            return
        self.screen.section("One command undoes it")
        result = self.plinth("model", "rollback", MODEL, "--sign-key", self.short(self.private))
        self.screen.note(result.stdout.strip())
        self.serves("2")

    # What the steps are made of.

    def short(self, path: Path) -> str:
        """A path as one types it in the demo's directory."""
        return str(path.relative_to(self.directory))

    def sign(self, directory: Path) -> None:
        self.plinth("model", "sign", self.short(directory), "--name", MODEL, "--version", "3", "--sign-key", self.short(self.private))

    def copy(self, source: str, name: str) -> Path:
        return Path(shutil.copytree(HERE / source, self.directory / name))

    def push(self, source: Path, *more: str) -> None:
        self.plinth("model", "push", self.short(source), "--name", MODEL, *more)

    def connect(self) -> traffic.Connection:
        return traffic.Connection(self.node.http, self.node.key, MODEL)

    def ask_all(self) -> list[traffic.Answer]:
        """Every image once, one after the other on one connection."""
        connection = self.connect()
        try:
            return [connection.infer(image["pixels"]) for image in IMAGES]
        except traffic.FAILURES as error:
            raise Failed(f"an inference failed: {type(error).__name__}: {error}") from error
        finally:
            connection.close()

    def show(self, chosen: list[int], answers: list[traffic.Answer]) -> None:
        """Images as pictures, each with what the model said below it."""
        screen = self.screen
        rows = pictures.beside([pictures.picture(IMAGES[k]["pixels"], screen.shades) for k in chosen])
        screen.write()
        for row in rows:
            screen.write(f"  {row}".rstrip())
        captions = []
        for k in chosen:
            truth = IMAGES[k]["label"]
            right = answers[k].label == truth
            verdict = screen.good if right else f"is a {truth}"
            text = f"{answers[k].label}  {answers[k].probability:4.0%} {verdict}"
            captions.append(screen.style("32" if right else "31", f"{text:<{pictures.WIDTH}}"))
        screen.write(f"  {'   '.join(captions)}\n")

    def report(self, answers: list[traffic.Answer], version: str) -> None:
        """Accuracy and latency of answers that must all come from one version."""
        others = {a.version for a in answers} - {version}
        if others:
            raise Failed(f"version {version} should have answered, but version {', '.join(sorted(others))} did")
        right = sum(a.label == image["label"] for a, image in zip(answers, IMAGES))
        seconds = [a.seconds for a in answers]
        self.screen.fact(f"accuracy of version {version}", f"{right / len(answers):.1%}   {right} of {len(answers)} images")
        self.screen.fact("latency p50, p99", f"{milliseconds(traffic.percentile(seconds, 0.5))}, {milliseconds(traffic.percentile(seconds, 0.99))}   one connection, JSON")

    def refusal(self, *arguments: str) -> None:
        """Runs a command that must be refused, and shows why it was."""
        result = self.plinth(*arguments, expect=None)
        self.screen.refused(reason(result))

    def serves(self, version: str) -> None:
        answers = self.ask_all()
        if {a.version for a in answers} != {version}:
            raise Failed(f"version {version} should be serving, but version {', '.join(sorted({a.version for a in answers}))} answered")
        self.screen.done(f"version {version} serves on: {len(answers)} of {len(answers)} requests answered by it")

    def reason_of_refusal(self) -> str | None:
        status, body = self.node.get("/v1/status")
        models = json.loads(body)["models"] if status == 200 else []
        return next((m["reason"] for m in models if str(m["version"]) == "3" and m.get("reason")), None)

    def farewell(self) -> None:
        screen, node = self.screen, self.node
        screen.section("It is yours")
        screen.fact("inference, admin API", f"http://{node.http}")
        if node.metrics:
            screen.fact("metrics", f"http://{node.metrics}/metrics")
        screen.fact("admin key", node.key)
        screen.write("\n  Try, in another terminal:\n")
        home = os.path.relpath(self.directory, Path.cwd())
        program = self.plinth.program
        lines = [
            f"export PLINTH_SERVER=http://{node.http} PLINTH_KEY={node.key}",
            f"alias plinth={program}",
            "plinth status",
            f"plinth model show {MODEL}",
            f"plinth infer {MODEL} --input {os.path.relpath(HERE / 'png' / '3.png', Path.cwd())} --white 16",
            f"curl -s -H \"Authorization: Bearer $PLINTH_KEY\" $PLINTH_SERVER/v2/models/{MODEL}",
            f"tail -f {home}/node.log",
        ]
        for line in lines:
            screen.write(f"    {line}")
        screen.write()

    def run(self) -> None:
        config = self.make_key()
        started = time.perf_counter()
        with Node(self.plinth, config) as self.node:
            self.introduce(started)
            self.first_version()
            self.second_version()
            self.command_line()
            self.tampering()
            self.unsigned()
            self.undo()
            self.farewell()
            self.finished = True
            if not os.environ.get("DEMO_ONCE"):
                self.screen.write("  Ctrl-C ends the node.")
                while True:
                    self.node.alive()
                    time.sleep(0.5)


def reason(result: subprocess.CompletedProcess) -> str:
    """Why a command was refused: its error, or else the last line of its answer."""
    errors = [line.removeprefix("error:").strip() for line in result.stderr.splitlines() if line.startswith("error:")]
    return (errors or result.stdout.split("\n\n")[-1].strip().splitlines() or ["it did not say why"])[-1].strip()


def show_failure(screen: Screen, error: Failed, log: Path) -> None:
    print(f"\n{screen.style('1;31', 'The demo failed:')} {error}", file=sys.stderr)
    if log.exists():
        lines = log.read_text(errors="replace").splitlines()[-30:]
        print(f"\nthe last lines of {log}:", *lines, sep="\n  ", file=sys.stderr)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--plinth", type=Path, required=True, help="the plinth binary")
    program = parser.parse_args().plinth.resolve()
    if not program.exists():
        parser.error(f"there is no {program}: run `make demo`")
    # A polite request to end is treated as Ctrl-C, so that the node is ended too.
    signal.signal(signal.SIGTERM, lambda *_: (_ for _ in ()).throw(KeyboardInterrupt()))
    demo = Demo(program)
    try:
        demo.run()
    except KeyboardInterrupt:
        demo.screen.write("\n  the node has ended")
        return 0 if demo.finished else 130
    except Failed as error:
        show_failure(demo.screen, error, demo.directory / "node.log")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
