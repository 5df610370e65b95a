# Set-up and everyday commands. `make quickstart` and `make test` need nothing but Python 3.11+.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
TEST_PROCESSES ?= 2
TORCH := $(shell sed -n 's/^torch==//p' constraints.txt)
TORCH_CPU_INDEX ?= https://download.pytorch.org/whl/cpu
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet --constraint constraints.txt

.PHONY: quickstart test test-slow test-deploy check docs format clean

quickstart: $(VENV)/.installed-run
	$(BIN)/biloom run configs/quickstart.yaml
	$(BIN)/biloom classify train installed-docs: --model runs/quickstart/export --out runs/quickstart/packages

test: $(VENV)/.installed-dev
	$(BIN)/python -m pytest --numprocesses $(TEST_PROCESSES) --dist loadfile -m "not slow and not deploy"

test-slow: $(VENV)/.installed-dev
	$(BIN)/python -m pytest --numprocesses $(TEST_PROCESSES) --dist loadfile -m "slow and not deploy"

# Starts a Docker engine and the cluster of docker-compose.yml; is skipped, with the reason, where that is impossible.
test-deploy: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -m deploy -rs tests/deploy

check: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# Needs no network. --fresh-env, because the references are generated from the code, whose changes Sphinx
# does not notice. The site starts at docs/_build/html/index.html.
docs: $(VENV)/.installed-dev
	$(BIN)/python -m sphinx --fresh-env --fail-on-warning --keep-going --quiet -b html docs docs/_build/html

format: $(VENV)/.installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) build dist docs/_build .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

$(VENV)/.installed-run: $(VENV)/.torch pyproject.toml constraints.txt
	@echo "Installing biloom into $(VENV) (a minute or two)"
	@$(PIP) --editable '.[beam,tasks,wandb]'
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.torch pyproject.toml constraints.txt
	@echo "Installing biloom and what its tests need into $(VENV) (a minute or two)"
	@$(PIP) --editable '.[dev]'
	@touch $@

# On Linux, the default build of torch brings gigabytes of CUDA libraries. Without a GPU, install the CPU
# build: from the configured package index if it has one, otherwise from PyTorch's index.
$(VENV)/.torch: constraints.txt
	@$(PYTHON) -m venv $(VENV)
	@echo "Installing torch $(TORCH) into $(VENV)"
	@if [ "$$(uname -s)" != Linux ] || command -v nvidia-smi >/dev/null; then \
	  $(PIP) torch==$(TORCH); \
	else \
	  $(PIP) torch==$(TORCH)+cpu 2>/dev/null || \
	  $(PIP) torch==$(TORCH)+cpu --index-url $(TORCH_CPU_INDEX); \
	fi
	@touch $@
