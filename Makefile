# Two commands for a fresh machine: `make demo` and `make test`. Each makes the environment first.
PYTHON ?= python3
BIN := .venv/bin
LOWEST := build/lowest
FORMATS := .venv-formats
DOCS := .venv-docs

.PHONY: demo test test-all test-lowest test-formats lint wheel docs gallery clean

demo: .venv/ready
	$(BIN)/affinitynet demo

test: .venv/ready
	$(BIN)/pytest -m "not slow and not formats"

test-all: .venv/ready
	$(BIN)/pytest -m "not formats" --durations=20

# The second run of mypy looks for what Windows lacks.
lint: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy --platform win32 --cache-dir .mypy_cache/windows

# Builds the wheel and uses it without the source tree.
wheel: .venv/ready
	$(BIN)/python .ci/wheel.py

# torch and torchvision come together from PyPI: a CPU-only torch beside PyPI's torchvision breaks.
.venv/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet --constraint constraints.txt --editable ".[dev]"
	touch .venv/ready

# The default tests with the lowest versions that pyproject.toml allows, on Python 3.11. Their
# kernels are kept apart, as each version of numba throws away what another one has compiled.
test-lowest: $(LOWEST)/ready
	NUMBA_CACHE_DIR=$(LOWEST)/kernels $(LOWEST)/bin/pytest -m "not slow and not formats" -p no:cacheprovider

$(LOWEST)/ready: pyproject.toml .ci/lowest.py
	$(PYTHON) -m venv $(LOWEST)
	$(LOWEST)/bin/pip install --quiet --upgrade pip
	$(PYTHON) .ci/lowest.py > $(LOWEST)/constraints.txt
	$(LOWEST)/bin/pip install --quiet --constraint $(LOWEST)/constraints.txt --editable ".[dev]"
	touch $(LOWEST)/ready

# Exports read back by the programs they are for, and networks by ONNX Runtime, in an environment of
# its own. Each program is installed alone, and one that can't be had here is skipped. LabelMe and
# Ultralytics come without all that their models need.
test-formats: $(FORMATS)/ready
	$(FORMATS)/bin/pytest -m formats -rs -p no:cacheprovider tests/formats

$(FORMATS)/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(FORMATS)
	$(FORMATS)/bin/pip install --quiet --upgrade pip
	$(FORMATS)/bin/pip install --quiet --constraint constraints.txt --editable ".[dev,onnx]"
	-$(FORMATS)/bin/pip install --quiet pycocotools
	-$(FORMATS)/bin/pip install --quiet datumaro
	-$(FORMATS)/bin/pip install --quiet label-studio-sdk
	-$(FORMATS)/bin/pip install --quiet datasets
	-$(FORMATS)/bin/pip install --quiet --no-deps labelme
	-$(FORMATS)/bin/pip install --quiet imgviz loguru matplotlib PyQt5 scikit-image tifffile
	-$(FORMATS)/bin/pip install --quiet --no-deps ultralytics
	touch $(FORMATS)/ready

# The documents as a site, in build/site; a broken link or an unknown function is an error. It needs
# no PyTorch: functions are read from the source, not imported.
docs: $(DOCS)/ready
	$(DOCS)/bin/zensical build --strict --clean

$(DOCS)/ready: pyproject.toml
	$(PYTHON) -m venv $(DOCS)
	$(PYTHON) .ci/extra.py docs > $(DOCS)/requirements.txt
	$(DOCS)/bin/pip install --quiet --requirement $(DOCS)/requirements.txt
	touch $(DOCS)/ready

# The pictures of the gallery, again, from the demo's run.
gallery: demo
	$(BIN)/python examples/draw_gallery.py runs/demo/run docs/gallery

clean:
	rm -rf .venv .venv-formats .venv-docs runs build dist
