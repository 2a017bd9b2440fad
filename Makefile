# `make` prints the targets. Everything runs in .venv, made from the hash-locked requirements.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.made-from-lock
ARGS   ?=
JOBS   ?= 2
PREFIX ?= /opt/vigintd

.DEFAULT_GOAL := help
.PHONY: help setup run demo check lint types floors test bench bench-detection campaign-reconnects campaign-64-cameras campaign-kill campaign-kill-points campaign-machine campaign-uploads lock install clean

help: ## print the targets
	@awk -F':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-21s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(STAMP): tests/requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 11) <= v < (3, 14) else "vigintd needs Python 3.11 to 3.13; this is %d.%d. Try: make PYTHON=python3.11" % v)'
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes --requirement tests/requirements.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

setup: $(STAMP) ## make the virtual environment; as root on Debian also the real parts that tests use
	@sh tests/real/install.sh
	@sh tests/real/axe.sh $(VENV)

run: $(STAMP) ## run the daemon: make run ARGS="--config vigintd.toml"
	@$(BIN)/vigintd run $(ARGS)

demo: $(STAMP) ## the whole way without a camera, an account or a server (ARGS="--once --json" for one JSON object)
	@$(BIN)/vigintd demo $(ARGS)

check: lint types floors ## everything that reads the code: lint, types, floors

lint: $(STAMP) ## ruff: rules and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP) ## mypy, strict
	$(BIN)/mypy

floors: $(STAMP) ## import-linter: the floors of docs/design/floors.md
	$(BIN)/lint-imports

test: $(STAMP) ## all tests; what this machine lacks is skipped with its reason (ARGS="-k word" to choose, JOBS=2 at a time)
	$(BIN)/pytest -n $(JOBS) --dist loadfile $(ARGS)

bench: $(STAMP) ## figures of this machine, printed and never asserted
	$(BIN)/python tests/bench/alerting.py $(ARGS)
	$(BIN)/python -m tests.bench.triggers
	$(BIN)/python -m tests.bench.viewing

bench-detection: $(STAMP) ## adaptive detection beside full decoding: what each finds, and at what CPU
	$(BIN)/python -m tests.bench.detection $(ARGS)

campaign-reconnects: $(STAMP) ## 1,000 reconnects of one camera: threads, descriptors, memory (ARGS="--write" for docs/bench)
	$(BIN)/python -m tests.campaigns.reconnects $(ARGS)

campaign-64-cameras: $(STAMP) ## 64 cameras in one process: packets lost, loop lag, CPU (ARGS="--write" for docs/bench)
	$(BIN)/python -m tests.campaigns.many_cameras $(ARGS)

campaign-kill: $(STAMP) ## 500 kills at random: what is lost, sent twice or left behind (ARGS="--write" for docs/bench)
	$(BIN)/python -m tests.campaigns.kill $(ARGS)

campaign-kill-points: $(STAMP) ## a kill at every failpoint there is; make test has some of each kind
	VIGINTD_EVERY_POINT=1 $(BIN)/pytest tests/daemon/test_kill_matrix.py $(ARGS)

campaign-machine: $(STAMP) ## journal and ladder against a model, 1,000 random examples; make test has a few that stay the same
	VIGINTD_MACHINE_EXAMPLES=1000 $(BIN)/pytest -rA tests/incident/test_machine.py $(ARGS)

campaign-uploads: $(STAMP) ## a 5 GB upload and ten viewers: the link host's memory (ARGS="--write" for docs/bench)
	$(BIN)/python -m tests.campaigns.uploads $(ARGS)

lock: ## resolve the dependencies anew (needs uv)
	uv pip compile pyproject.toml --group build --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --quiet $(ARGS) --output-file requirements.lock
	uv pip compile pyproject.toml --group build --group dev --constraint requirements.lock --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --quiet $(ARGS) --output-file tests/requirements.lock

install: ## as root: a virtual environment under $(PREFIX), the unit, and an example under /etc/vigintd
	@sh systemd/install.sh "$(PYTHON)" "$(PREFIX)"

clean: ## remove what make made
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
