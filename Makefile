# make train · make test · make lint · make bench
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
EXTRAS ?= all,dev,timm
CONSTRAINTS ?= constraints.txt
ARGS ?=
AT_ONCE ?= --numprocesses 2

# One environment for both siblings, unless `make setup-gpu` has made one for each and this one is not there.
ifeq ($(wildcard $(BIN)/python)$(filter-out 2,$(words $(wildcard .venv-lightning/bin/python .venv-keras/bin/python))),)
READY := setup-gpu
LIGHTNING := .venv-lightning/bin/python
KERAS := .venv-keras/bin/python
else
READY := setup
LIGHTNING := $(BIN)/python
KERAS := $(BIN)/python
endif

.DEFAULT_GOAL := help
.PHONY: help setup setup-gpu train test test-faults lint lightning keras compare parity bench bench-models clean

help:  ## say what can be made
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo
	@echo '  ARGS="..." is handed on: make lightning ARGS="configs/cifar10_resnet18.yaml seed=1"'
	@echo '  AT_ONCE= runs one test at a time'
	@echo '  PYTHON=python3.12 chooses the interpreter, EXTRAS=keras,dev sets up one sibling alone'

# The stamp is newer than what it was made from only after an installation that went through.
$(VENV)/.installed-$(EXTRAS): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(0 if (3, 11, 4) <= sys.version_info[:3] < (3, 14) else "Python 3.11.4 to 3.13 is needed; this is " + sys.version.split()[0] + ". Name one: make setup PYTHON=python3.12")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet $(addprefix --constraint ,$(CONSTRAINTS)) --editable '.[$(EXTRAS)]'
	@touch $@

setup: $(VENV)/.installed-$(EXTRAS)  ## make .venv and install both siblings into it

# Recursive, so that each environment has the stamps of one. Their CUDA libraries would overwrite each other.
setup-gpu:  ## on a GPU machine: .venv-lightning and .venv-keras, one environment per sibling
	@$(MAKE) --no-print-directory setup VENV=.venv-lightning EXTRAS=lightning,dev,timm
	@$(MAKE) --no-print-directory setup VENV=.venv-keras EXTRAS=keras-gpu,dev

train: $(READY)  ## train both siblings on the embedded data set and compare them
	@$(LIGHTNING) lightning_project/train.py $(ARGS)
	@$(KERAS) keras_project/train.py $(ARGS)
	@$(LIGHTNING) -m shared.compare $(patsubst output_dir=%,--output-dir=%,$(filter output_dir=%,$(ARGS)))

test: $(READY)  ## run the test suite
	$(LIGHTNING) -m pytest $(AT_ONCE) $(ARGS)
ifneq ($(LIGHTNING),$(KERAS))
	$(KERAS) -m pytest $(AT_ONCE) $(ARGS)
endif

test-faults: $(READY)  ## kill, cut off and starve trainings, about half an hour
	$(LIGHTNING) -m pytest tests/faults $(ARGS)
ifneq ($(LIGHTNING),$(KERAS))
	$(KERAS) -m pytest tests/faults $(ARGS)
endif

lint: $(READY)  ## check the style
	$(LIGHTNING) -m ruff check .

lightning: $(READY)  ## train with PyTorch Lightning: ARGS="file.yaml key=value"
	@$(LIGHTNING) lightning_project/train.py $(ARGS)

keras: $(READY)  ## train with Keras: ARGS="file.yaml key=value"
	@$(KERAS) keras_project/train.py $(ARGS)

compare: $(READY)  ## compare the newest run of each sibling, or ARGS="RUN RUN"
	@$(LIGHTNING) -m shared.compare $(ARGS)

parity: $(READY)  ## prove that both siblings run the same experiment
	@$(LIGHTNING) -m shared.parity $(ARGS)

bench: $(READY)  ## measure what data and callbacks cost beside the bare training step
	@$(LIGHTNING) -m shared.bench $(ARGS)

bench-models: $(READY)  ## measure memory and speed of a training step of every model
	@$(LIGHTNING) -m shared.bench.models $(ARGS)

clean:  ## remove the environments and caches; runs stay
	rm -rf $(VENV) .venv-lightning .venv-keras .pytest_cache .ruff_cache *.egg-info
