PYTHON ?= python3.11
VENV ?= .venv
DEMO_VENV ?= .venv-demo
TEACHER ?=
DATASET ?=
LANGUAGE ?=
LOCK := requirements/ci.txt

.PHONY: test test-all demo benchmark lint lock clean

test: $(VENV)/.installed
	$(VENV)/bin/python -m pytest -n auto --dist loadfile -m "not slow"

test-all: $(VENV)/.installed
	$(VENV)/bin/python -m pytest -n auto --dist loadfile

demo: $(DEMO_VENV)/.installed
	$(DEMO_VENV)/bin/python examples/demo.py $(if $(TEACHER),--teacher "$(TEACHER)") $(if $(DATASET),--dataset "$(DATASET)") $(if $(LANGUAGE),--language "$(LANGUAGE)")

benchmark: $(VENV)/.installed
	$(VENV)/bin/python -m benchmarks.distillation_step --json outputs/benchmarks/distillation_step.json
	for task in prompts utterances sequential chunked; do \
		$(VENV)/bin/python -m benchmarks.generation --task $$task --json outputs/benchmarks/$$task.json || exit 1; done
	$(VENV)/bin/python -m benchmarks.speculative --json outputs/benchmarks/speculative.json
	$(VENV)/bin/python -m benchmarks.data_pipeline --json outputs/benchmarks/data_pipeline.json
	$(VENV)/bin/python -m benchmarks.data_pipeline --threads 1 --json outputs/benchmarks/data_pipeline_1.json
	$(VENV)/bin/python -m benchmarks.pipeline_memory --json outputs/benchmarks/pipeline_memory.json
	$(VENV)/bin/python -m benchmarks.stream_resume --json outputs/benchmarks/stream_resume.json
	$(VENV)/bin/python -m benchmarks.cutting --json outputs/benchmarks/cutting.json

lint: $(VENV)/.installed
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

# The exact versions that CI uses, from the ranges of setup.py.
lock:
	rm -rf .venv-lock && $(PYTHON) -m venv .venv-lock
	.venv-lock/bin/pip install -q ".[dev,demo]"
	.venv-lock/bin/pip freeze --exclude flax-distil | sed "s/+cpu$$//" > $(LOCK)
	rm -rf .venv-lock

$(VENV)/.installed: setup.py $(LOCK)
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install -q -c $(LOCK) -e ".[dev,demo]"
	touch $@

$(DEMO_VENV)/.installed: setup.py $(LOCK)
	$(PYTHON) -m venv $(DEMO_VENV)
	$(DEMO_VENV)/bin/pip install -q -c $(LOCK) ".[demo]"
	touch $@

clean:
	rm -rf $(VENV) $(DEMO_VENV) .cache outputs
