# Two commands: `make book` and `make test`. Both need Python 3.10 or newer, and nothing else.
PYTHON ?= python3
ENV := .venv
STAMP := $(ENV)/.installed

.PHONY: book test clean

book: $(STAMP)
	@$(ENV)/bin/gradleak book --profile smoke

test: $(STAMP)
	@$(ENV)/bin/python -m pytest

$(STAMP): pyproject.toml
	@test -x $(ENV)/bin/python || $(PYTHON) -m venv $(ENV)
	@echo "Installing gradleak, PyTorch and Jupyter Book into $(ENV): several minutes, several GB."
	@$(ENV)/bin/python -m pip install -q --disable-pip-version-check -e '.[book,test]'
	@touch $@

clean:
	rm -rf _build
