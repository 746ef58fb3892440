# One word per job, the same by hand and in CI. Each makes the environment it needs.
#
#   PYTHON=python3.13 make test                     another Python
#   SNAKEPIT_MP_BUILD_EXTENSION=no make test        without the compiled part (yes: insist on it)

PYTHON ?= python3
SWITCH := $(SNAKEPIT_MP_BUILD_EXTENSION)
VERSION := $(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])')

# An environment for each Python and each setting of the switch, so that they do not mix.
VENV ?= .venv/$(VERSION)$(addprefix -,$(SWITCH))
BIN := $(VENV)/bin
PROTOS_VENV := .venv/$(VERSION)-protos
PIP_INSTALL := -m pip install --quiet --disable-pip-version-check
# In place. setuptools warns of its own way to do that, which cannot be changed.
INSTALL_HERE := PYTHONWARNINGS='ignore:Editable installation' \
	$(BIN)/python $(PIP_INSTALL) --editable '.[digits]'
PYTEST := $(BIN)/python -m pytest
# The suites wait more than they compute. A file stays in one process, for the pools that it shares.
PROCESSES ?= 2
SUITE := $(PYTEST) --numprocesses $(PROCESSES) --dist loadfile
BENCH_SMOKE := SNAKEPIT_MP_BENCH_ITEMS=200 $(PYTEST) benchmarks --benchmark-disable
SOURCES := pyproject.toml setup.py $(wildcard _speedups/*)

ifeq ($(SWITCH),no)
# A compiled part that another environment built in this checkout must not be picked up.
export SNAKEPIT_MP_IMPL := python
endif

.PHONY: help develop digits check lint test soak sanitize storm crash-exhaustive \
	store-scale bench bench-smoke protos wheel wheels docs clean

help:
	@echo 'make digits | test | develop | check | soak | sanitize | storm | crash-exhaustive'
	@echo '   | store-scale | bench | bench-smoke | protos | docs | wheel | wheels | clean'

# Environments

$(VENV)/pip.stamp $(PROTOS_VENV)/pip.stamp:
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/python $(PIP_INSTALL) --upgrade 'pip>=25.1'
	@touch $@

$(VENV)/digits.stamp: $(VENV)/pip.stamp $(SOURCES)
	$(INSTALL_HERE)
	@touch $@

$(VENV)/develop.stamp: $(VENV)/pip.stamp $(SOURCES)
	$(INSTALL_HERE) --group dev
	@touch $@ $(VENV)/digits.stamp

$(PROTOS_VENV)/protos.stamp: $(PROTOS_VENV)/pip.stamp pyproject.toml
	$(PROTOS_VENV)/bin/python $(PIP_INSTALL) --group protos
	@touch $@

develop: $(VENV)/develop.stamp

# Running

digits: $(VENV)/digits.stamp
	$(BIN)/python examples/digits.py

# Checking

check: lint docs

lint: develop $(PROTOS_VENV)/protos.stamp
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python tools/check_stubs.py
	PATH="$(abspath $(BIN)):$$PATH" cython-lint --max-line-length 100 _speedups
	$(BIN)/lint-imports
	$(BIN)/python tools/check_sizes.py
	$(PROTOS_VENV)/bin/python tools/gen_protos.py --check

# The code blocks of README.md and docs/, and what in them is printed from the code.
docs: develop
	$(PYTEST) tests/test_docs.py

# The suites run the code blocks, so that lint is what remains of check.
test: lint
ifeq ($(SWITCH),no)
	@echo 'SNAKEPIT_MP_BUILD_EXTENSION=no: only the pure suite runs.'
	$(SUITE)
else
	@if $(BIN)/python -c 'import snakepit_mp._speedups'; then \
		SNAKEPIT_MP_IMPL=c $(SUITE) && SNAKEPIT_MP_IMPL=python $(SUITE) -m 'not either_twin'; \
	else \
		echo 'The compiled part could not be built here: only the pure suite runs.'; \
		SNAKEPIT_MP_IMPL=python $(SUITE); \
	fi
endif
	$(BENCH_SMOKE)

# Mixed work under a killer, for as many seconds as SOAK says.
SOAK ?= 600
soak: develop
	$(BIN)/python tests/storm.py --seconds $(SOAK)

# The tests of the codec with the compiled part built to stop at the first wrong access. Leaks
# are looked for by the tests themselves; the interpreter's own would hide them here.
SANITIZED := build/sanitized
SANITIZE := -fsanitize=address,undefined
sanitize: develop
	CFLAGS='-O1 -g $(SANITIZE) -fno-sanitize-recover=all' LDFLAGS='$(SANITIZE)' \
		SNAKEPIT_MP_BUILD_EXTENSION=yes $(BIN)/python setup.py --quiet build \
		--build-lib $(SANITIZED)/lib --build-temp $(SANITIZED)/temp
	LD_PRELOAD="$$(gcc -print-file-name=libasan.so) $$(gcc -print-file-name=libubsan.so)" \
		ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1 \
		PYTHONMALLOC=malloc PYTHONPATH=$(SANITIZED)/lib SNAKEPIT_MP_IMPL=c \
		SNAKEPIT_MP_TEST_TIMEOUT_FACTOR=5 $(BIN)/pytest tests/values

# Random operations and random kills. More of it: STORM_SECONDS=600 make storm
STORM_SECONDS ?= 60
STORM_PROCESSES ?= 8
storm: develop
	$(BIN)/python tests/store/storm.py --seconds $(STORM_SECONDS) --processes $(STORM_PROCESSES)

# A kill at every instruction of the compiled store that changes what outlives the process.
crash-exhaustive: develop
	$(BIN)/python -m tools.crash_exhaustive

# A million sessions with ten variables each: 3 GB. Fewer: SCALE_SESSIONS=100000 make store-scale
SCALE_SESSIONS ?= 1000000
store-scale: develop
	$(BIN)/python tools/store_scale.py --sessions $(SCALE_SESSIONS)

# Writes .benchmarks/calls.json, and what it says into docs/benchmarks.md and docs/plots/.
bench: develop
	mkdir -p .benchmarks
	$(PYTEST) benchmarks --benchmark-only --benchmark-json=.benchmarks/calls.json
	$(BIN)/python benchmarks/instructions.py .benchmarks/instructions.json
	$(BIN)/python benchmarks/report.py .benchmarks/calls.json .benchmarks/instructions.json

bench-smoke: develop
	$(BENCH_SMOKE)

# Building

protos: $(PROTOS_VENV)/protos.stamp
	$(PROTOS_VENV)/bin/python tools/gen_protos.py

# The local wheel, the pure wheel and the sdist, each installed afresh and tested.
wheel: develop
	$(BIN)/python tools/build_wheels.py

# The wheels of every platform; needs a container engine.
wheels: $(VENV)/pip.stamp
	$(BIN)/python $(PIP_INSTALL) --group wheels
	$(BIN)/python -m cibuildwheel --output-dir dist

clean:
	rm -rf .venv build dist *.egg-info snakepit_mp/*.so .benchmarks .hypothesis .*_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
