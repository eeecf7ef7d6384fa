# Needs make and Python 3.11, 3.12 or 3.13: the first of them on the PATH, or make PYTHON=python3.13 test. Each target
# installs what else it needs, into .venv.
PYTHON ?= $(firstword $(foreach version,3.11 3.12 3.13,$(shell command -v python$(version) 2>/dev/null)) python3.11)
BIN := .venv/bin
# Without --no-deps, pip looks among all releases for a package that another one requires with an extra, such as
# google-auth[pyopenssl], and fails if one is newer than the locked one.
LOCKED := --quiet --disable-pip-version-check --require-hashes --no-deps
# The original is downloaded; give a file or a folder to use that: make imdb IMDB=aclImdb_v1.tar.gz
IMDB ?=

.PHONY: help quickstart imdb smoke test test-all chaos tpu-check bench peers notebook checks environment locks
.DELETE_ON_ERROR:

help:
	@echo "make quickstart   an environment, a pretrained encoder, 10,605 movie snippets, a fine-tuned classifier: 6 to 9 minutes"
	@echo "make environment  .venv with the locked packages"
	@echo "make imdb         the tutorial's job: 50,000 reviews, trained on for two epochs; goes on where it was cut [IMDB=archive]"
	@echo "make smoke        20 steps of a tiny encoder on the CPU, from its making to the export: a minute"
	@echo "make tpu-check    the train and evaluation steps compiled for TPUs, without one"
	@echo "make bench        steps, evaluation, start and serving measured on this machine: about 10 minutes"
	@echo "make peers        every row of the benchmark beside Hugging Face's Trainer, in turn: hours [IMDB=archive]"
	@echo "make notebook     runs examples/classify_text.ipynb, and keeps its outputs but for those with texts"
	@echo "make test         every test but the long ones"
	@echo "make test-all     the long ones too: jobs of each feature killed and resumed, and combinations of features"
	@echo "make chaos        the longest: runs killed 20 times, 25,000 texts evaluated in every way: an hour or two"
	@echo "make checks       ruff and mypy"
	@echo "make locks        requirements/*.lock rewritten from pyproject.toml and requirements/*.in"

environment: .venv/installed

# Created from scratch, so that it contains no package that has left the locks.
.venv/packages: requirements/build.lock requirements/common.lock requirements/cpu.lock requirements/development.lock
	$(PYTHON) -c 'import sys; assert (3, 11) <= sys.version_info[:2] <= (3, 13), "The locks are for Python 3.11, 3.12 or 3.13. Received: " + sys.version + " Set PYTHON=..."'
	$(PYTHON) -m venv --clear .venv
	$(BIN)/pip install $(LOCKED) --requirement requirements/build.lock
	$(BIN)/pip install $(LOCKED) --no-build-isolation --requirement requirements/common.lock --requirement requirements/cpu.lock --requirement requirements/development.lock
	touch $@

.venv/installed: .venv/packages pyproject.toml
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	$(BIN)/pip check
	touch $@

# What traces and what compiles for a TPU cannot be loaded together, nor with the TensorFlow that trains here.
.venv-tpu-compile/installed: requirements/tpu-compile.lock
	$(PYTHON) -m venv --clear $(@D)
	$(@D)/bin/pip install $(LOCKED) --requirement $<
	$(@D)/bin/pip check
	touch $@

# Without pip check: it has only those dependencies that tracing imports (requirements/tpu-trace.in).
.venv-tpu-trace/installed: requirements/tpu-trace.lock
	$(PYTHON) -m venv --clear $(@D)
	$(@D)/bin/pip install $(LOCKED) --requirement $<
	touch $@

# Without pip check: torch requires parts of CUDA that nothing here loads.
.venv-peers/installed: requirements/peers.lock
	$(PYTHON) -m venv --clear $(@D)
	$(@D)/bin/pip install $(LOCKED) --requirement $<
	touch $@

# If PYTHON is given, environments of another version are recreated.
ifneq ($(origin PYTHON),file)
VERSION := $(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])')
STAMPS := .venv/packages .venv-tpu-trace/installed .venv-tpu-compile/installed .venv-peers/installed
.PHONY: $(foreach stamp,$(STAMPS),$(if $(wildcard $(dir $(stamp))lib/python$(VERSION)),,$(stamp)))
endif

# Each lock serves Python 3.11 to 3.13, with one version of a package for all of them. All packages are resolved at once,
# with preference for the versions that are locked; common.lock has what every installation needs, the others what is
# installed in addition. uv writes the hashes of every file, which pip cannot.
ALL := .venv/all.lock
LOCK := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --fork-strategy fewest --generate-hashes --no-annotate --custom-compile-command "make locks"
LOCK_PART := $(LOCK) --constraints $(ALL)
NOT_LOADED := $(addprefix --no-emit-package=,triton cuda-bindings cuda-pathfinder cuda-toolkit nvidia-cuda-cccl nvidia-cusolver nvidia-nvtx)
NOT_COMMON := $$(sed -n 's/^\([a-z0-9-]*\)==.*/--no-emit-package=\1/p' requirements/common.lock)

locks: .venv/installed
	cat requirements/common.lock requirements/cpu.lock requirements/development.lock > $(ALL)
	$(LOCK) --all-extras --output-file $(ALL) pyproject.toml
	$(LOCK_PART) --no-emit-package=tensorflow --output-file requirements/common.lock pyproject.toml
	$(LOCK_PART) $(NOT_COMMON) --output-file requirements/cpu.lock pyproject.toml
	$(LOCK_PART) $(NOT_COMMON) --output-file requirements/gpu.lock pyproject.toml requirements/gpu.in
	$(LOCK_PART) $(NOT_COMMON) --output-file requirements/tpu.lock requirements/tpu.in
	$(LOCK_PART) $(NOT_COMMON) --no-emit-package=tensorflow --all-extras --output-file requirements/development.lock pyproject.toml
	$(LOCK_PART) --output-file requirements/build.lock requirements/build.in
	$(LOCK_PART) --no-deps --output-file requirements/tpu-trace.lock requirements/tpu-trace.in
	$(LOCK_PART) --output-file requirements/tpu-compile.lock requirements/tpu-compile.in
	$(LOCK_PART) $(NOT_LOADED) --output-file requirements/peers.lock requirements/peers.in

encoders/minilm encoders/minilm_l3: | .venv/installed
	$(BIN)/python scripts/import_encoder.py --source=$(@F) --output=$@

encoders/tiny: | .venv/installed
	$(BIN)/python scripts/import_encoder.py --source=random:tiny --output=$@

data/movie_snippets/dataset.json: | .venv/installed encoders/minilm
	$(BIN)/python scripts/prepare_data.py --task=movie_snippets --encoder=minilm --output=$(@D)

data/movie_snippets_tiny/dataset.json: | .venv/installed encoders/tiny
	$(BIN)/python scripts/prepare_data.py --task=movie_snippets --encoder=tiny --output=$(@D)

data/imdb/dataset.json: | .venv/installed encoders/minilm
	$(BIN)/python scripts/prepare_data.py --task=imdb --encoder=minilm --output=$(@D) $(if $(IMDB),--source=$(IMDB))

# Huge pages for what is allocated: 3 to 9 % less time for a step on a CPU.
quickstart imdb: export GLIBC_TUNABLES ?= glibc.malloc.hugetlb=1

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

bench: | .venv/installed
	$(BIN)/python scripts/benchmark.py

peers: | .venv/installed .venv-peers/installed
	$(BIN)/python scripts/benchmark.py --peers --rows=all $(if $(IMDB),--imdb=$(IMDB))

notebook: | .venv/installed
	$(BIN)/python tests/project/notebook_outputs.py

# Three processes on two cores, a file's tests in one: most tests wait for processes of their own. Files are
# not reordered by their number of tests: the fewest take longest, and would be left for the end.
#
# Huge pages for Python's objects too, of which TensorFlow makes millions: on a busy virtual machine its import took 7 to
# 11 s of a processor with them and 10 to 27 without.
test test-all chaos: export GLIBC_TUNABLES ?= glibc.malloc.hugetlb=1
test test-all chaos: export PYTHONMALLOC ?= malloc

test: .venv/installed .venv-tpu-trace/installed .venv-tpu-compile/installed
	$(BIN)/python -m pytest --numprocesses=3 --dist=loadfile --no-loadscope-reorder

test-all: .venv/installed .venv-tpu-trace/installed .venv-tpu-compile/installed
	$(BIN)/python -m pytest --numprocesses=3 --dist=loadfile --no-loadscope-reorder -m "not chaos"

chaos: .venv/installed
	REAL_PROCESSES=1 $(BIN)/python -m pytest -m chaos

checks: .venv/installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
