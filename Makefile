# Everything a developer runs. `make` alone lists the targets.

PYTHON ?= python3
VENV ?= .venv
JOBS ?= 2
PY := $(VENV)/bin/python
# The models of the tests are tiny: further threads of one process only wait for each other.
PYTEST := OMP_NUM_THREADS=1 $(PY) -m pytest -q -n $(JOBS)

# Nothing here needs a network once the environment stands, and nothing is allowed to use one silently.
export HF_HUB_OFFLINE := 1
export HF_DATASETS_OFFLINE := 1
export TOKENIZERS_PARALLELISM := false
export PYTHONUTF8 := 1

.DEFAULT_GOAL := help
.PHONY: help venv demo test test-all lint format types docs page show bench changelog clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

$(VENV)/.runtime: pyproject.toml constraints.txt scripts/setup.py
	@$(PYTHON) scripts/setup.py $(VENV)
	@touch $@

$(VENV)/.dev: pyproject.toml constraints.txt scripts/setup.py
	@$(PYTHON) scripts/setup.py $(VENV) dev
	@touch $@ $(VENV)/.runtime

$(VENV)/.all: pyproject.toml constraints.txt scripts/setup.py
	@$(PYTHON) scripts/setup.py $(VENV) dev peers
	@touch $@ $(VENV)/.dev $(VENV)/.runtime

venv: $(VENV)/.dev ## make the virtual environment with everything a developer needs

demo: $(VENV)/.runtime ## explain one prompt with the bundled model
	@$(PY) scripts/demo.py $(VENV)

test: $(VENV)/.dev ## run the tests that a change must pass
	@$(PYTEST)

test-all: $(VENV)/.all ## run every test, on every architecture
	@$(PYTEST) -m "not browser"
	@$(PYTEST) -m browser  # apart: the driver of the browser keeps an event loop running in its process

lint: $(VENV)/.dev ## check the form of the code
	@$(PY) -m ruff format --check .
	@$(PY) -m ruff check .

format: $(VENV)/.dev ## bring the code into form
	@$(PY) -m ruff format .
	@$(PY) -m ruff check --fix .

types: $(VENV)/.dev ## check the types
	@$(PY) -m pyright

docs: $(VENV)/.dev ## build the manual into site/
	@$(PY) scripts/make_method_pages.py docs/methods
	@NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs build --strict --quiet
	@$(PY) scripts/check_site.py site

page: ## build the web page into src/pellucid/web/static/ (needs Node)
	@npm --prefix frontend ci --no-audit --no-fund --silent
	@npm --prefix frontend run build --silent

show: $(VENV)/.dev ## run what an issue must show: make show ISSUE=house
	@$(PY) -m scripts.show $(ISSUE)

bench: $(VENV)/.dev ## compare speed and results with other libraries: make bench, or make bench GPU=1
	@$(PY) bench/run.py $(if $(GPU),--gpu)

changelog: $(VENV)/.dev ## build CHANGELOG.md from changelog.d/
	@$(PY) scripts/changelog.py

clean: ## remove what can be made again, except the environment
	@rm -rf build dist site out docs/methods .pytest_cache .ruff_cache
	@find src tests scripts -name __pycache__ -type d -prune -exec rm -rf {} +
