# Everything runs from .venv, which is made on first use and again when what it is made from changes.
# It needs Python 3.11 or newer; if that is not `python3`: make test PYTHON=/path/to/python3.11

PYTHON ?= python3
VENV := .venv/bin/python
READY := .venv/.ready
MODERN := import sys; sys.exit(sys.version_info < (3, 11))
USABLE := import os, pip, sys; sys.exit(sys.version_info < (3, 11) or os.path.abspath(".venv") not in pip.__file__)
MAKEFLAGS += --no-print-directory

.DEFAULT_GOAL := help
.PHONY: help setup demo test lint docs parity bench clean

help:  ## what there is
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-8s%s\n", $$1, $$2 }' Makefile

demo: $(READY)  ## see it work, on real weights
	@$(VENV) -m lamina.demo

# Two workers, one thread each: workers that each start a thread a core would only wait for one another.
test: $(READY)  ## run the tests (ARGS="-k name" narrows them)
	@OMP_NUM_THREADS=1 $(VENV) -m pytest -n 2 --dist loadgroup $(ARGS)

lint: $(READY)  ## style, format and types
	@$(VENV) -m ruff check .
	@$(VENV) -m ruff format --check .
	@$(VENV) -m pyright

docs: $(READY)  ## write what is generated in docs/: tables and drawings
	@$(VENV) -m tools.pages

parity: $(READY)  ## write docs/parity.md from the tests that compare with the reference
	@OMP_NUM_THREADS=1 $(VENV) -m pytest -q -n 2 tests/families/test_parity.py --junitxml=build/parity.xml
	@$(VENV) -m tools.parity build/parity.xml

bench: $(READY)  ## measure, one script a question
	@for script in bench/[!_]*.py; do echo "== $$script"; $(VENV) "$$script" || exit; done

setup: $(READY)  ## make .venv with all that the others need

clean:  ## remove caches and built files; .venv stays, and is checked again on next use
	@rm -rf build dist .pytest_cache .ruff_cache .hypothesis $(READY)
	@find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +

$(READY): pyproject.toml constraints.txt
	@$(VENV) -c '$(USABLE)' 2>/dev/null || { \
		$(PYTHON) -c '$(MODERN)' || { echo "$(PYTHON) is no Python 3.11 or newer; name one: make PYTHON=..." >&2; exit 1; }; \
		$(PYTHON) -m venv --clear .venv; }
	$(VENV) -m pip install --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@
