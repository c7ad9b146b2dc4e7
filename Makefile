# `make book` and `make test`, and `make test-all`, which takes longer. They need Python 3.10 or
# newer, and nothing else. `make test-oldest` tests the bounds of `pyproject.toml`; it needs uv.
PYTHON ?= python3
ENV := .venv
STAMP := $(ENV)/.installed
# One process for each core, with one thread each; a test is handed out when one is free, as of
# several at a time those that take a minute would lie in one process's queue.
PYTEST := $(ENV)/bin/python -m pytest -n logical --maxschedchunk=1
# Threads that wait let others compute (book/gotchas.md).
export OMP_WAIT_POLICY ?= PASSIVE

.PHONY: book test test-all test-oldest clean

book: $(STAMP)
	@$(ENV)/bin/gradleak book

test: $(STAMP)
	@$(PYTEST) -m "not slow and not book and not browser"

test-all: $(STAMP)
	@$(PYTEST)

test-oldest:
	@tests/oldest.sh

$(STAMP): pyproject.toml
	@test -x $(ENV)/bin/python || $(PYTHON) -m venv $(ENV)
	@echo "Installing gradleak, PyTorch and Jupyter Book into $(ENV): several minutes, several GB."
	@$(ENV)/bin/python -m pip install -q --disable-pip-version-check -e '.[book,test]'
	@touch $@

clean:
	rm -rf _build
