PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
CONSTRAINTS := constraints.txt

.PHONY: install install-test train test test-slow test-long lint benchmark clean

install: $(VENV)/installed
install-test: $(VENV)/installed-test

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/installed: setup.py $(CONSTRAINTS) | $(VENV)/bin/python
	$(RUN) -m pip install --quiet --constraint $(CONSTRAINTS) --editable '.[export]'
	touch $@

$(VENV)/installed-test: setup.py $(CONSTRAINTS) | $(VENV)/bin/python
	$(RUN) -m pip install --quiet --constraint $(CONSTRAINTS) --editable '.[test]'
	touch $@ $(VENV)/installed

train: install
	$(RUN) -m effnetv2_tf.train --config=configs/quickstart.yaml --model_dir=runs/quickstart
	$(RUN) -m effnetv2_tf.export --model_dir=runs/quickstart

test: install-test
	$(RUN) -m pytest -m "not slow and not long"

test-slow: install-test
	$(RUN) -m pytest -m slow

test-long: install-test
	$(RUN) -m pytest -m long

lint: install-test
	$(RUN) -m ruff format --check .
	$(RUN) -m ruff check .
	$(RUN) -m mypy

benchmark: install
	$(RUN) benchmarks/train_step.py
	$(RUN) benchmarks/input_pipeline.py

clean:
	rm -rf $(VENV) runs
