"""Runs Triton's perf_analyzer, as scripts/perf-analyzer.sh fetches it, against a node that it starts: every way of asking that it has and Plinth serves.

    run_perf_analyzer.py --plinth target/release/plinth [--full] [--out FILE.md]

Each run must end with 0 and name no error. Without --full a run measures only as long as it takes to see that it works; its numbers mean nothing.
With --full each measures windows of two seconds, and the sweeps go to 16 at a time.
"""

import argparse
import os
import pathlib
import re
import subprocess
import sys
import time

import example_node

HOME = example_node.ROOT / ".plinth/rivals/perf_analyzer"
PROGRAM = HOME / "perf_analyzer"
MODELS = ["simple", "simple_string", "simple_identity", "simple_sequence", "simple_dyna_sequence"]
SWEEP = "--concurrency-range"

# What is run: a name, the protocol, the arguments. {most} is the end of a sweep.
RUNS = [
    ("HTTP, binary", "http", ["-m", "simple", SWEEP, "1:{most}"]),
    ("HTTP, JSON", "http", ["-m", "simple", SWEEP, "1:{most}", "--input-tensor-format", "json", "--output-tensor-format", "json"]),
    ("HTTP, shared memory", "http", ["-m", "simple", SWEEP, "1:{most}", "--shared-memory", "system"]),
    ("HTTP, batches of 4", "http", ["-m", "simple", SWEEP, "2", "-b", "4"]),
    ("HTTP, at a rate", "http", ["-m", "simple", "--request-rate-range", "100:200:100"]),
    ("HTTP, texts", "http", ["-m", "simple_string", "--string-data", "5"]),
    ("HTTP, texts of any number", "http", ["-m", "simple_identity", "--shape", "INPUT0:4"]),
    ("HTTP, sequences (direct)", "http", ["-m", "simple_sequence", SWEEP, "2"]),
    ("gRPC", "grpc", ["-m", "simple", SWEEP, "1:{most}"]),
    ("gRPC, asynchronous", "grpc", ["-m", "simple", SWEEP, "{most}", "-a"]),
    ("gRPC, stream", "grpc", ["-m", "simple", SWEEP, "1:{most}", "--streaming"]),
    ("gRPC, shared memory", "grpc", ["-m", "simple", SWEEP, "1:{most}", "--shared-memory", "system"]),
    ("gRPC, gzip", "grpc", ["-m", "simple", SWEEP, "2", "--grpc-compression-algorithm", "gzip"]),
    ("gRPC, sequences (oldest)", "grpc", ["-m", "simple_dyna_sequence", SWEEP, "2"]),
    ("gRPC, sequences in a stream", "grpc", ["-m", "simple_dyna_sequence", SWEEP, "2", "--streaming"]),
]
QUICK = ["-p", "150"]
FULL = ["-p", "2000"]
# Numbers that differ between windows are no error of the server's.
CALM = ["-s", "999", "-r", "10"]


def run(arguments, url, deadline):
    """Whether it ran to its end without an error, and the lines with its results or its complaint."""
    command = [PROGRAM, "-u", url, *arguments]
    environment = {**os.environ, "LD_LIBRARY_PATH": str(HOME / "lib")}
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=deadline, env=environment)
    except subprocess.TimeoutExpired:
        return False, [f"did not end within {deadline} s"]
    lines = (done.stdout + done.stderr).splitlines()
    results = [line for line in lines if re.match(r"(Concurrency|Request Rate): .*throughput: (?!0 )", line)]
    errors = [line for line in lines if re.search("error|failed", line, re.IGNORECASE)]
    if done.returncode == 0 and results and not errors:
        return True, results
    return False, [f"exit code {done.returncode}", *(errors or lines[-5:])]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plinth", type=pathlib.Path, required=True)
    parser.add_argument("--onnxruntime", type=pathlib.Path, default=example_node.LIBRARY)
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--out", type=pathlib.Path, help="a table of the results, in Markdown")
    options = parser.parse_args()
    if not PROGRAM.exists():
        sys.exit("perf_analyzer is not there: run scripts/perf-analyzer.sh")

    length, most, deadline = (FULL, 16, 600) if options.full else (QUICK, 2, 60)
    failed, rows = [], []
    with example_node.node(options.plinth, options.onnxruntime) as node:
        for name in MODELS:
            node.push(name)
        for name, protocol, arguments in RUNS:
            arguments = [argument.format(most=most) for argument in arguments] + ["-i", protocol]
            began = time.monotonic()
            good, said = run([*arguments, *length, *CALM], node.http if protocol == "http" else node.grpc, deadline)
            if not good:
                failed.append(name)
            print(f"{'ok' if good else 'FAILED'}: {name} ({time.monotonic() - began:.1f} s)", *said, sep="\n  ", flush=True)
            rows += [(name, " ".join(arguments), line) for line in said]
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(table(rows))
    sys.exit(f"failed: {', '.join(failed)}" if failed else 0)


def table(rows):
    head = "# perf_analyzer 2.50.0 against Plinth\n\nThe example model `simple` (two inputs of 16 numbers), perf_analyzer on the same machine.\n\n"
    lines = "".join(f"| {name} | {line} |\n" for name, _, line in rows)
    return f"{head}| run | result |\n|---|---|\n{lines}"


if __name__ == "__main__":
    main()
