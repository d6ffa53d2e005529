# The two commands that matter: `make serve` and `make test`. `make help` lists the rest.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
ARGS   ?=

.DEFAULT_GOAL := help
.PHONY: help serve test lint types unit chaos bench-broker soak-broker soak soak-api bench-encoder bench bench-peers bench-decoding clean

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 14

$(STAMP): pyproject.toml api/_resample.c
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

# The installed layout for mypy and lint-imports, which do not see through an editable install's import hook.
.typing: Makefile
	@rm -rf $@ && mkdir -p $@/hailo_clip
	@ln -s $(addprefix ../../,api broker ops shared workers ops/package/__init__.py ops/package/py.typed) $@/hailo_clip

serve: $(STAMP)  ## serve the demo model on port 5000 (ARGS="--port 5050" for more)
	$(BIN)/hailo-clip serve --model demo $(ARGS)

test: lint types unit  ## lint, types and the whole test suite

lint: $(STAMP) .typing  ## ruff and the import rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	PYTHONPATH=.typing $(BIN)/lint-imports

types: $(STAMP) .typing  ## mypy --strict
	$(BIN)/mypy

unit: $(STAMP) .typing  ## the tests alone (ARGS="-k broker" to choose)
	$(BIN)/pytest -q -n 2 --dist loadgroup $(ARGS)

chaos: $(STAMP)  ## 5,000 requests while processes are killed, stopped and hung (about a minute)
	HAILO_CLIP_CHAOS_REQUESTS=5000 $(BIN)/pytest -q -s tests/chaos $(ARGS)

bench: $(STAMP)  ## the whole service: rates, latency, CPU, memory, plots into docs/ (15 minutes)
	$(BIN)/hailo-clip bench --suite --plots docs $(ARGS)

PEERS := .venv-peers
$(PEERS)/.installed: pyproject.toml api/_resample.c
	$(PYTHON) -m venv $(PEERS)
	$(PEERS)/bin/pip install --quiet --disable-pip-version-check --editable . \
	  'mosec>=0.9.8,<0.10' 'litserve>=0.2.19,<0.3' 'flask>=3.1,<4'
	@touch $@

bench-peers: $(PEERS)/.installed  ## beside mosec, LitServe and Flask in the same run (20 minutes; ARGS="--rounds 1" for less)
	$(PEERS)/bin/python -m hailo_clip.ops.bench.peers $(ARGS)

bench-decoding: $(STAMP)  ## decoding and resizing beside the plain way (seconds; ARGS="--model demo" compares embeddings)
	$(BIN)/python -m hailo_clip.ops.bench.decoding $(ARGS)

bench-broker: $(STAMP)  ## the broker alone beside a bare ZeroMQ echo (a minute; ARGS="--rounds 3" for less)
	$(BIN)/python -m hailo_clip.ops.bench_broker $(ARGS)

soak-broker: $(STAMP)  ## 20,000 random histories of the broker, then 20,000 requests of chaos (10 minutes)
	for seed in 1 2 3 4; do HAILO_CLIP_HISTORIES=5000 \
		$(BIN)/pytest -q tests/unit/test_broker_histories.py --hypothesis-seed=$$seed $(ARGS) || exit 1; done
	HAILO_CLIP_CHAOS_REQUESTS=20000 $(BIN)/pytest -q -s tests/chaos $(ARGS)

soak-api: $(STAMP)  ## 100,000 mutated requests to a whole service, and schemathesis for long (10 minutes)
	HAILO_CLIP_SOAK=1 $(BIN)/pytest -q -s tests/integration/test_fuzz.py tests/integration/test_schemathesis.py $(ARGS)

soak: $(STAMP)  ## the whole service on the Hailo double: 1 to 4 devices x 1 to 4 workers, every fault (10 minutes)
	HAILO_CLIP_SOAK=1 $(BIN)/pytest -q tests/integration/test_hailo_serve.py $(ARGS)

bench-encoder: $(STAMP)  ## how busy the Hailo encoder keeps one and two devices of the double (2 minutes)
	$(BIN)/python -m tests.doubles.bench $(ARGS)

clean:  ## remove the venv and caches
	rm -rf api/_resample.*.so $(VENV) $(PEERS) .typing build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
