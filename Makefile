# Two commands for a fresh machine: `make demo` and `make test`. Each makes the environment first.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test test-all lint clean

demo: .venv/ready
	$(BIN)/affinitynet demo

test: .venv/ready
	$(BIN)/pytest -m "not slow"

test-all: .venv/ready
	$(BIN)/pytest

lint: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# torch and torchvision come together from PyPI: a CPU-only torch beside PyPI's torchvision breaks.
.venv/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet --constraint constraints.txt --editable ".[dev]"
	touch .venv/ready

clean:
	rm -rf .venv runs build dist
