# The interpreter: `make test PYTHON=python3.13` names one. Otherwise the oldest supported that is installed.
OLDEST_FIRST := python3.11 python3.12 python3.13 python3
NEWEST_FIRST := python3.13 python3.12 python3.11 python3
override PYTHON := $(shell scripts/find_python.sh $(or $(PYTHON),$(OLDEST_FIRST)))
NEWEST = $(shell scripts/find_python.sh $(NEWEST_FIRST))
VERSION := $(if $(PYTHON),$(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])'))

# Each version has its own environment. JAX 0.11 and later need Python 3.12: the exact versions are two sets.
VENV ?= $(if $(filter 3.11,$(VERSION)),.venv,.venv-$(VERSION))
DEMO_VENV ?= $(VENV)-demo
LOCK := requirements/$(if $(filter 3.11,$(VERSION)),ci,ci-newest).txt

# Folder and marks of the tests that `make test` runs, and the tests that depend most on JAX, for `make test-newest`.
TESTS ?= tests
MARKS ?= not slow and not integration
NEWEST_TESTS := tests/model tests/parallel tests/decoding tests/parity \
	$(patsubst %,tests/distillation/test_%.py,loss optimizer run_checkpoints step_fns train_step trainer) \
	$(patsubst %,tests/checkpoints/test_%.py,damaged_training_checkpoints export flax_weights student \
	training_checkpoints)

TEACHER ?=
DATASET ?=
LANGUAGE ?=

.PHONY: test test-integration test-all test-newest test-wheel demo benchmark accelerator-check dist docs lint lock clean python

test: $(VENV)/.installed
	$(VENV)/bin/python -m pytest -n auto --dist loadfile -m "$(MARKS)" $(TESTS)

# Whole jobs and recordings, other runtimes, several processes, many devices: too long for `make test`, not for CI.
test-integration:
	$(MAKE) test MARKS="integration and not slow"

test-all: $(VENV)/.installed
	$(VENV)/bin/python -m pytest -n auto --dist loadfile $(TESTS)

# On the newest Python that is installed, unless `make test` runs on that already.
test-newest: python
	@if [ "$(NEWEST)" = "$(PYTHON)" ]; then echo "No Python newer than $(VERSION) is installed."; \
	else $(MAKE) test PYTHON="$(NEWEST)" TESTS="$(NEWEST_TESTS)" MARKS="not slow"; fi

# The source archive and the wheel; and every stage in an environment that holds the wheel and what it requires.
test-wheel: $(VENV)/.installed
	$(VENV)/bin/python -m pytest tests/packaging

python:
	@$(if $(PYTHON),:,$(error No Python 3.11, 3.12 or 3.13 was found. Install one or name it, as in PYTHON=/opt/python3.13/bin/python3))

demo: $(DEMO_VENV)/.installed
	$(DEMO_VENV)/bin/python examples/demo.py $(if $(TEACHER),--teacher "$(TEACHER)") $(if $(DATASET),--dataset "$(DATASET)") $(if $(LANGUAGE),--language "$(LANGUAGE)")

benchmark: $(VENV)/.installed
	$(VENV)/bin/python -m benchmarks.distillation_step --json outputs/benchmarks/distillation_step.json
	for task in prompts utterances sequential chunked vad; do \
		$(VENV)/bin/python -m benchmarks.generation --task $$task --json outputs/benchmarks/$$task.json || exit 1; done
	$(VENV)/bin/python -m benchmarks.speculative --json outputs/benchmarks/speculative.json
	$(VENV)/bin/python -m benchmarks.data_pipeline --json outputs/benchmarks/data_pipeline.json
	$(VENV)/bin/python -m benchmarks.data_pipeline --threads 1 --json outputs/benchmarks/data_pipeline_1.json
	$(VENV)/bin/python -m benchmarks.pipeline_memory --json outputs/benchmarks/pipeline_memory.json
	$(VENV)/bin/python -m benchmarks.stream_resume --json outputs/benchmarks/stream_resume.json
	$(VENV)/bin/python -m benchmarks.cutting --json outputs/benchmarks/cutting.json

# The documentation site, in outputs/site; `$(VENV)/bin/mkdocs serve` shows it while it is written.
docs: $(VENV)/.installed
	NO_MKDOCS_2_WARNING=1 $(VENV)/bin/python -m mkdocs build --strict

# A source archive, and the wheel made from it, in dist/.
dist: $(VENV)/.installed
	rm -rf dist
	$(VENV)/bin/python -m build

# On the GPU or TPU of this machine, in whatever environment has its JAX: make accelerator-check ACCELERATOR_PYTHON=…
ACCELERATOR_PYTHON ?= python3
accelerator-check:
	$(ACCELERATOR_PYTHON) scripts/accelerator_check.py $(if $(MODEL),--model "$(MODEL)")

lint: $(VENV)/.installed
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

# The exact versions that CI uses, from the ranges of setup.py: for Python 3.11, or with PYTHON=python3.13 the newest.
lock: python
	rm -rf .venv-lock && $(PYTHON) -m venv .venv-lock
	.venv-lock/bin/pip install -q ".[dev,demo]"
	.venv-lock/bin/pip freeze --all --exclude pip --exclude flax-distil | sed "s/+cpu$$//" > $(LOCK)
	rm -rf .venv-lock

$(VENV)/.installed: setup.py $(LOCK) | python
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install -q -c $(LOCK) -e ".[dev,demo]"
	touch $@

$(DEMO_VENV)/.installed: setup.py $(LOCK) | python
	$(PYTHON) -m venv $(DEMO_VENV)
	$(DEMO_VENV)/bin/pip install -q -c $(LOCK) ".[demo]"
	touch $@

clean:
	rm -rf .venv .venv-* .cache outputs dist build
