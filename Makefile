# `make train` and `make test` first install all that they need. `make help` lists all commands.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
CONFIG ?= configs/ssdlite_mixnet_s_digits.py
ARGS   ?=
QUICK  := tests/models tests/datasets/transforms tests/datasets/test_collate.py \
  tests/datasets/test_data_preprocessor.py tests/config/test_data_paths.py tests/config/test_plain.py tests/visual \
  tests/comparison/test_score_intervals.py tests/test_layers.py tests/test_machine.py
SLOW   := every_config or all_taps or compiled or exported or traced or wrapped

# pytest starts one worker process per core, at most four. Each worker has one thread and needs about
# 2 GB. The tests of a file run in the same worker.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile

.PHONY: help install train test test-quick test-all test-onedl test-oldest coverage lint docs lock audit doctor clean

help:
	@echo "make install     install mixdet and all its tools into .venv (train and test do this too)"
	@echo "make train       train MixNet-S SSDLite on the digit scenes and evaluate it (CONFIG=, ARGS=)"
	@echo "make test        the fast tests"
	@echo "make test-quick  the tests of models, transforms and other small units, in under two minutes"
	@echo "make test-all    all tests"
	@echo "make test-onedl  some of the tests on OneDL's maintained fork of mmdet, in .venv-onedl"
	@echo "make test-oldest the fast tests on the oldest torch that pyproject.toml allows, in .venv-oldest"
	@echo "make coverage    the fast tests, with their line and branch coverage of mixdet"
	@echo "make lint        ruff, as pre-commit runs it"
	@echo "make docs        build the documentation with the API reference in site/"
	@echo "make lock        write the installed versions to constraints.txt"
	@echo "make audit       ask PyPI for known vulnerabilities of the versions in constraints.txt"
	@echo "make doctor      print versions, devices and data sets, and what is wrong with them"
	@echo "make clean       remove .venv, .venv-onedl, .venv-oldest and caches; data/ and work_dirs/ stay"

install: $(VENV)/.installed

# The install runs again after a change of setup.py or pyproject.toml. The file .installed is
# written last, so a failed install is repeated.
$(VENV)/.installed: setup.py pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(v < (3, 11) and \
	  "Python 3.11 or newer is needed, this is %d.%d: make PYTHON=python3.11 ..." % v[:2])'
	@echo "Installing into $(VENV): a few minutes, several GB (PyPI's torch for Linux brings its CUDA libraries)"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

train: install
	$(BIN)/python tools/train.py $(CONFIG) $(ARGS)

test: install
	$(PYTEST) $(ARGS)

test-quick: install
	$(PYTEST) $(QUICK) -k "not ($(SLOW))" $(ARGS)

test-all: install
	$(BIN)/python -m pytest -m "heavy or not heavy" $(ARGS)

# OneDL maintains forks of mmengine, mmcv and mmdet with the same import names, so they need their
# own environment. With MMCV_WITH_OPS=0, mmcv is built from source without a compiler.
test-onedl: .venv-onedl/.installed
	.venv-onedl/bin/python -m pytest tests/compat tests/models tests/engine tests/evaluation \
	  tests/test_configs.py tests/test_run.py $(ARGS)

.venv-onedl/.installed: setup.py pyproject.toml
	$(PYTHON) -m venv .venv-onedl
	MMCV_WITH_OPS=0 .venv-onedl/bin/python -m pip install --quiet --disable-pip-version-check \
	  onedl-mmengine==0.10.12 onedl-mmcv==2.3.6 onedl-mmdetection==3.5.1 "torch>=2.6" torchvision \
	  "timm>=1.0.11" scikit-learn scikit-image "pycocotools>=2.0.8" "hotcoco>=1.3" tqdm tensorboard \
	  "faster-coco-eval>=1.6.5" \
	  "pytest>=8" pytest-randomly hypothesis
	.venv-onedl/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	@touch $@

test-oldest: .venv-oldest/.installed
	.venv-oldest/bin/python -m pytest $(ARGS)

.venv-oldest/.installed: setup.py pyproject.toml
	$(PYTHON) -m venv .venv-oldest
	.venv-oldest/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]' \
	  torch==2.6.0 torchvision==0.21.0
	@touch $@

coverage: install
	$(BIN)/python -m pytest --cov=mixdet --cov-branch --cov-report=term:skip-covered $(ARGS)

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

docs: install
	$(BIN)/python -m mkdocs build --strict
	@echo "To read it: $(BIN)/python -m http.server --directory site, then http://localhost:8000"

lock: install
	$(BIN)/python -m pip freeze --exclude-editable > constraints.txt

# With --strict, the audit fails if PyPI gives no answer for a version.
audit: install
	$(BIN)/python -m pip_audit --strict --no-deps --disable-pip --requirement constraints.txt $(ARGS)

doctor: install
	$(BIN)/python tools/doctor.py

clean:
	rm -rf $(VENV) .venv-onedl .venv-oldest site .coverage .pytest_cache .ruff_cache .hypothesis *.egg-info
	find . -name __pycache__ -not -path './data/*' -prune -exec rm -rf {} +
