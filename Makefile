# Needs Python 3.11 and make; everything else is installed into .venv by whichever target comes first.
PYTHON ?= python3.11
BIN := .venv/bin
LOCKED := --quiet --disable-pip-version-check --require-hashes
# The original is downloaded; give a file or a folder to use that: make imdb IMDB=aclImdb_v1.tar.gz
IMDB ?=

.PHONY: help quickstart imdb smoke test chaos tpu-check checks environment locks
.DELETE_ON_ERROR:

help:
	@echo "make quickstart   an environment, a pretrained encoder, 10,605 movie snippets, a fine-tuned classifier: about 4 minutes"
	@echo "make imdb         the tutorial's job: 50,000 reviews, trained on for two epochs; goes on where it was cut [IMDB=archive]"
	@echo "make smoke        20 steps of a tiny encoder on the CPU, from its making to the export: a minute"
	@echo "make tpu-check    the train and evaluation steps compiled for TPUs, without one"
	@echo "make test         every test but the long ones"
	@echo "make chaos        the long ones: runs killed 20 times, 25,000 texts evaluated in every way: half an hour"
	@echo "make checks       ruff and mypy"
	@echo "make locks        requirements.lock and requirements/*.lock written anew from pyproject.toml and requirements/*.in"

environment: .venv/installed

.venv/installed: requirements.lock requirements/build.lock pyproject.toml
	$(PYTHON) -c 'import sys; assert sys.version_info[:2] == (3, 11), "requirements.lock is for Python 3.11; set PYTHON=..."'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install $(LOCKED) --requirement requirements/build.lock
	$(BIN)/pip install $(LOCKED) --no-build-isolation --requirement requirements.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $@

# What traces and what compiles for a TPU cannot be loaded together, nor beside the TensorFlow that trains here.
.venv-tpu-%/installed: requirements/tpu-%.lock
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/pip install $(LOCKED) --no-deps --requirement $<
	touch $@

# Keeps the versions that still fit pyproject.toml, and gives the other locks those of requirements.lock; uv writes the
# sums of every file, which pip cannot. libtpu wants a younger C library than Linux in general.
LOCK := $(BIN)/uv pip compile --quiet --python-version 3.11 --generate-hashes --no-annotate --custom-compile-command "make locks"
LINUX := --python-platform linux
TPU := --python-platform x86_64-manylinux_2_31 --constraints requirements.lock

locks: .venv/installed
	$(LOCK) $(LINUX) --all-extras --output-file requirements.lock pyproject.toml
	$(LOCK) $(LINUX) --constraints requirements.lock --output-file requirements/build.lock requirements/build.in
	$(LOCK) $(LINUX) --constraints requirements.lock --output-file requirements/cpu.lock pyproject.toml
	$(LOCK) $(LINUX) --constraints requirements.lock --output-file requirements/gpu.lock pyproject.toml requirements/gpu.in
	$(LOCK) $(TPU) --excludes requirements/tpu.excludes --output-file requirements/tpu.lock pyproject.toml requirements/tpu.in
	$(LOCK) $(TPU) --no-deps --output-file requirements/tpu-trace.lock requirements/tpu-trace.in
	$(LOCK) $(TPU) --output-file requirements/tpu-compile.lock requirements/tpu-compile.in

encoders/minilm: | .venv/installed
	$(BIN)/python scripts/import_encoder.py --source=minilm --output=$@

encoders/tiny: | .venv/installed
	$(BIN)/python scripts/import_encoder.py --source=random:tiny --output=$@

data/movie_snippets/dataset.json: | .venv/installed encoders/minilm
	$(BIN)/python scripts/prepare_data.py --task=movie_snippets --encoder=minilm --output=$(@D)

data/movie_snippets_tiny/dataset.json: | .venv/installed encoders/tiny
	$(BIN)/python scripts/prepare_data.py --task=movie_snippets --encoder=tiny --output=$(@D)

data/imdb/dataset.json: | .venv/installed encoders/minilm
	$(BIN)/python scripts/prepare_data.py --task=imdb --encoder=minilm --output=$(@D) $(if $(IMDB),--source=$(IMDB))

quickstart: data/movie_snippets/dataset.json
	$(BIN)/python -m trainer.task --config=configs/quickstart.yaml --strategy=auto --data_dir=data/movie_snippets --model_dir=runs/quickstart
	$(BIN)/python -m trainer.task --mode=evaluate --model_dir=runs/quickstart --baseline
	$(BIN)/python scripts/predict.py --model=runs/quickstart/export "this is such an amazing movie!" "The movie was great!" "The movie was meh." "The movie was okish." "The movie was terrible..."

imdb: data/imdb/dataset.json
	$(BIN)/python -m trainer.task --config=configs/imdb_minilm.yaml --strategy=auto --data_dir=data/imdb --model_dir=runs/imdb
	$(BIN)/python -m trainer.task --mode=evaluate --model_dir=runs/imdb --split=validation --baseline

smoke: data/movie_snippets_tiny/dataset.json
	$(BIN)/python -m trainer.task --config=configs/smoke.yaml --strategy=cpu --data_dir=data/movie_snippets_tiny --model_dir=runs/smoke

tpu-check: .venv/installed .venv-tpu-trace/installed .venv-tpu-compile/installed
	$(BIN)/python scripts/check_tpu.py

# Two processes, a file's tests in one: most tests wait for processes of their own, which start on one core.
test: .venv/installed .venv-tpu-trace/installed .venv-tpu-compile/installed
	$(BIN)/python -m pytest --numprocesses=2 --dist=loadfile

chaos: .venv/installed
	$(BIN)/python -m pytest -m chaos

checks: .venv/installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
