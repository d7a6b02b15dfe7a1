# `make run` and `make test` include the set-up; they need Python 3.10 to 3.13, make and a package index.
# Everything is installed once into .venv, at the exact versions of constraints.txt.

# The first of these that is Python 3.10 to 3.13 creates the environment; `make run PYTHON=python3.12` selects one.
PYTHON ?= python3 python3.13 python3.12 python3.11 python3.10
.DEFAULT_GOAL := help

RECIPE ?= quickstart
BENCHES ?= tokenizer_speed
ARGS ?=
WORKERS ?= 2
PYTEST_ARGS ?=

VENV := .venv
PY := $(VENV)/bin/python
RUN_READY := $(VENV)/.ready-to-run
TEST_READY := $(VENV)/.ready-to-test
INPUTS := pyproject.toml constraints.txt
INSTALL := $(PY) -m pip install --disable-pip-version-check --retries 10 -c constraints.txt
# One thread per worker: two test processes that each use every core would slow each other down.
PYTEST := OMP_NUM_THREADS=1 $(PY) -m pytest $(PYTEST_ARGS)
NEVER_HERE := not network and not gpu
# Tests whose results depend on the processor's arithmetic, and the variants to run them with: CPU instructions and
# number of threads.
NUMERICS := tests/model tests/core/test_matrix_product.py tests/generation tests/inspection tests/reference/test_model_agrees.py \
  tests/finetuning/test_lora.py tests/finetuning/test_dora.py \
  tests/finetuning/test_packed_linear.py tests/finetuning/test_activation_cache.py \
  tests/finetuning/test_heads.py tests/finetuning/test_preference_losses.py \
  tests/finetuning/test_preference_task.py tests/finetuning/test_instruction.py \
  tests/finetuning/test_classification_task.py tests/evaluation/test_likelihood.py \
  tests/evaluation/test_loss.py tests/training/test_optim.py tests/training/test_muon.py \
  tests/training/test_trainer.py tests/book/test_ch03.py tests/book/test_ch04.py \
  tests/book/test_ch05.py tests/book/test_ch06.py tests/book/test_dpo.py
ARITHMETICS := default:1 avx2:2

# An environment that was created elsewhere (the checkout was moved or copied) or with another Python than the one
# requested is created again.
ifneq ($(shell cat $(VENV)/.made-in 2>/dev/null),$(CURDIR))
.PHONY: $(PY) $(RUN_READY) $(TEST_READY)
else ifneq ($(origin PYTHON),file)
VERSION_OF := -c "import sys; print(sys.version_info[:2])" 2>/dev/null
ifneq ($(shell $(firstword $(PYTHON)) $(VERSION_OF)),$(shell $(PY) $(VERSION_OF)))
.PHONY: $(PY) $(RUN_READY) $(TEST_READY)
endif
endif

.NOTPARALLEL:
.PHONY: help run serve test test-slow test-numerics check lint format bench setup clean clean-all

help:
	@echo "make run        set everything up, then train, fine-tune and evaluate a small model (RECIPE=$(RECIPE) ARGS='--fresh ...')"
	@echo "make serve      set everything up, then open the web page on the models in runs/ (ARGS='--port 8001 ...')"
	@echo "make test       set everything up, then run the tests"
	@echo "make test-slow  the slow tests"
	@echo "make test-numerics  the numeric tests with other instructions and threads ($(ARITHMETICS))"
	@echo "make check      the checks before a commit: format, lint, types, fast tests, examples in docstrings"
	@echo "make format     format the code and apply lint's automatic fixes"
	@echo "make bench      run a benchmark (BENCHES='tokenizer_speed' ARGS='--data FOLDER'; others: scratchlm bench)"
	@echo "make clean      remove build and cache files (make clean-all: also $(VENV)); runs/ stays"

run: $(RUN_READY)
	@$(PY) -m scratchlm run $(RECIPE) $(ARGS)

serve: $(RUN_READY)
	@$(PY) -m scratchlm serve --open $(ARGS)

test: $(TEST_READY)
	$(PYTEST) -n $(WORKERS) --dist loadfile -m "not slow and $(NEVER_HERE)"

test-slow: $(TEST_READY)
	$(PYTEST) -n $(WORKERS) --dist worksteal -m "slow and $(NEVER_HERE)"

test-numerics: $(TEST_READY)
	@for one in $(ARITHMETICS); do \
	  echo "== instructions and threads: $$one"; \
	  ATEN_CPU_CAPABILITY=$${one%:*} OMP_NUM_THREADS=$${one#*:} $(PY) -m pytest $(PYTEST_ARGS) -n $(WORKERS) \
	    --dist loadfile -m "not slow and $(NEVER_HERE)" $(NUMERICS) || exit 1; \
	done

check: lint
	$(PYTEST) -n $(WORKERS) --dist loadfile -m "not slow and not browser and $(NEVER_HERE)"

lint: $(TEST_READY)
	$(PY) -m ruff format --check .
	$(PY) -m ruff check .
	$(PY) -m mypy

format: $(TEST_READY)
	$(PY) -m ruff format .
	$(PY) -m ruff check --fix .

bench: $(TEST_READY)
	@for name in $(BENCHES); do echo "== $$name"; $(PY) -m scratchlm bench $$name $(ARGS) || exit 1; done

setup: $(TEST_READY)

clean:
	rm -rf build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage htmlcov
	find scratchlm tests benchmarks dev -name __pycache__ -type d -prune -exec rm -rf {} +

clean-all: clean
	rm -rf $(VENV)

$(PY):
	@chosen=; seen=; \
	for candidate in $(PYTHON); do \
	  command -v "$$candidate" >/dev/null 2>&1 || continue; \
	  version=$$("$$candidate" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) || continue; \
	  seen="$$seen $$candidate is $$version;"; \
	  case "$$version" in 3.10|3.11|3.12|3.13) chosen=$$candidate; break;; esac; \
	done; \
	if [ -z "$$chosen" ]; then \
	  echo "scratchlm needs Python 3.10, 3.11, 3.12 or 3.13, found:$${seen:- none;}" >&2; \
	  echo "install one (on Debian or Ubuntu: apt-get install python3 python3-venv) and run 'make run PYTHON=python3.12'." >&2; \
	  exit 1; \
	fi; \
	if ! "$$chosen" -c 'import venv, ensurepip' >/dev/null 2>&1; then \
	  echo "$$chosen lacks the modules venv and ensurepip;" >&2; \
	  echo "install them (on Debian or Ubuntu: apt-get install python3-venv) and run make again." >&2; \
	  exit 1; \
	fi; \
	echo "== creating $(VENV) with $$chosen"; \
	rm -rf $(VENV) && "$$chosen" -m venv $(VENV) && echo "$(CURDIR)" > $(VENV)/.made-in

$(RUN_READY): $(INPUTS) | $(PY)
	@echo "== installing scratchlm into $(VENV) (once; PyTorch is large, this takes some minutes)"
	@$(INSTALL) -e ".[all]"
	@touch $@

$(TEST_READY): $(INPUTS) | $(PY)
	@echo "== installing scratchlm and its test tools into $(VENV) (once; PyTorch is large, this takes some minutes)"
	@$(INSTALL) -e ".[all,test,dev]"
	@touch $(RUN_READY) $@
