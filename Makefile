# make train   set up, train the default model, inspect it
# make test    set up, then lint, types and tests: what CI runs
# make check   lint and types alone
# make test-distributed   four processes, kills, hangs, two hosts with a link that is cut: a quarter of an hour
# make prove   the slow proofs: torch.compile, a run stopped 200 times (a quarter of an hour)
# make agree   every declared architecture, nano and small and conversions against transformers and gguf;
#              TRANSFORMERS=latest takes its newest release. The types that are not declared are listed first
# make llama   GGUF files against llama.cpp, prebuilt by node-llama-cpp: needs Node.js; some minutes
# make test-federate  an environment with Flower (Python 3.11 or newer), and the tests of federated averaging
# make fuzz    a coverage-guided fuzzer over every parser, RUNS=1000000 inputs each, and run folders
#
# PYTHON=python3.12   the interpreter that .venv is made with
# TORCH_INDEX=URL     another package index, for torch: https://download.pytorch.org/whl/cpu has the build
#                     for CPUs, 0.2 GB, where PyPI's for Linux has the one for CUDA, 2.7 GB

PYTHON ?= python3
TORCH_INDEX ?=
BIN := .venv/bin
RUN := checkpoints/nano-stdlib
RUNS ?= 100000
NODE_LLAMA_CPP_VERSION := 3.22.1
PARSERS := safetensors gguf torch_zip torch_pickle index json config run storage
# A module is compiled when it is first imported: pip would compile all of torch's, for a minute.
INSTALL = $(BIN)/python -m pip install --disable-pip-version-check --no-compile -c constraints.txt \
	$(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX))

.PHONY: train test pytest test-distributed check prove agree llama test-federate fuzz
.DEFAULT_GOAL := test

# Installed again only when what is asked for changes.
.venv/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("error: $(PYTHON) is %d.%d, expected 3.10 or newer; make PYTHON=python3.12 ..." % sys.version_info[:2] if sys.version_info < (3, 10) else 0)'
	@echo "Creating .venv and installing the pinned dependencies; the largest is torch (see README.md) ..."
	@test -d .venv || $(PYTHON) -m venv .venv
	@$(INSTALL) -e '.[dev]'
	@$(BIN)/python -m compileall -q minilm scripts
	@touch $@

# Training ends with the inspection. A run that was stopped is resumed; a finished one is inspected.
train: .venv/installed
	@if test -f $(RUN)/config.json; \
	then $(BIN)/python scripts/train.py --resume --run-dir $(RUN); \
	else $(BIN)/python scripts/train.py; fi

# Types are checked by one processor, while the others are at the tests.
test: .venv/installed
	@$(MAKE) --no-print-directory --jobs 2 check pytest

pytest: .venv/installed
	@echo "Running the tests ..."
	@OMP_NUM_THREADS=1 $(BIN)/pytest -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

test-distributed: .venv/installed
	@echo "Running the tests of many processes ..."
	@$(BIN)/pytest -m distributed tests/parallel

prove: .venv/installed
	@echo "Running the slow proofs ..."
	@$(BIN)/pytest -m slow
	@$(BIN)/python scripts/tools/crash.py --times 200

agree: .venv/installed
	@$(INSTALL) -e '.[dev,transformers,gguf,peft]'
	@$(if $(filter latest,$(TRANSFORMERS)),$(BIN)/python -m pip install --upgrade transformers)
	@echo "Models of transformers that are not declared:"
	@$(BIN)/python scripts/tools/declare.py
	@echo "Small saved models of every type of nine mappings, declared or not:"
	@$(BIN)/python -m tests.architectures.saved_folders 2>/dev/null
	@OMP_NUM_THREADS=1 $(BIN)/pytest -n auto --maxprocesses 4 --dist worksteal tests/architectures \
		tests/formats/test_gguf.py tests/values/test_gguf_blocks.py tests/model/test_stock_architecture.py tests/interop

llama: .venv/installed
	@$(INSTALL) -e '.[dev,gguf]'
	@npm install --silent --ignore-scripts --prefix .venv/node node-llama-cpp@$(NODE_LLAMA_CPP_VERSION)
	@NODE_LLAMA_CPP=.venv/node $(BIN)/pytest tests/interop/test_gguf.py tests/interop/test_llama_cpp.py

# Flower needs older versions of what others need newer: an environment of its own.
.venv-federate/installed: pyproject.toml constraints-federate.txt
	@$(PYTHON) -c 'import sys; sys.exit("error: $(PYTHON) is %d.%d, Flower needs 3.11 or newer; make PYTHON=python3.12 ..." % sys.version_info[:2] if sys.version_info < (3, 11) else 0)'
	@echo "Creating .venv-federate and installing the pinned dependencies ..."
	@test -d .venv-federate || $(PYTHON) -m venv .venv-federate
	@.venv-federate/bin/python -m pip install --disable-pip-version-check -c constraints-federate.txt \
		$(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) -e '.[federate]' hypothesis pytest
	@touch $@

test-federate: .venv-federate/installed
	@echo "Running the tests of federated averaging ..."
	@OMP_NUM_THREADS=1 .venv-federate/bin/python -m pytest tests/federation

fuzz: .venv/installed
	@$(INSTALL) -e '.[fuzz]'
	@for parser in $(PARSERS); do $(BIN)/python scripts/tools/fuzz.py $$parser --runs $(RUNS) || exit 1; done
	@$(BIN)/python scripts/tools/fuzz.py folder --runs 400  # five a second

check: .venv/installed
	@echo "Checking style and types ..."
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --quiet --check .
	@$(BIN)/mypy --no-error-summary
