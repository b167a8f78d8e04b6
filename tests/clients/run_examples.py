"""Runs the example programs of Triton's public client, unmodified, against a node that it starts for them.

    run_examples.py --plinth target/release/plinth --examples client/src/python/examples [--only TEXT] [--markdown]

The examples are those of github.com/triton-inference-server/client, in a checkout of yours; Plinth ships none of them. The node runs
in a directory that is deleted afterwards, with the models of make_models.py under the names that the examples ask for, and calls itself
`triton`, which two of them check. Exits with 1 when an example fails that docs/compatibility.md does not list, or passes that it lists as failing.
"""

import argparse
import importlib.metadata
import pathlib
import subprocess
import sys

import example_node
import make_models

# What one example may take; the slowest waits a second on its own.
DEADLINE = 60

# Not run, and why. Everything else that is called simple_*.py is.
SKIPPED = {
    "simple_http_cudashm_client.py": "needs a GPU",
    "simple_grpc_cudashm_client.py": "needs a GPU",
    "simple_grpc_custom_repeat.py": "needs a decoupled model, of which Plinth has none",
}
# Run, and expected to end with the second text when the program contains the first: a difference from Triton that we chose.
DIFFERS = {}
# Those that are not called simple_*, but need no GPU and no network with weights.
OTHERS = [
    ("grpc_client.py", "grpc", []),
    ("grpc_explicit_byte_content_client.py", "grpc", []),
    ("grpc_explicit_int8_content_client.py", "grpc", []),
    ("grpc_explicit_int_content_client.py", "grpc", []),
    ("reuse_infer_objects_client.py", "http", []),
    ("reuse_infer_objects_client.py", "grpc", ["-i", "grpc"]),
]
# What an example can be asked beyond its defaults.
MORE = {
    "simple_http_infer_client.py": [["--request-compression-algorithm", "gzip", "--response-compression-algorithm", "deflate"]],
    "simple_http_aio_infer_client.py": [["--request-compression-algorithm", "deflate", "--response-compression-algorithm", "gzip"]],
    "simple_grpc_infer_client.py": [["-C", "gzip"], ["-C", "deflate"]],
    "simple_grpc_aio_infer_client.py": [["-C", "gzip"]],
    "simple_grpc_keepalive_client.py": [["--grpc-keepalive-time", "1000", "--grpc-keepalive-permit-without-calls"]],
    "simple_http_sequence_sync_infer_client.py": [["--dyna"]],
    "simple_grpc_sequence_sync_infer_client.py": [["--dyna"]],
    "simple_grpc_sequence_stream_infer_client.py": [["--dyna"]],
    "simple_grpc_aio_sequence_stream_infer_client.py": [["--dyna"]],
}
# The one that counts the models of the node to seven; its twin for gRPC counts one more.
COUNTS_SEVEN = "simple_http_model_control.py"
EIGHTH = make_models.PICTURES


def plan(examples):
    """(script, protocol, arguments) in the order in which they run; first the one that counts seven models."""
    found = sorted(path.name for path in examples.glob("simple_*.py"))
    calls = []
    for name in sorted(found, key=lambda name: name != COUNTS_SEVEN):
        protocol = "http" if "_http_" in name else "grpc"
        calls.append((name, protocol, []))
        if name not in SKIPPED:
            calls += [(name, protocol, more) for more in MORE.get(name, [])]
    return calls + [call for call in OTHERS if (examples / call[0]).exists()]


def run(script, arguments, url):
    """Whether it ended well, and what it said last."""
    command = [sys.executable, "-B", script, "-u", url, *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE)
    except subprocess.TimeoutExpired:
        return False, f"did not end within {DEADLINE} s"
    lines = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
    # Several exit with 0 whatever happened; those that can say PASS must.
    failed = done.returncode != 0 or any(line.startswith("FAILED") for line in lines)
    silent = 'print("PASS' in script.read_text() and not any(line.startswith("PASS") for line in lines)
    return not failed and not silent, lines[-1] if lines else "it said nothing"


def outcome(script, passed, said):
    mark, words = DIFFERS.get(script.name, (None, None))
    if mark is None or mark not in script.read_text():
        return "passes" if passed else "FAILS", "" if passed else said
    if not passed and words in said:
        return "differs", said
    return ("PASSES, but is listed as different", "") if passed else ("FAILS", said)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plinth", type=pathlib.Path, required=True)
    parser.add_argument("--examples", type=pathlib.Path, required=True)
    parser.add_argument("--onnxruntime", type=pathlib.Path, default=example_node.LIBRARY)
    parser.add_argument("--only", default="", help="part of the name of what shall run")
    parser.add_argument("--markdown", action="store_true", help="the table as docs/compatibility.md has it")
    options = parser.parse_args()

    examples = options.examples.resolve()
    calls = [call for call in plan(examples) if options.only in call[0]]
    if not calls:
        sys.exit(f"no such examples in {examples}")
    rows, models = [], set(make_models.MODELS) - {EIGHTH}
    with example_node.node(options.plinth, options.onnxruntime) as node:
        for name in sorted(models):
            node.push(name)
        for name, protocol, arguments in calls:
            if name in SKIPPED:
                rows.append((name, arguments, "skipped", SKIPPED[name]))
                continue
            if name != COUNTS_SEVEN and EIGHTH not in models:
                node.push(EIGHTH)
                models.add(EIGHTH)
            passed, said = run(examples / name, arguments, node.http if protocol == "http" else node.grpc)
            rows.append((name, arguments, *outcome(examples / name, passed, said)))
            if "model_control" in name:
                # It leaves `simple` unloaded, which the others need.
                node.load("simple")
    print(f"tritonclient {importlib.metadata.version('tritonclient')}\n")
    for name, arguments, result, why in rows:
        line = " ".join([name, *arguments])
        print(f"| `{line}` | {result} | {why} |" if options.markdown else f"{result:8} {line}  {why}")
    bad = [name for name, _, result, _ in rows if result not in ("passes", "skipped", "differs")]
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
