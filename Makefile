# Everything here makes what it needs: a virtual environment in .venv, from requirements.lock, checked by hash.
# Nothing but make and Python 3.11 or newer is needed beforehand.

VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# pip for whoever has an old one: it asks nothing, and a slow line is no fault.
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input --timeout 60 --retries 5
COMPILE := UV_CUSTOM_COMPILE_COMMAND="make lock" $(BIN)/uv pip compile pyproject.toml --universal --python-version 3.11 \
	--generate-hashes --no-emit-index-url --no-emit-find-links --no-annotate --system-certs --quiet
SOURCES := consumers domain schemas infra tests
# In this order, what fails fastest first. Benchmarks are no tests: make bench.
TESTS := $(wildcard tests/unit tests/property tests/integration tests/faults tests/acceptance)

.PHONY: help demo test fuzz mutants bench lint format lock upgrade clean
.DEFAULT_GOAL := help

help:
	@echo "make demo     a week of small marketplaces and a day of cards, from Kafka through the ledger and out again"
	@echo "make test     format, lint, types, layers, and all tests, against a real Kafka and a real Postgres"
	@echo "make fuzz     a million records for the parsers (make fuzz ARGS=\"--records 10000 --seed 7\")"
	@echo "make mutants  change domain/ in one place after the other: a test must notice each (ARGS=\"posting --sample 50\")"
	@echo "make bench    how fast it is on this machine (one part: make bench ARGS=\"--only pipe\")"
	@echo "make faults   attack a ledger under load, and say what was lost or doubled (ARGS=\"--scenario random --minutes 60\")"
	@echo "make lint     format, lint, types and layers only"
	@echo "make format   put the code in form"
	@echo "make lock     pin what pyproject.toml asks for (make upgrade: at the newest versions)"
	@echo "make clean    remove .venv and what the tools left"

demo: $(READY)
	@$(BIN)/ledgerstream demo

test: lint
	@echo "== tests"
	@$(BIN)/python -m pytest $(TESTS) $(ARGS)

fuzz: $(READY)
	@$(BIN)/python -m tests.fuzz $(ARGS)

mutants: $(READY)
	@$(BIN)/python -m tests.mutation $(ARGS)

bench: $(READY)
	@$(BIN)/python -m tests.benchmarks $(ARGS)

faults: $(READY)
	@$(BIN)/python -m tests.campaign $(ARGS)

lint: $(READY)
	@echo "== format" && $(BIN)/ruff format --check $(SOURCES)
	@echo "== lint" && $(BIN)/ruff check --quiet $(SOURCES)
	@echo "== types" && $(BIN)/mypy
	@echo "== layers" && $(BIN)/lint-imports

format: $(READY)
	@$(BIN)/ruff format $(SOURCES)
	@$(BIN)/ruff check --fix $(SOURCES)

lock upgrade: $(READY)
	@$(COMPILE) $(if $(filter upgrade,$@),--upgrade) --extra embedded --extra bench --extra dev -o requirements.lock
	@$(COMPILE) --extra build -c requirements.lock -o requirements-runtime.lock
	@echo "requirements.lock and requirements-runtime.lock are current"

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

# The lock decides what is installed; the project itself is linked in, so that an edit needs no new install.
$(READY): requirements.lock pyproject.toml
	@python=$$(for name in "$$PYTHON" python3.11 python3.12 python3.13 python3.14 python3 python; do \
		[ -n "$$name" ] && "$$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo "$$name" && break; \
	done); \
	[ -n "$$python" ] || { echo "ledgerstream needs Python 3.11 or newer, and there is none on PATH; install it, or name it: make PYTHON=/path/to/python3.11 …" >&2; exit 2; }; \
	$(BIN)/python -m pip --version >/dev/null 2>&1 || "$$python" -m venv $(VENV) || \
		{ rm -rf $(VENV); echo "$$python can't make a virtual environment; on Debian and Ubuntu: apt install $$(basename $$python)-venv" >&2; exit 2; }
	@echo "== installing what requirements.lock names into $(VENV), once (about 200 MB)"
	@$(PIP) install --require-hashes -r requirements.lock
	@$(PIP) install --quiet --no-deps --no-build-isolation --editable .
	@touch $@
