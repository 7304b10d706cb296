# make train · make test · make lint · make bench
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
EXTRAS ?= all,dev
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help setup train test lint lightning keras compare parity bench clean

help:  ## say what can be made
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo
	@echo '  ARGS="..." is handed on: make lightning ARGS="configs/cifar10_resnet18.yaml seed=1"'
	@echo '  PYTHON=python3.12 chooses the interpreter, EXTRAS=keras,dev sets up one sibling alone'

# The stamp is newer than what it was made from only after an installation that went through.
$(VENV)/.installed-$(EXTRAS): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(0 if (3, 11, 4) <= sys.version_info[:3] < (3, 14) else "Python 3.11.4 to 3.13 is needed; this is " + sys.version.split()[0] + ". Name one: make setup PYTHON=python3.12")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[$(EXTRAS)]'
	@touch $@

setup: $(VENV)/.installed-$(EXTRAS)  ## make .venv and install both siblings into it

train: setup  ## train both siblings on the embedded data set and compare them
	@$(BIN)/python lightning_project/train.py $(ARGS)
	@$(BIN)/python keras_project/train.py $(ARGS)
	@$(BIN)/python -m shared.compare

test: setup  ## run the test suite
	$(BIN)/python -m pytest $(ARGS)

lint: setup  ## check the style
	$(BIN)/python -m ruff check .

lightning: setup  ## train with PyTorch Lightning: ARGS="file.yaml key=value"
	@$(BIN)/python lightning_project/train.py $(ARGS)

keras: setup  ## train with Keras: ARGS="file.yaml key=value"
	@$(BIN)/python keras_project/train.py $(ARGS)

compare: setup  ## compare the newest run of each sibling, or ARGS="RUN RUN"
	@$(BIN)/python -m shared.compare $(ARGS)

parity: setup  ## prove that both siblings run the same experiment
	@$(BIN)/python -m shared.parity $(ARGS)

bench: setup  ## measure what data and callbacks cost beside the bare training step
	@$(BIN)/python -m shared.bench $(ARGS)

clean:  ## remove the environment and caches; runs stay
	rm -rf $(VENV) .pytest_cache .ruff_cache *.egg-info
