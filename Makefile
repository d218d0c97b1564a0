PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
CONSTRAINTS := constraints.txt
KERNELS := $(wildcard effnetv2_tf/kernels/*.cc effnetv2_tf/kernels/*.h)
# TensorFlow 2.15 needs Python 3.11 at most, the other pinned packages 3.11 at least.
ADDONS_PYTHON ?= $(PYTHON)
ADDONS_VENV := .venv-addons
ADDONS_RUN := $(ADDONS_VENV)/bin/python
ADDONS_CONSTRAINTS := constraints-addons.txt
# Quick tests run side by side, the tests of a file in one process.
TEST_PROCESSES ?= 2
SIDE_BY_SIDE := --numprocesses=$(TEST_PROCESSES) --dist=loadfile
# Files or folders, in place of all.
ADDONS_TESTS ?=

.PHONY: install install-test install-addons train test test-slow test-long test-addons \
  test-cross-stack lint benchmark clean

install: $(VENV)/installed
install-test: $(VENV)/installed-test
install-addons: $(ADDONS_VENV)/installed

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/installed: setup.py $(CONSTRAINTS) $(KERNELS) | $(VENV)/bin/python
	$(RUN) -m pip install --quiet --constraint $(CONSTRAINTS) --editable '.[export]'
	$(RUN) -m effnetv2_tf.kernels --if_possible
	touch $@

$(VENV)/installed-test: setup.py $(CONSTRAINTS) $(KERNELS) | $(VENV)/bin/python
	$(RUN) -m pip install --quiet --constraint $(CONSTRAINTS) --editable '.[test]'
	$(RUN) -m effnetv2_tf.kernels --if_possible
	touch $@ $(VENV)/installed

$(ADDONS_VENV)/installed: setup.py $(ADDONS_CONSTRAINTS)
	$(ADDONS_PYTHON) -m venv $(ADDONS_VENV)
	$(ADDONS_RUN) -m pip install --quiet --constraint $(ADDONS_CONSTRAINTS) --editable '.[addons,test]'
	touch $@

train: install
	$(RUN) -m effnetv2_tf.train --config=configs/quickstart.yaml --model_dir=runs/quickstart
	$(RUN) -m effnetv2_tf.export --model_dir=runs/quickstart

test: install-test
	$(RUN) -m pytest $(SIDE_BY_SIDE) -m "not slow and not long and not cross_stack"

test-slow: install-test
	$(RUN) -m pytest -m slow

test-long: install-test
	$(RUN) -m pytest -m long

test-addons: install-addons
	$(ADDONS_RUN) -m pytest $(SIDE_BY_SIDE) -m "not slow and not long and not cross_stack" \
	  $(ADDONS_TESTS)

test-cross-stack: install-test install-addons
	EFFNETV2_TF_OTHER_PYTHON=$(CURDIR)/$(ADDONS_RUN) $(RUN) -m pytest -m cross_stack

lint: install-test
	$(RUN) -m ruff format --check .
	$(RUN) -m ruff check .
	$(RUN) -m mypy

# All comparisons with other packages, and docs/benchmarks.md. PyTorch's need a Python that has
# them: make benchmark BENCHMARK_FLAGS=--torch_python=PATH
benchmark: install
	$(RUN) benchmarks/run_all.py $(BENCHMARK_FLAGS)

clean:
	rm -rf $(VENV) $(ADDONS_VENV) runs
