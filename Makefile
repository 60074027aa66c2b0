# The two commands of a fresh machine are `make demo` and `make test`; each makes its own .venv and installs from PyPI.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
OUT ?= demo_out
# A process a core, a thread a process: as many as the machine of the two commands has.
WORKERS ?= 2

.PHONY: demo test test-all check slow format clean

demo: $(VENV)/.installed
	$(BIN)/crispseg demo --out $(OUT)

test: $(VENV)/.installed-dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile

test-all: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -m "slow or not slow"

.PHONY: mutants
mutants: $(VENV)/.installed-dev
	$(BIN)/python tests/mutants/mutate.py --jobs 2 $(ONLY)

# Doctests are among the tests: here they would run twice in CI.
check: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# In a venv of its own: it needs none of what crispseg needs.
.PHONY: docs
docs: $(VENV)-docs/.installed
	NO_MKDOCS_2_WARNING=1 $(VENV)-docs/bin/mkdocs build --strict

slow: $(VENV)/.installed-dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m slow -n $(WORKERS) --dist loadfile

format: $(VENV)/.installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) $(VENV)-docs $(OUT) site

$(VENV)-docs/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)-docs
	$(VENV)-docs/bin/pip install --quiet "mkdocs-material>=9.6" "mkdocstrings[python]>=1" "latex2mathml>=3.77" "ruff>=0.9"
	touch $@

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --editable ".[train]"
	touch $@

$(VENV)/.installed-dev: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --editable ".[dev]"
	touch $@ $(VENV)/.installed
