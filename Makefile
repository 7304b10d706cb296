# make train · make test · make lint · make bench
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
CONSTRAINTS ?= constraints.txt
ARGS ?=
AT_ONCE ?= --numprocesses 2

# The siblings whose folders are here. Whoever deletes one folder keeps a Makefile for the other.
SIBLINGS := $(patsubst %_project/train.py,%,$(wildcard lightning_project/train.py keras_project/train.py))
BOTH := $(word 2,$(SIBLINGS))
NOT_HERE := $(filter-out $(SIBLINGS),lightning keras) $(if $(BOTH),,parity)
comma := ,
EXTRAS ?= $(if $(BOTH),all,$(SIBLINGS)),export,serve,dashboard,sweep,hf,dev$(if $(filter lightning,$(SIBLINGS)),$(comma)timm)$(if $(filter keras,$(SIBLINGS)),$(comma)jax)

# One environment for all, unless `make setup-gpu` has made one for each sibling and this one is not there.
OWN := $(SIBLINGS:%=.venv-%/bin/python)
ifeq ($(wildcard $(BIN)/python)$(filter-out $(wildcard $(OWN)),$(OWN)),)
READY := setup-gpu
PYTHONS := $(OWN)
LIGHTNING := .venv-lightning/bin/python
KERAS := .venv-keras/bin/python
else
READY := setup
PYTHONS := $(BIN)/python
LIGHTNING := $(BIN)/python
KERAS := $(BIN)/python
endif
ANY := $(firstword $(PYTHONS))

# The end of a line, with which `foreach` writes several lines of a recipe.
define newline


endef

.DEFAULT_GOAL := help
.PHONY: help setup setup-gpu train demo test test-slow test-faults upgrade-check lint lightning keras compare parity bench bench-models bench-input bench-precision bench-article check-gpu study clean

help:  ## say what can be made
	@awk -F ':.*## ' '/^[a-z-]+:.*## / && !index(" $(NOT_HERE) ", " " $$1 " ") {printf "  make %-15s %s\n", $$1, $$2}' \
		$(MAKEFILE_LIST)
	@echo
	@echo '  ARGS="..." is handed on: make $(firstword $(SIBLINGS)) ARGS="configs/cifar10_resnet18.yaml seed=1"'
	@echo '  AT_ONCE= runs one test at a time'
	@echo '  PYTHON=python3.12 chooses the interpreter$(if $(BOTH),$(comma) EXTRAS=keras$(comma)dev sets up one sibling alone)'

# The stamp is newer than what it was made from only after an installation that went through.
$(VENV)/.installed-$(EXTRAS): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(0 if (3, 11, 4) <= sys.version_info[:3] < (3, 14) else "Python 3.11.4 to 3.13 is needed; this is " + sys.version.split()[0] + ". Name one: make setup PYTHON=python3.12")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet $(addprefix --constraint ,$(CONSTRAINTS)) --editable '.[$(EXTRAS)]'
	@touch $@

setup: $(VENV)/.installed-$(EXTRAS)  ## make .venv and install everything into it

# Recursive, so that each environment has the stamps of one. Their CUDA libraries would overwrite each other.
setup-gpu: $(SIBLINGS:%=setup-gpu-%)  ## on a GPU machine: an environment for each sibling, .venv-NAME
setup-gpu-lightning: GPU_EXTRAS := lightning,export,serve,dashboard,sweep,dev,timm
setup-gpu-keras: GPU_EXTRAS := keras-gpu,export,serve,dashboard,sweep,dev
setup-gpu-%:
	@$(MAKE) --no-print-directory setup VENV=.venv-$* EXTRAS=$(GPU_EXTRAS)

train: $(SIBLINGS)  ## train every sibling on the embedded data set and compare the runs
	@$(ANY) -m shared.compare --html $(patsubst output_dir=%,--output-dir=%,$(filter output_dir=%,$(ARGS)))

# What each sibling makes of the newest run of the quick start, whichever trained it.
demo_lightning = $(LIGHTNING) lightning_project/export.py "$$run" --to onnx
demo_keras = $(if $(BOTH),,$(KERAS) keras_project/export.py "$$run" --to onnx &&) \
	$(KERAS) keras_project/export.py "$$run" --to litert --quantise int8

RUNS = $(or $(patsubst output_dir=%,%,$(filter output_dir=%,$(ARGS))),runs)

demo: train  ## the quick start, its exports with their checks and their speed, and an answer to an image
	@set -e; run=$$(ls -td $(RUNS)/quickstart/*_seed*/ | head -n 1); \
	$(foreach sibling,$(SIBLINGS),$(demo_$(sibling)) &&) \
	$(ANY) -m shared.artifacts "$$run" && \
	$(ANY) $(firstword $(SIBLINGS))_project/predict.py "$$run"exports/*-onnx docs/digit.png --top 3

test: $(READY)  ## run the tests, but for the slow ones
	$(foreach python,$(PYTHONS),$(python) -m pytest -m 'not slow' $(AT_ONCE) $(ARGS)$(newline))

test-slow: $(READY)  ## run the slow tests
	$(foreach python,$(PYTHONS),$(python) -m pytest -m slow $(AT_ONCE) $(ARGS)$(newline))

test-faults: $(READY)  ## kill, cut off and starve trainings, about half an hour
	$(foreach python,$(PYTHONS),$(python) -m pytest tests/faults $(ARGS)$(newline))

# Anew each time, since pip leaves what is installed where it is allowed.
upgrade-check:  ## try the newest allowed packages in .venv-newest: what moved, and whether the tests pass
	rm -rf .venv-newest
	@$(MAKE) --no-print-directory setup VENV=.venv-newest CONSTRAINTS=
	.venv-newest/bin/python -m shared.upgrade
	.venv-newest/bin/python -m pytest $(AT_ONCE) $(ARGS)

lint: $(READY)  ## check the style
	$(ANY) -m ruff check .

lightning: $(READY)  ## train with PyTorch Lightning: ARGS="file.yaml key=value"
	@$(LIGHTNING) lightning_project/train.py $(ARGS)

keras: $(READY)  ## train with Keras: ARGS="file.yaml key=value"
	@$(KERAS) keras_project/train.py $(ARGS)

compare: $(READY)  ## compare the newest run of each sibling, or ARGS="RUN RUN"
	@$(ANY) -m shared.compare $(ARGS)

parity: $(READY)  ## prove that both siblings run the same experiment
	@$(ANY) -m shared.parity $(ARGS)

bench: $(READY)  ## measure what data and callbacks cost beside the bare training step
	@$(ANY) -m shared.bench $(ARGS)

bench-models: $(READY)  ## measure memory and speed of a training step of every model
	@$(ANY) -m shared.bench.models $(ARGS)

bench-input: $(READY)  ## measure how fast photographs are read, beside the frameworks' own recipes
	@$(ANY) -m shared.bench.input $(ARGS)

bench-precision: $(READY)  ## measure training steps in fp32 and bf16 on the CPU, for each kind of model
	@$(ANY) -m shared.bench.precision $(ARGS)

bench-article: $(READY)  ## measure an epoch of ResNet-18 beside the frameworks without this repository
	@$(ANY) -m shared.bench.article $(ARGS)

check-gpu: $(READY)  ## try on this machine's GPU what is promised there, in ten minutes at most
	@$(ANY) -m shared.bench.gpu $(ARGS)

study: $(READY)  ## train all structures with one budget, about 12 minutes: docs/results.md
	@$(ANY) -m shared.study $(ARGS)

clean:  ## remove the environments and caches; runs stay
	rm -rf $(VENV) .venv-lightning .venv-keras .venv-newest .pytest_cache .ruff_cache *.egg-info
