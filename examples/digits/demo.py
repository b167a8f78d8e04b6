#!/usr/bin/env python3
"""The demo: registers, signs, serves and replaces a model, and shows each step.

Run it with `make demo`. It needs Python's standard library and a `plinth` binary, keeps everything under `.plinth/demo`, and
ends the node that it starts. `DEMO_ONCE=1` makes it end after the last step instead of waiting for Ctrl-C.
"""

import argparse
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pictures
import traffic
from node import Failed, Node, Plinth, choose_ports
from screen import Screen

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
IMAGES = json.loads((HERE / "images.json").read_text())
MODEL = "digits"
THREADS = 8
STEPS = 60
UNVERIFIED = 7  # the exit code of plinth for what a signature does not vouch for


def milliseconds(seconds: float) -> str:
    return f"{seconds * 1000:.2f} ms"


class Demo:
    def __init__(self, program: Path):
        self.screen = Screen()
        self.directory = ROOT / ".plinth" / "demo"
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

    def welcome(self) -> None:
        self.screen.write()
        self.screen.note(
            "Plinth registers, signs, loads and serves models. This demo shows it with a model that reads handwritten digits. "
            f"Every command below is one that you can type; everything is kept under {os.path.relpath(self.directory, ROOT)}."
        )

    def make_key(self) -> str:
        about = "The node's configuration names the public key; what the private key has not signed is never loaded."
        self.screen.section("A signing key, and a node that serves nothing unsigned", about)
        self.private.parent.mkdir()
        self.plinth("key", "new", "--out", str(self.private.parent.relative_to(self.directory) / "signer"))
        ports = choose_ports()
        if 0 in ports.values():
            self.screen.note("a usual port (8000, 8002) is taken on this machine: using free ones")
        return self.config(ports)

    def introduce(self, seconds: float) -> None:
        node = self.node
        self.screen.done(f"ready after {seconds:.2f} s: {self.server()} at http://{node.http}, process {node.child.pid}")

    def server(self) -> str:
        status, body = self.node.get("/v2")
        if status != 200:
            raise Failed(f"/v2 answered {status} instead of 200")
        answer = json.loads(body)
        return f"{answer['name']} {answer['version']}"

    def first_version(self) -> None:
        about = "A version is a directory of files, addressed by their digests and immutable. An alias says which one serves."
        self.screen.section("Version 1: signed, pushed, promoted, served", about)
        source = self.copy("models/1", "digits-1")
        self.push(source, "--sign-key", self.short(self.private), "--promote", "--wait")
        self.screen.done("version 1 is verified, loaded in a process of its own, and ready")

        answers = self.ask_all()
        wrong = [k for k, a in enumerate(answers) if a.label != IMAGES[k]["label"]]
        right = [k for k in range(len(answers)) if k not in wrong]
        places = pictures.fitting(self.screen.columns)
        self.show(right[: places - 1] + wrong[:1], answers)
        self.report(answers, "1")
        self.misread = wrong[:places]

    def second_version(self) -> None:
        about = "The new version is loaded beside the old one; requests change over when it is ready, and none is lost."
        self.screen.section(f"Version 2, promoted while {THREADS} clients send without pause", about)
        source = self.copy("models/2", "digits-2")
        self.push(source, "--sign-key", self.short(self.private))
        with traffic.Load(self.connect, IMAGES, THREADS) as load:
            self.node.until("the clients to be answered by version 1", lambda: load.seen("1"))
            time.sleep(1)
            self.plinth("model", "promote", f"{MODEL}@2")
            self.node.until("every client to be answered by version 2", lambda: load.seen("2"))
            time.sleep(1)
        self.judge(load)

        answers = self.ask_all()
        self.screen.write("\n  What version 1 misread, as version 2 sees it:")
        self.show(self.misread, answers)
        self.report(answers, "2")

    def judge(self, load: traffic.Load) -> None:
        """Shows what came of the requests during a promotion; every one must have been answered."""
        screen, answers = self.screen, load.all()
        self.timeline(load)
        by_version = {v: sum(a.version == v for a in answers) for v in sorted({a.version for a in answers})}
        for version, count in by_version.items():
            screen.fact(f"answered by version {version}", f"{count:>7,}", f"{count / len(answers):.1%}")
        screen.fact("failed", f"{len(load.failures):>7,}")
        screen.fact("throughput", f"{len(answers) / load.seconds:>7,.0f}", f"requests/s from {THREADS} Python threads, which are the limit")
        self.latency(answers, "while the version changed")
        if load.failures:
            raise Failed(f"{len(load.failures)} requests failed during the promotion; the first: {load.failures[0]}")
        if set(by_version) != {"1", "2"}:
            raise Failed(f"answers came from version {', '.join(by_version)} instead of 1 and 2")
        screen.done("the versions were swapped and no request noticed")

    def timeline(self, load: traffic.Load) -> None:
        """How much was answered, by which version, over time: a column for each moment, `+` where both answered."""
        screen, steps = self.screen, load.steps(STEPS)
        versions = [{a.version for a in step} for step in steps]
        colours = ["36" if seen == {"1"} else "32" if seen == {"2"} else "33" for seen in versions]
        who = [seen.copy().pop() if len(seen) == 1 else "+" if seen else " " for seen in versions]
        screen.write()
        if screen.unicode:
            drawn = pictures.bars([len(step) for step in steps])
            screen.write(f"  {'requests':<12}" + "".join(map(screen.style, colours, drawn)))
        screen.write(f"  {'answered by':<12}" + "".join(map(screen.style, colours, who)))
        screen.write(f"  {'':<12}{screen.style('2', f'each column is {load.seconds * 1000 / STEPS:.0f} ms')}\n")

    def command_line(self) -> None:
        self.screen.section("The same from the command line", "Images, .npy files and JSON go in; tables and JSON come out.")
        image = os.path.relpath(HERE / "png" / "7.png", self.directory)
        result = self.plinth("infer", MODEL, "--input", image, "--white", "16", "--output", "label")
        self.screen.quote(result.stdout)
        if result.stdout.split()[-1] != "7":
            raise Failed("the image shows a 7, and that is not what the model answered")

    def tampering(self) -> None:
        screen = self.screen
        screen.section("A tampered copy", "A signature covers every file, the model's name and the version's number.")
        signed = self.copy("models/2", "digits-2-signed")
        self.sign(signed)
        verify = ("model", "verify", self.short(signed), "--public-key", self.short(self.public))
        self.plinth(*verify)
        screen.done("the signed copy verifies")
        model = signed / "model.onnx"
        content = bytearray(model.read_bytes())
        content[len(content) // 2] ^= 1
        model.write_bytes(content)
        screen.note(f"Now one bit of {self.short(model)} is flipped.")
        self.refusal(*verify)
        self.refusal("model", "push", self.short(signed), "--name", MODEL)
        self.serves("2")

    def unsigned(self) -> None:
        screen = self.screen
        screen.section("A version that nobody signed", "It may be registered and promoted. The node does not load it, and the version before serves on.")
        unsigned = self.copy("models/2", "digits-3-unsigned")
        with (unsigned / "config.pbtxt").open("a") as config:
            config.write("# another version\n")
        self.push(unsigned)
        self.refusal("model", "promote", f"{MODEL}@3", "--wait")
        self.serves("2")

    def undo(self) -> None:
        about = "On a node that requires signatures the way back to an older version is signed too: nobody downgrades in silence."
        self.screen.section("One command undoes it", about)
        result = self.plinth("model", "rollback", MODEL, "--sign-key", self.short(self.private))
        self.screen.quote(result.stdout)
        self.serves("2")
        self.screen.quote(self.plinth("model", "audit", MODEL).stdout)

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
        rows = pictures.beside([screen.picture(IMAGES[k]["pixels"]) for k in chosen])
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
        share = self.screen.share(right / len(answers))
        self.screen.write(f"  {f'accuracy of version {version}':<24}{self.screen.style('1', f'{right / len(answers):.1%}')}  {share}  {right} of {len(answers)} images")
        self.latency(answers, "one connection, JSON")

    def latency(self, answers: list[traffic.Answer], how: str) -> None:
        seconds = [a.seconds for a in answers]
        p50, p99 = (milliseconds(traffic.percentile(seconds, share)) for share in (0.5, 0.99))
        self.screen.fact("latency p50, p99", f"{p50}, {p99}", how)

    def refusal(self, *arguments: str) -> None:
        """Runs a command that must be refused because of a signature, and shows why it was."""
        result = self.plinth(*arguments, expect=(UNVERIFIED,))
        self.screen.refused(f"{reason(result)} (exit code {result.returncode})")

    def serves(self, version: str) -> None:
        answers = self.ask_all()
        if {a.version for a in answers} != {version}:
            raise Failed(f"version {version} should be serving, but version {', '.join(sorted({a.version for a in answers}))} answered")
        self.screen.done(f"version {version} serves on: {len(answers)} of {len(answers)} requests answered by it")

    def addresses(self) -> None:
        screen, node = self.screen, self.node
        screen.section("What now runs")
        screen.quote(self.plinth("status").stdout)
        screen.write()
        screen.fact("inference, admin API", f"http://{node.http}")
        if node.metrics:
            screen.fact("metrics", f"http://{node.metrics}/metrics")
        screen.fact("log", os.path.relpath(node.log))

    def farewell(self) -> None:
        self.screen.write("\n  Try, in another terminal:\n")
        lines = [
            f"export PLINTH_SERVER=http://{self.node.http}",
            f"export PLINTH_KEY={self.node.key}",
            f"alias plinth={shlex.quote(str(self.plinth.program))}",
            f"plinth infer {MODEL} --input {os.path.relpath(HERE / 'png' / '3.png')} --white 16",
            f"plinth model show {MODEL}",
            f'curl -s -H "Authorization: Bearer $PLINTH_KEY" $PLINTH_SERVER/v2/models/{MODEL}',
        ]
        for line in lines:
            self.screen.write(f"    {line}")
        self.screen.write("\n  Ctrl-C ends the node.")

    def run(self) -> None:
        began = time.perf_counter()
        shutil.rmtree(self.directory, ignore_errors=True)
        self.directory.mkdir(parents=True)
        self.welcome()
        config = self.make_key()
        self.screen.command("plinth up")
        started = time.perf_counter()
        with Node(self.plinth, config) as self.node:
            self.introduce(time.perf_counter() - started)
            self.first_version()
            self.second_version()
            self.command_line()
            self.tampering()
            self.unsigned()
            self.undo()
            self.addresses()
            self.finished = True
            if not os.environ.get("DEMO_ONCE"):
                self.farewell()
                self.node.stay()
        self.screen.write()
        self.screen.done(f"all of it in {time.perf_counter() - began:.0f} s; the node has ended. Without DEMO_ONCE it stays up for you to try")


def reason(result: subprocess.CompletedProcess) -> str:
    """Why a command was refused: its error, or else the last line of its answer."""
    errors = [line.removeprefix("error:").strip() for line in result.stderr.splitlines() if line.startswith("error:")]
    return (errors or result.stdout.split("\n\n")[-1].strip().splitlines() or ["it did not say why"])[-1].strip()


def show_failure(screen: Screen, error: Failed, log: Path) -> None:
    print(f"\n{screen.style('1;31', 'The demo failed:')} {error}", file=sys.stderr)
    if log.exists():
        lines = log.read_text(errors="replace").splitlines()[-30:]
        print(f"\nthe last lines of {log}:", *lines, sep="\n  ", file=sys.stderr)


def interrupt(*_) -> None:
    raise KeyboardInterrupt


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--plinth", type=Path, required=True, help="the plinth binary")
    program = parser.parse_args().plinth.resolve()
    if not program.exists():
        parser.error(f"there is no {program}: run `make demo`")
    # A polite request to end is treated as Ctrl-C, so that the node is ended too.
    for polite in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(polite, interrupt)
    sys.stdout.reconfigure(errors="replace")
    demo = Demo(program)
    try:
        demo.run()
    except KeyboardInterrupt:
        demo.screen.write("\n  the node has ended")
        return 0 if demo.finished else 130
    except BrokenPipeError:
        # Whoever read along has gone. What is left in the buffer must not fail again when Python ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Failed as error:
        show_failure(demo.screen, error, demo.directory / "node.log")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
