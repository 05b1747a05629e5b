# Everything a fresh clone needs: `make demo` and `make test` do all set-up themselves.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.ready
NODE   := tests/node/node_modules
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: setup test torture audit demo fleet-demo lint clean
setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt tools/llama_build.cmake tools/preflight.py
	@$(PYTHON) tools/preflight.py
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25"
	CMAKE_ARGS="-DLLAVA_BUILD=OFF -DMTMD_BUILD=OFF -DLLAMA_CURL=OFF -DCMAKE_PROJECT_llama.cpp_INCLUDE=$(CURDIR)/tools/llama_build.cmake" \
	  $(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev]"
	@touch $@

test: $(STAMP) $(NODE)
	$(BIN)/python -m pytest

$(NODE): tests/node/package.json
	@npm install --silent --no-package-lock --fetch-retries 0 --prefix tests/node && touch $@ || echo "No npm: the tests of the npm client and of axe are skipped."

torture: $(STAMP)
	$(BIN)/python -m tools.torture all

audit: $(STAMP)
	$(BIN)/python -m tools.audit

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

demo: $(STAMP)
	$(BIN)/corrigible demo --report demo-report

fleet-demo: $(STAMP)
	$(BIN)/python -m tools.fleet_demo

clean:
	rm -rf $(VENV) build demo-report *.egg-info
