# make test: format, lint, types, layers, tests.  make demo: the whole cascade on this machine.
# PYTHON=... is the interpreter to make .venv with (change it after make clean); DATA=... the demo's data set.

VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
PYTHON ?=
DATA ?= digits
SEEDS ?= 10000
SEED ?= 1
REQUESTS ?= 10000

.DEFAULT_GOAL := help
.PHONY: help test demo bench soak simulate fuzz chaos overload images k8s-test format clean

help:
	@echo "make test                  format check, lint, types, layers and every test"
	@echo "make demo [DATA=digits]    train, serve and use a cascade on this machine, and kill its cloud"
	@echo "make bench                 measure the runner's own work and print ratios"
	@echo "make soak [MESSAGES=1000000] send so many through one tier, and hold its end to its start"
	@echo "make simulate [SEEDS=10000] run whole cascades on a virtual clock, a seed each, on every core"
	@echo "make overload [SECONDS=60]  offer tiers three times what they can do, on a real Kafka"
	@echo "make chaos [REQUESTS=10000] [SEED=1] kill tiers and brokers, spoil links, and count what is lost"
	@echo "make fuzz [SECONDS=60]     change messages by what the code does with them until one breaks a rule"
	@echo "make images                build every image on a bare Debian and check each in a chroot (root, buildah, debootstrap)"
	@echo "make k8s-test CONTEXT=name deploy every overlay to the cluster of KUBECONFIG with that context, and take it away"
	@echo "make format                format the code and fix what the linter can fix"
	@echo "make clean                 remove .venv and everything that tools have left behind"

test: $(INSTALLED)
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/pytest -m 'not alone' -n 2 --dist loadfile --no-loadscope-reorder
	$(BIN)/pytest -m alone

demo: $(INSTALLED)
	$(BIN)/branchy demo $(DATA)

bench: $(INSTALLED)
	$(BIN)/python -m benchmarks

soak: $(INSTALLED)
	$(BIN)/python -m benchmarks.soak $(MESSAGES)

simulate: $(INSTALLED)
	PYTHONPATH=tests/support $(BIN)/python -m simulation.run $(SEEDS)

overload: $(INSTALLED)
	PYTHONPATH=tests/support $(BIN)/python -m overload $(SECONDS)

chaos: $(INSTALLED)
	PYTHONPATH=tests/support $(BIN)/python -m chaos.run $(REQUESTS) --seed $(SEED)

fuzz: $(INSTALLED)
	PYTHONPATH=tests/support $(BIN)/python tests/fuzz/fuzz_wire.py -max_total_time=$(or $(SECONDS),60)

images: $(INSTALLED)
	PYTHONPATH=tests/support $(BIN)/python -m images.run

k8s-test: $(INSTALLED)
	K8S_TEST_CONTEXT=$(CONTEXT) $(BIN)/pytest tests/k8s

format: $(INSTALLED)
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find branchy tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

# A .venv that works is kept; it is made anew when it is half made, or its Python is gone or doesn't fit.
$(INSTALLED): pyproject.toml constraints.txt
	@sh tools/find_python.sh $(BIN)/python >/dev/null 2>&1 && $(BIN)/python -m pip --version >/dev/null 2>&1 || { \
	  python=$$(sh tools/find_python.sh $(PYTHON)) && echo "making $(VENV) with $$python" && \
	  rm -rf $(VENV) && "$$python" -m venv $(VENV); }
	$(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt -e '.[images,train,dev]'
	@touch $@
