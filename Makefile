# The one way in: every target makes what it needs, from a fresh clone on.
.PHONY: venv uv test-local test-kubernetes test-training test-matrix lock image-requirements airflow-sets check test \
	cluster-up cluster-down demo docs clean
.DEFAULT_GOAL := check
MAKEFLAGS += --no-print-directory

PYTHON ?= python3
UV_VERSION := 0.13.9
UV_HOME := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/practicus/uv-$(UV_VERSION)
UV_CACHED := $(UV_HOME)/bin/uv
# The one on PATH if it is the very version, so that the same lock gives the same environment everywhere.
UV := $(if $(filter $(UV_VERSION),$(shell uv --version 2>/dev/null)),uv,$(UV_CACHED))
# All but those of trainings, which take gigabytes.
EXTRAS := --extra dask --extra spark
BIN := .venv/bin
# In the order given, from both ends: see tests/conftest.py.
PYTEST := $(BIN)/pytest -q --no-loadscope-reorder
SLOW_TESTS := tests/e2e tests/attacks tests/integration tests/contract tests/cluster tests/matrix

# Imports take twice as long where no bytecode may be written later; so it is compiled at once.
export UV_COMPILE_BYTECODE := 1
export UV_PROJECT_ENVIRONMENT := .venv
export UV_PYTHON_DOWNLOADS := never

# The package of this tree too, which takes each process of Airflow that imports it a quarter of a second to compile.
venv: .venv/.synced
	@$(BIN)/python -m compileall -q practicus_provider

.venv/.synced: pyproject.toml uv.lock | $(filter-out uv,$(UV))
	$(UV) sync --quiet --python $(PYTHON) --locked $(EXTRAS) --all-groups
	@touch $@

# Says where it is, to what builds an environment of its own.
uv: | $(filter-out uv,$(UV))
	@echo $(UV)

lock: | $(filter-out uv,$(UV))
	$(UV) lock --python $(PYTHON)

# What the images install: the lock file's versions, with all they need, for the Python of the images' Debian. What is
# not in the lock file, because only jobs of these frameworks need it, has one version in the image and in the tests.
COMPILE = $(UV) pip compile --quiet --upgrade --no-header --no-annotate --generate-hashes
FOR_IMAGES = --python-version 3.13 --python-platform linux --constraint build/constraints.txt
SOURCES = $(addprefix --no-emit-package ,deepspeed fairscale horovod)

image-requirements: | $(filter-out uv,$(UV))
	@mkdir -p build
	$(UV) export --quiet --locked $(EXTRAS) --all-groups --no-emit-project --no-hashes --no-annotate --no-header \
		--output-file build/constraints.txt
	for image in spark dask; do \
		$(COMPILE) $(FOR_IMAGES) --output-file images/$$image/requirements.txt images/$$image/requirements.in || exit 1; \
	done
	$(COMPILE) --no-deps --output-file images/training/sources.txt images/training/sources.in
	$(COMPILE) --universal --python-version 3.11 --constraint build/constraints.txt --override tests/training/overrides.txt \
		$(SOURCES) --output-file tests/training/requirements.txt tests/training/requirements.in
	$(COMPILE) $(FOR_IMAGES) --constraint tests/training/requirements.txt --override images/training/debian.txt \
		$(SOURCES) --output-file images/training/requirements.txt images/training/requirements.in

# What Airflow's constraint files hold, which are not on the package index: see tests/matrix/environments.py. A version
# of Airflow, and an hour soon after its release; those of 3.3 name a provider that was released later.
AIRFLOW_SETS := 3.1.8@2026-03-11T22 3.2.2@2026-05-29T08 3.3.0@2026-07-06T18 3.3.1@2026-08-12T12 3.3.2@2026-09-17T12
LATE := --exclude-newer-package apache-airflow-providers-ibm-mq=2026-10-14

airflow-sets: $(foreach set,$(AIRFLOW_SETS),tests/matrix/airflow-$(firstword $(subst @, ,$(set))).txt)

tests/matrix/airflow-%.txt: | $(filter-out uv,$(UV))
	echo 'apache-airflow[all]==$*' | $(UV) pip compile --quiet --no-annotate --custom-compile-command 'make airflow-sets' \
		--python-version 3.11 --python-platform linux $(LATE) --output-file $@ - \
		--exclude-newer $(patsubst $*@%,%:00:00Z,$(filter $*@%,$(AIRFLOW_SETS)))

$(UV_CACHED):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed, $(PYTHON) is not: name one, e.g. make PYTHON=python3.12 venv" >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || \
		{ [ "$$(id -u)" = 0 ] && apt-get update -qq && apt-get install -qq -y --no-install-recommends python3-venv; } || \
		{ echo "Python's venv module is needed: sudo apt-get install python3-venv" >&2; exit 1; }
	$(PYTHON) -m venv --clear $(UV_HOME)
	$(UV_HOME)/bin/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)

check: venv
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/lint-imports
	$(BIN)/mypy
	$(PYTEST) -n 2 tests/unit

# Everything. What needs a Kubernetes builds and boots one, as root, unless PRACTICUS_TEST_KUBECONFIG names it.
test: check
	$(PYTEST) -n 2 $(SLOW_TESTS)

test-local: venv
	$(PYTEST) -n 2 -m "not cluster and not training" $(SLOW_TESTS)

test-kubernetes: venv
	$(PYTEST) -n 2 -m cluster $(SLOW_TESTS)

# On every older Airflow that is supported, each in an environment of its own, which is built once: all that meets it,
# and a bare machine's first jobs. make test takes the newest, and another one of these each day.
test-matrix: venv
	PRACTICUS_TEST_ALL_AIRFLOWS=1 $(PYTEST) -n 0 tests/matrix

# Trainings by the real frameworks, in an environment of their own, which is built once.
test-training: venv
	$(PYTEST) -n 2 -m "training and not cluster" tests/e2e/training

# Plain Python is enough: the cluster needs no virtual environment.
cluster-up cluster-down:
	$(PYTHON) -m tests.cluster $(@:cluster-%=%)

# The tests build it too, and fail as this does at a warning.
docs: venv
	$(BIN)/sphinx-build --quiet --fail-on-warning --keep-going --fresh-env --conf-dir docs . build/docs
	@echo "$(CURDIR)/build/docs/index.html"
	@[ -z "$$DISPLAY$$WAYLAND_DISPLAY" ] && [ "$$(uname)" != Darwin ] || \
		$(BIN)/python -m webbrowser "file://$(CURDIR)/build/docs/index.html"

demo: venv
	$(BIN)/python -m example_dags.demo

clean:
	rm -rf .venv build dist .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
