# What one does with this repository, by name. The work is done by cargo and by scripts/; nothing is configured here but where
# cargo builds: PLINTH_TARGET_DIR, when it is set, is a target directory that several checkouts share.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

ifdef PLINTH_TARGET_DIR
export CARGO_TARGET_DIR ?= $(PLINTH_TARGET_DIR)
endif
TARGET := $(or $(CARGO_TARGET_DIR),target)
PYTHON ?= python3

##@ See it
.PHONY: demo
demo: need-cargo need-python need-cc claim ## build Plinth and watch it serve handwritten digits (DEMO_ONCE=1 ends by itself)
	@scripts/fetch-onnxruntime.sh
	@cargo build --locked --profile demo --package plinth --bin plinth
	@$(PYTHON) examples/digits/demo.py --plinth "$(TARGET)/demo/plinth"

##@ Work on it
.PHONY: setup build test verify fix bench deny
setup: need-cargo need-python ## fetch what cargo does not: ONNX Runtime, the Python packages of the tests, the example filters
	@scripts/fetch-onnxruntime.sh
	@scripts/python-venv.sh
	@scripts/example-filters.sh

build: need-cargo need-cc claim ## build the release binary
	@cargo build --locked --release --package plinth --bin plinth
	@scripts/fetch-onnxruntime.sh
	@echo "built $(TARGET)/release/plinth"

test: need-cargo need-cc setup claim ## run all tests, with the services that this machine has
	@scripts/services.sh
	@cd examples/digits && $(PYTHON) -B -m unittest --quiet
	@if cargo nextest --version >/dev/null 2>&1; then \
	  cargo nextest run --locked --workspace --all-features --no-fail-fast; \
	else \
	  echo "cargo-nextest is not installed: using cargo test, which does not end tests that hang"; \
	  cargo test --locked --workspace --all-features --no-fail-fast; \
	fi

verify: need-cargo need-cc claim ## formatting, lints, floors, licences, docs; writes nothing
	@cargo xtask verify

fix: need-cargo claim ## format, and apply what clippy can fix
	@cargo xtask fix

bench: need-cargo need-python need-cc claim ## measure a release build beside its rivals, and write bench/results/ (takes about 15 minutes)
	@scripts/fetch-onnxruntime.sh
	@scripts/rivals.sh || echo "some rivals are missing; what needs them is skipped, and said so"
	@cargo build --locked --release --package plinth --bin plinth
	@cargo build --locked --release --package plinth-bench
	@cargo build --locked --release --package plinth-engine --features testing --example round_trip
	@commit=$$(git describe --always --dirty --exclude '*' 2>/dev/null || echo unknown); failed=0; \
	"$(TARGET)/release/plinth-bench" all --plinth "$(TARGET)/release/plinth" --onnxruntime .plinth/lib/libonnxruntime.so \
	  --models examples/digits/models --rivals .plinth/rivals --round-trip "$(TARGET)/release/examples/round_trip" \
	  --out bench/results --commit "$$commit" --date "$$(date -u +%F)" $(BENCH) || failed=1; \
	"$(TARGET)/release/plinth-bench" page bench/results docs/performance.md; \
	exit $$failed

deny: ## advisories too, where cargo-deny is installed
	@if cargo deny --version >/dev/null 2>&1; then cargo deny --all-features check; \
	else echo "cargo-deny is not installed (cargo install --locked cargo-deny); make verify has checked licences, bans and sources"; fi

##@ Tidy up
.PHONY: clean clean-demo
clean: ## delete what cargo built and what setup fetched
	@cargo clean
	@rm -rf .plinth

clean-demo: ## delete what the demo left
	@rm -rf .plinth/demo

##@ Help
.PHONY: help
help: ## this list
	@awk 'BEGIN { FS = ":.*## "; printf "Plinth registers, signs, loads and serves models.\n" } \
	  /^##@ / { printf "\n%s\n", substr($$0, 5) } \
	  /^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# What a fresh machine may lack, said before anything fails half-way.
.PHONY: need-cargo need-python need-cc claim
need-cargo:
	@command -v cargo >/dev/null || { echo "cargo is missing: install Rust 1.95 or newer, see https://www.rust-lang.org/tools/install" >&2; exit 1; }
need-python:
	@$(PYTHON) -m pip --version >/dev/null 2>&1 || { echo "python3 with pip is missing (Debian and Ubuntu: apt install python3-pip python3-venv)" >&2; exit 1; }
need-cc:
	@command -v cc >/dev/null || { echo "a C compiler is missing, SQLite needs one (Debian and Ubuntu: apt install build-essential)" >&2; exit 1; }
claim:
	@scripts/shared-target.sh claim
