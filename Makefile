# make demo    install into .venv, fit a data set, train a network, write pictures
# make test    the same environment, then every check (COVERAGE=yes: and how much of the package the tests reach)
# make fuzz    the laws on examples drawn anew, twenty times as many
# make test-versions TORCH="2.11.0 2.15.0"   all tests on each of these versions of torch
# make format  let ruff format and fix what it can
# make random-calls    ten thousand random calls of every face; hours (CALLS=1000 for fewer)
# make docs    the site, into docs/_build/html
# make look    see every page of it in a Chromium that is installed: errors, links, pictures, narrow screens
# make bench   the benchmarks beside their rivals
# make package sdist and wheel into dist/, each installed into an empty environment and tried there
# make clean   back to a fresh clone
#
# PYTHON=python3.12 names the Python that makes the environment. To install the CPU build of torch on Linux see the
# head of constraints.txt.

PYTHON ?= python3
# processes of pytest; each computes on one thread
WORKERS ?= 2
# not empty: the tests are run under coverage, which takes half as long again; .ci/run does
COVERAGE ?=
# random calls of each face
CALLS ?= 10000

VENV := .venv
RUN := $(VENV)/bin/python
INSTALL := -m pip --disable-pip-version-check install --quiet --constraint constraints.txt
PIP := $(RUN) $(INSTALL)
EMPTY := $(VENV)-empty
INSTALLED := $(VENV)/.installed
INSTALLED_RIVALS := $(VENV)/.installed-benchmarks
INSTALLED_DOCS := $(VENV)/.installed-docs
CHECKS := format lint types docs package tests slow
# One thread for each process: on small matrices two threads lose to one, and processes would share the cores.
PYTEST := -m pytest --numprocesses=$(WORKERS) --dist=worksteal
# Bytecode is kept where the environment forbids it too: every process, of which tests start many, would compile all anew.
ALONE := OMP_NUM_THREADS=1 MPLBACKEND=Agg PYTHONDONTWRITEBYTECODE=

# the oldest version that is supported and the newest
TORCH ?= 2.11.0 2.15.0

.PHONY: help demo test fuzz test-versions format random-calls docs look bench package clean $(CHECKS:%=check-%)

help:
	@sed -n '/^# make/s/^# /  /p' Makefile

demo: $(INSTALLED)
	@MPLBACKEND=Agg $(RUN) examples/demo.py

# Every check runs, also after one that failed: one run tells all there is to mend.
test: $(INSTALLED)
	@failed=; \
	for check in $(CHECKS); do \
		echo "== $$check"; \
		$(MAKE) --no-print-directory check-$$check || failed="$$failed $$check"; \
	done; \
	if [ -n "$$failed" ]; then echo "make test: FAILED in:$$failed"; exit 1; fi; \
	echo "make test: all checks passed ($(CHECKS))"

check-format: $(INSTALLED)
	@$(RUN) -m ruff format --check --diff .

check-lint: $(INSTALLED)
	@$(RUN) -m ruff check .

check-types: $(INSTALLED)
	@$(RUN) -m mypy

check-tests: $(INSTALLED)
	@$(ALONE) $(RUN) $(PYTEST) -m "not slow" --durations=10 \
		$(if $(COVERAGE),--cov --cov-report=term-missing:skip-covered)

# without coverage, which would double the time of some; of the files that name the mark alone, since to collect all
# takes each process half a minute (tests/conftest.py refuses the mark elsewhere)
check-slow: $(INSTALLED)
	@$(ALONE) $(RUN) $(PYTEST) -m slow --durations=0 $$(grep -rl --include='*.py' 'mark\.slow' tests)

fuzz: $(INSTALLED)
	@$(ALONE) $(RUN) $(PYTEST) -m hypothesis --hypothesis-profile=fuzz -o faulthandler_timeout=3600

# A version of torch brings what it needs; all else is as in constraints.txt.
test-versions:
	@failed=; \
	for version in $(TORCH); do \
		there=$(VENV)-torch/$$version; \
		echo "== torch $$version in $$there"; \
		{ $(PYTHON) -m venv $$there \
			&& grep -v -e '^torch==' -e '^setuptools==' constraints.txt > $$there/constraints.txt \
			&& $$there/bin/python -m pip --disable-pip-version-check install --quiet \
				--constraint $$there/constraints.txt "torch==$$version" --editable '.[dev]' \
			&& $(ALONE) $$there/bin/python $(PYTEST); } || failed="$$failed $$version"; \
	done; \
	if [ -n "$$failed" ]; then echo "make test-versions: FAILED on torch:$$failed"; exit 1; fi; \
	echo "make test-versions: all tests passed on torch $(TORCH)"

format: $(INSTALLED)
	@$(RUN) -m ruff check --fix . ; $(RUN) -m ruff format .

# A call that breaks a promise is printed with the command that makes it alone.
random-calls: $(INSTALLED)
	@OMP_NUM_THREADS=1 RANDOM_CALLS=$(CALLS) $(RUN) -m pytest tests/test_random_calls.py --numprocesses=$(WORKERS) \
		--dist=worksteal --quiet

# -W: a warning fails, after all of them are told
docs: $(INSTALLED_DOCS)
	@$(RUN) -m sphinx --quiet --fail-on-warning --keep-going --builder html docs docs/_build/html
	@echo "The site is in docs/_build/html/index.html."

check-docs: docs

look: docs
	@$(PIP) --editable '.[docs,look]'
	@$(RUN) docs/look.py

bench: $(INSTALLED_RIVALS)
	@MPLBACKEND=Agg $(RUN) -m benchmarks

# The wheel is built from the sdist, so that what the sdist lacks is missed. Away from the sources `import lmtorch` finds
# what was installed. -W error: what warns here warns users.
package: $(INSTALLED)
	@rm -rf dist $(EMPTY)
	@$(RUN) -m build --outdir dist . >/dev/null
	@$(PYTHON) -m venv $(EMPTY)
	@$(EMPTY)/bin/python $(INSTALL) dist/*.whl
	@cd $(EMPTY) && $(ALONE) bin/python -W error $(CURDIR)/packaging/smoke.py
	@$(EMPTY)/bin/python $(INSTALL) --force-reinstall --no-deps dist/*.tar.gz
	@cd $(EMPTY) && $(ALONE) bin/python -W error $(CURDIR)/packaging/smoke.py
	@rm -rf $(EMPTY)
	@ls dist/*

check-package: package

clean:
	rm -rf $(VENV) $(VENV)-torch $(EMPTY) build dist output docs/_build docs/gallery docs/project docs/reference/members.md .coverage* htmlcov .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { echo \
		"lmtorch needs Python 3.11 or newer; '$(PYTHON)' is" \
		"$$(command -v $(firstword $(PYTHON)) >/dev/null && $(PYTHON) --version 2>&1 || echo not installed)." \
		"Name another one, as in: make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo \
		"'$(PYTHON)' cannot make virtual environments: its modules venv and ensurepip are missing." \
		"On Debian and Ubuntu they come with the package python3-venv." >&2; exit 1; }
	@echo "Installing lmtorch and its tools into $(VENV). The first time downloads PyTorch: some minutes."
	@$(PYTHON) -m venv $(VENV)
	@$(PIP) --editable '.[dev]'
	@touch $@

$(INSTALLED_RIVALS): $(INSTALLED)
	@echo "Installing the rivals for the benchmarks into $(VENV)."
	@$(PIP) --editable '.[benchmarks]'
	@touch $@

$(INSTALLED_DOCS): $(INSTALLED)
	@echo "Installing what makes the site into $(VENV)."
	@$(PIP) --editable '.[docs]'
	@touch $@
