# Everything here works in a clean clone: a target makes the environments that it needs, and a stamp file in each
# environment makes the next run quick. An installation that was cut short is started again from nothing.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

TRAIN := .venv
RENDER := .venv-bpy
BEAM := .venv-beam
TRL := .venv-trl
PEFT := .venv-peft
TOOLS := .venv-tools
DOCS := .venv-docs
DEMO := .venv-demo
AOT_GPU := .venv-aot-gpu
PY := $(TRAIN)/bin/python

# Set-up tells pip's long story only when it fails.
PIP_INSTALL := -m pip install --quiet --disable-pip-version-check
BPY_APT_PACKAGES := libx11-6 libxrender1 libxfixes3 libxi6 libxkbcommon0 libsm6 libgl1

# $(call make_venv,FOLDER,VERSIONS): an environment of the first of these Python versions that this machine has. One
# that is already there is kept, unless the marker .installing says that an installation into it never finished.
define make_venv
	if [ -e $(1)/.installing ] || ! $(1)/bin/python -c '' 2>/dev/null; then \
	  chosen=; \
	  for version in $(2); do \
	    for python in python$$version python3 python; do \
	      if $$python -c "import sys, ensurepip; sys.exit('%d.%d' % sys.version_info[:2] != '$$version')" 2>/dev/null; then \
	        chosen=$$python; break 2; \
	      fi; \
	    done; \
	  done; \
	  if [ -z "$$chosen" ]; then \
	    echo "error: $(1) needs one of Python $(2), with its venv module, on PATH; found none of them." >&2; \
	    echo "  On Debian or Ubuntu: apt-get install python3.11 python3.11-venv (or use pyenv, conda or uv)." >&2; \
	    exit 1; \
	  fi; \
	  echo "making $(1) with $$($$chosen --version)"; \
	  $$chosen -m venv --clear $(1); \
	fi
endef

# $(call see_train,FOLDER): what is installed in $(TRAIN) can be imported in that environment, of the same Python.
TRAIN_VERSION = $$($(PY) -c 'import sys; print("%d.%d" % sys.version_info[:2])')
define see_train
	site='import sysconfig; print(sysconfig.get_path("purelib"))'; \
	  $(PY) -c "$$site" > "$$($(1)/bin/python -c "$$site")/train.pth"
endef

.PHONY: help
help:  ## show this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | awk -F'\t' '{printf "  make %-13s %s\n", $$1, $$2}'

# --- environments ---------------------------------------------------------------------------------------------------

$(TRAIN)/.stamp-base: pyproject.toml
	@$(call make_venv,$(TRAIN),3.11 3.12 3.13)
	@touch $(TRAIN)/.installing && rm -f $(TRAIN)/.stamp-*
	@echo "installing dig_jax into $(TRAIN) (about 1 GB, a minute or two)"
	@$(PY) $(PIP_INSTALL) --editable .
	@rm $(TRAIN)/.installing && touch $@

# What the study draws with, beside what is there.
$(TRAIN)/.stamp-study: $(TRAIN)/.stamp-base
	@$(PY) $(PIP_INSTALL) --editable '.[study]'
	@touch $@

# torch goes first: where pip can find a CPU build of it, that is the one that stays.
$(TRAIN)/.stamp-dev: pyproject.toml
	@$(call make_venv,$(TRAIN),3.11 3.12 3.13)
	@touch $(TRAIN)/.installing && rm -f $(TRAIN)/.stamp-*
	@echo "installing dig_jax and its test tools into $(TRAIN) (about 2 GB, two or three minutes)"
	@$(PY) $(PIP_INSTALL) torch==2.13.0
	@$(PY) $(PIP_INSTALL) --editable '.[dev,parity]'
	@rm $(TRAIN)/.installing && touch $(TRAIN)/.stamp-base $@

$(RENDER)/.stamp: data_gen/requirements-bpy.txt
	@$(call make_venv,$(RENDER),3.11 3.13)
	@touch $(RENDER)/.installing && rm -f $@
	@echo "installing Blender's bpy into $(RENDER) (about 1 GB, a minute)"
	@$(RENDER)/bin/python $(PIP_INSTALL) --requirement $<
	@rm $(RENDER)/.installing && touch $@

$(BEAM)/.stamp: data_gen/requirements-beam.txt
	@$(call make_venv,$(BEAM),3.11 3.12 3.13)
	@touch $(BEAM)/.installing && rm -f $@
	@echo "installing Apache Beam into $(BEAM) (about 0.6 GB, a minute)"
	@$(BEAM)/bin/python $(PIP_INSTALL) --requirement $<
	@rm $(BEAM)/.installing && touch $@

$(TRL)/.stamp: bench/requirements-trl.txt
	@$(call make_venv,$(TRL),3.11 3.12 3.13)
	@touch $(TRL)/.installing && rm -f $@
	@echo "installing TRL, the peer of the benchmark, into $(TRL) (about 2 GB, two minutes)"
	@$(TRL)/bin/python $(PIP_INSTALL) torch==2.13.0
	@$(TRL)/bin/python $(PIP_INSTALL) --requirement $<
	@rm $(TRL)/.installing && touch $@

# Only what XLA needs to compile for GPUs that are not there (the extra `aot-gpu`, less cuBLAS), of jax's own version;
# all else is seen in $(TRAIN), in which JAX would look for a GPU if the plug-in lay there.
$(AOT_GPU)/.stamp: pyproject.toml | $(TRAIN)/.stamp-dev
	@$(call make_venv,$(AOT_GPU),$(TRAIN_VERSION))
	@touch $(AOT_GPU)/.installing && rm -f $@
	@echo "installing XLA's GPU compiler into $(AOT_GPU) (about 1.3 GB, a minute)"
	@jax=$$($(PY) -c 'import importlib.metadata; print(importlib.metadata.version("jax"))'); \
	  $(AOT_GPU)/bin/python $(PIP_INSTALL) --no-deps \
	    jax-cuda13-plugin==$$jax jax-cuda13-pjrt==$$jax 'nvidia-cudnn-cu13>=9.12,<10'
	@$(call see_train,$(AOT_GPU))
	@rm $(AOT_GPU)/.installing && touch $@

# Likewise: torch, transformers and what else PEFT needs are in $(TRAIN).
$(PEFT)/.stamp: tests/helpers/requirements-peft.txt | $(TRAIN)/.stamp-dev
	@$(call make_venv,$(PEFT),$(TRAIN_VERSION))
	@touch $(PEFT)/.installing && rm -f $@
	@echo "installing PEFT, which exported adapters are tested with, into $(PEFT) (a few MB)"
	@$(PEFT)/bin/python $(PIP_INSTALL) --no-deps --requirement $<
	@$(call see_train,$(PEFT))
	@rm $(PEFT)/.installing && touch $@

# With what these need; the tests' packages are seen behind that.
$(TOOLS)/.stamp: tests/helpers/requirements-tools.txt | $(TRAIN)/.stamp-dev
	@$(call make_venv,$(TOOLS),$(TRAIN_VERSION))
	@touch $(TOOLS)/.installing && rm -f $@
	@echo "installing wandb, datasets and nbclient, which tests use, into $(TOOLS) (about 0.4 GB)"
	@$(TOOLS)/bin/python $(PIP_INSTALL) --requirement $<
	@$(call see_train,$(TOOLS))
	@rm $(TOOLS)/.installing && touch $@

# Gradio, of the version that pyproject.toml pins; all else is seen in $(TRAIN), and not installed a second time.
$(DEMO)/.stamp: pyproject.toml | $(TRAIN)/.stamp-base
	@$(call make_venv,$(DEMO),$(TRAIN_VERSION))
	@touch $(DEMO)/.installing && rm -f $@ $(DEMO)/.stamp-test
	@echo "installing gradio, the demo's page, into $(DEMO) (about 0.3 GB, half a minute)"
	@$(call see_train,$(DEMO))
	@gradio=$$($(PY) -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]["demo"])'); \
	  $(DEMO)/bin/python $(PIP_INSTALL) $$gradio
	@rm $(DEMO)/.installing && touch $@

# What drives a browser, of the version that the tests were written with; the browser is the system's own.
$(DEMO)/.stamp-test: tests/helpers/requirements-browser.txt $(DEMO)/.stamp | $(TRAIN)/.stamp-dev
	@$(DEMO)/bin/python $(PIP_INSTALL) --requirement $<
	@touch $@

$(DOCS)/.stamp: docs/site/requirements.txt
	@$(call make_venv,$(DOCS),3.11 3.12 3.13)
	@touch $(DOCS)/.installing && rm -f $@
	@echo "installing mkdocs into $(DOCS)"
	@$(DOCS)/bin/python $(PIP_INSTALL) --requirement $<
	@rm $(DOCS)/.installing && touch $@

.PHONY: setup setup-dev setup-render setup-beam setup-peft setup-tools setup-aot-gpu setup-demo setup-docs
setup: $(TRAIN)/.stamp-base  ## make .venv: everything needed to train on a CPU

setup-dev: $(TRAIN)/.stamp-dev  ## the same, with the test tools and torch for the parity tests

setup-render: $(RENDER)/.stamp  ## make .venv-bpy: Blender as a Python module, and check that it loads
	@if ! message=$$($(RENDER)/bin/python -c 'import bpy' 2>&1); then \
	  echo "error: Blender does not load in $(RENDER): $$(tail -n 1 <<<"$$message")" >&2; \
	  echo "  If a lib*.so is missing: apt-get install $(BPY_APT_PACKAGES)" >&2; \
	  exit 1; \
	fi

setup-beam: $(BEAM)/.stamp  ## make .venv-beam: for `python -m data_gen.beam` and `data_gen.align_beam`

setup-peft: $(PEFT)/.stamp  ## make .venv-peft: for the test of exported adapters

setup-tools: $(TOOLS)/.stamp  ## make .venv-tools: for tests with Weights & Biases, Hugging Face's datasets, and of the notebook

setup-docs: $(DOCS)/.stamp  ## make .venv-docs: mkdocs, which makes the documentation's pages

setup-demo: $(DEMO)/.stamp  ## make .venv-demo: for `make demo` and `python -m dig_jax.demo`

setup-aot-gpu: $(AOT_GPU)/.stamp  ## make .venv-aot-gpu: for `python -m dig_jax.compile --topology=h100:8`

.PHONY: print-apt-packages
print-apt-packages:
	@echo $(BPY_APT_PACKAGES)

# --- work -----------------------------------------------------------------------------------------------------------

.PHONY: quickstart warmup
quickstart: setup setup-render  ## render image pairs, train the small model on them, write a report
	$(PY) -m data_gen --preset=tiny --num_pairs=512 --test_pairs=128 --seed=1 --out=data/quickstart
	$(PY) -m dig_jax.main --config=configs/quickstart.py --workdir=runs/quickstart

warmup: setup setup-render  ## remake the checkpoint the quickstart starts from, as runs/quickstart_warmup
	[ -d runs/scratch ] || $(PY) -m dig_jax.scratch --out=runs/scratch
	$(PY) -m data_gen --preset=tiny --num_pairs=1500 --test_pairs=256 --seed=7 --out=data/warmup
	$(PY) -m dig_jax.main --config=configs/warmup.py --workdir=runs/warmup
	[ -d runs/quickstart_warmup ] || \
	  $(PY) -m dig_jax.export --workdir=runs/warmup --out=runs/quickstart_warmup --dtype=bfloat16

# A run's workdir, or with MODEL=DIR another model; DEMO_ARGS="--puzzles=FILE --port=8000" passes options on.
MODEL ?= runs/quickstart
.PHONY: demo
demo: setup-demo  ## a page in the browser: the quickstart's model, while it trains, too (docs/demo.md)
	@[ -d $(MODEL)/checkpoints ] || [ -e $(MODEL)/config.json ] || \
	  { echo "error: there is no model in $(MODEL) yet: run make quickstart, or name one with MODEL=DIR" >&2; exit 1; }
	$(DEMO)/bin/python -m dig_jax.demo --model=$(MODEL) $(DEMO_ARGS)

.PHONY: quickstart-align study-align
# Scenes with enough objects for four options, and many questions of each; a dataset is complete when its folder is there.
QUICK_ITEMS := T-C:4,C-T:1,I-C:2,C-I:2,T-I:1,I-T:1,exist:0.5,conversation:0.25,description:0.25
quickstart-align: setup setup-render  ## the same for TinyGroundingGPT: questions with object crops, stages, a page
	[ -d data/quickstart_scenes ] || $(PY) -m data_gen --preset=tiny --objects=4-6 --differences=4 \
	  --num_pairs=600 --test_pairs=150 --seed=2 --out=data/quickstart_scenes
	[ -d data/quickstart_align ] || $(PY) -m data_gen.align --data=data/quickstart_scenes --out=data/quickstart_align \
	  --items=$(QUICK_ITEMS) --picture=last --model_side=96 --crop_side=48 --seed=2
	[ -d runs/quickstart_align_model ] || $(PY) -m dig_jax.scratch --family=clip_dino_qwen --image_size=96 \
	  --words_of=data/quickstart_align --out=runs/quickstart_align_model
	$(PY) -m dig_jax.main --config=configs/quickstart_align.py --workdir=runs/quickstart_align
	$(PY) -m study.align_page --model=runs/quickstart_align --data=data/quickstart_align --out=runs/quickstart_align_page

# Hours: STUDY_ARGS="--arms=A0,A1,E3 --seeds=1 --no-dig" is less.
study-align: setup setup-render  ## do object crops help? arms, controls, seeds: tables in runs/align_study (docs/align_study.md)
	$(PY) -m study.align --out=runs/align_study $(STUDY_ARGS)

# 22 pairs of another origin, where they are there.
PUZZLES ?= ../shared/examples/puzzles/pairs.jsonl
.PHONY: before-after
before-after: setup  ## after the quickstart: its model before and after GRPO, on other questions too (docs/results.md)
	if [ -e $(PUZZLES) ] && [ ! -d data/puzzles ]; then \
	  $(PY) -m data_gen.import_pairs --pairs=$(PUZZLES) --test_share=1 --out=data/puzzles; \
	fi
	puzzles=; if [ -d data/puzzles ]; then puzzles=--puzzles=data/puzzles; fi; \
	  $(PY) -m study.before_after --pairs=data/quickstart $$puzzles --out=runs/before_after

# One warm-up per seed, a dozen arms of GRPO: hours on four cores. STUDY_ARGS="--arms=full,control --seeds=0" is less.
.PHONY: study
study: setup setup-render $(TRAIN)/.stamp-study  ## rerun the learning study: tables and plots in runs/study (docs/learning.md)
	$(PY) -m study --out=runs/study $(STUDY_ARGS)

.PHONY: test test-slow test-demo lint format types bench bench-generator
# Two processes: one spends most of its time compiling on one core. A file's tests share what is costly to make.
# Files go in the order of tests/conftest.py, the longest first, and not by how many tests they have.
# A process that dies is not replaced: pytest-xdist may wait for ever for one that dies again at the same test.
PYTEST := $(PY) -m pytest --numprocesses=2 --dist=loadfile --no-loadscope-reorder --max-worker-restart=0
test: setup-dev setup-render  ## run the tests (PYTEST_ARGS="..." passes options on)
	$(PYTEST) $(PYTEST_ARGS)

test-slow: setup-dev setup-render setup-beam setup-peft setup-tools setup-aot-gpu  ## run the tests marked slow, in two processes: they render, train and compile for minutes
	@$(PYTEST) -m slow $(PYTEST_ARGS) || { code=$$?; [ $$code = 5 ] && echo "no test is marked slow" || exit $$code; }

# With Debian's chromium, or the one that CHROMIUM names. They are no part of test-slow: CI has no browser.
test-demo: setup-dev $(DEMO)/.stamp-test  ## the tests of the demo's page, in a Chromium that is installed
	$(DEMO)/bin/python -m pytest -m slow tests/demo/test_browser.py $(PYTEST_ARGS)

# The site needs nothing of what it documents: docstrings are read from the source.
docs: setup-docs  ## write the documentation as a site to build/site; a link that leads nowhere is an error
	PATH="$(CURDIR)/$(DOCS)/bin:$$PATH" NO_MKDOCS_2_WARNING=1 mkdocs build

lint: setup-dev  ## ruff (rules and formatting) and shellcheck
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(TRAIN)/bin/shellcheck --external-sources --source-path=SCRIPTDIR tpu_scripts/*.sh .ci/run

format: setup-dev  ## let ruff mend what it can
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

types: setup-dev  ## mypy
	$(PY) -m mypy

# A benchmark is a module of bench/; what it needs beyond .venv is said here.
BENCH ?= all
bench: bench-$(BENCH)  ## the benchmarks and one table; one alone: BENCH=reward, inference ... (bench/README.md)

bench-all: setup-dev $(TRL)/.stamp
	$(PY) -m bench.all --trl-python=$(TRL)/bin/python $(BENCH_ARGS)

bench-grpo_step: setup $(TRL)/.stamp
	$(PY) -m bench.grpo_step --trl-python=$(TRL)/bin/python $(BENCH_ARGS)

bench-inference bench-evaluate bench-parity bench-accelerator bench-experts: bench-%: setup-dev
	$(PY) -m bench.$* $(BENCH_ARGS)

bench-generator: setup setup-render  ## pairs per minute, the generator against plain Blender, alternating
	$(PY) -m bench.generator $(BENCH_ARGS)

bench-%: setup
	$(PY) -m bench.$* $(BENCH_ARGS)
