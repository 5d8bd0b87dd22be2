# `make run` and `make test` set everything up first; both do nothing twice.

PYTHON ?= python3
UV := 0.13.8
MLFLOW_PORT ?= 5000
MLFLOW_STORE ?= sqlite:///$(CURDIR)/mlflow/mlflow.db
PREFECT_PORT ?= 4200
LISTEN ?= 127.0.0.1
POOL ?= cpu
LIMIT ?= 1

export PATH := $(CURDIR)/.venv/bin:$(PATH)
export DO_NOT_TRACK := true
export MLFLOW_PORT PREFECT_PORT  # links name them
# Bytecode is worth 10 s per run here, whatever the caller's shell says.
unexport PYTHONDONTWRITEBYTECODE PYTHONPATH VIRTUAL_ENV

.PHONY: help setup data run test tests test-long lint table tune bench mlflow prefect deploy worker clean

help:
	@sed -n 's/^## //p' Makefile

## make run       set up, then run the pipeline on the handwritten digits; WITH=FILE: other settings
run: setup
	@python -m flows.pipeline $(if $(WITH),--with "$(WITH)")

## make test      set up, then run linters, type checks, the import law and all tests
test: setup
	@$(MAKE) --no-print-directory -j 2 lint tests

tests: setup
	@pytest -n 2 --dist loadfile --no-loadscope-reorder -m "not long"

## make test-long the tests that wait for minutes: workers that are killed, a server that is restarted
test-long: setup
	@pytest -m long

lint: setup
	@ruff check .
	@ruff format --check .
	@mypy
	@lint-imports --no-logo

## make table     repeat the pipeline over training seeds; writes docs/results-digits.md
table: setup
	@python -m flows.documents table --tuned docs/tuning-digits.csv

## make tune      search the parameters of every method; writes docs/tuning-digits.md
tune: setup
	@python -m flows.documents tune

## make bench     speed; and errors of verdicts; writes docs/startup.md and others
bench: setup
	@python -m benchmarks.startup
	@python -m benchmarks.influence
	@python -m benchmarks.ensemble
	@python -m benchmarks.training
	@python -m benchmarks.orchestration
	@python -m benchmarks.workers
	@python -m benchmarks.verdict

## make mlflow    MLflow's page on 127.0.0.1:5000; where MLFLOW_TRACKING_PASSWORD is set,
##                it asks for that and MLFLOW_TRACKING_USERNAME (admin)
mlflow: setup
	@echo "http://$(LISTEN):$(MLFLOW_PORT)/#/experiments/1/runs?workflowType=machine_learning"
	@if [ -n "$$MLFLOW_TRACKING_PASSWORD" ]; then set -- --app-name basic-auth; \
	  export MLFLOW_AUTH_CONFIG_PATH="$(CURDIR)/mlflow/basic_auth.ini" \
	    MLFLOW_AUTH_ADMIN_USERNAME="$${MLFLOW_TRACKING_USERNAME:-admin}" \
	    MLFLOW_AUTH_ADMIN_PASSWORD="$$MLFLOW_TRACKING_PASSWORD" \
	    MLFLOW_FLASK_SERVER_SECRET_KEY="$$(python -c 'import secrets; print(secrets.token_hex())')"; fi; \
	MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false exec mlflow server --host $(LISTEN) --port $(MLFLOW_PORT) \
	  --workers 1 --backend-store-uri "$(MLFLOW_STORE)" \
	  --artifacts-destination "$(CURDIR)/mlflow/artifacts" "$$@"

## make prefect   Prefect's server and page on 127.0.0.1:4200; where PREFECT_API_AUTH_STRING
##                is set, USER:PASSWORD, it asks for that
prefect: setup
	@if [ -n "$$PREFECT_API_AUTH_STRING" ]; then \
	  export PREFECT_SERVER_API_AUTH_STRING="$$PREFECT_API_AUTH_STRING"; fi; \
	PREFECT_SERVER_API_PORT=$(PREFECT_PORT) exec python -m flows.running.sqlite server start \
	  --host $(LISTEN) --port $(PREFECT_PORT)

## make deploy    deployments, work pools and automations, at the server PREFECT_API_URL
deploy: setup
	@python -m flows.deploy
	@prefect --no-prompt deploy --all > .prefect/deploy.log 2>&1 || { cat .prefect/deploy.log; exit 1; }
	@echo "deployed; now, in a clone on each host: make worker, or make worker POOL=gpu"

## make worker    takes work of POOL (cpu or gpu) from the server PREFECT_API_URL, LIMIT jobs at a time
worker: setup
	@IMU_CLONE="$(CURDIR)" prefect worker start --pool $(POOL) --type process --limit $(LIMIT) \
	  --name "$$(hostname)-$(POOL)-$$$$"

## make data      write data/ where it is missing, and check it against data.dvc
data: .venv/installed
	@python -m tasks data

## make setup     .venv, both databases and data/, nothing else
setup: .venv/installed .prefect/ready mlflow/mlflow.db .prefect/data

.venv/installed: requirements.lock pyproject.toml Makefile
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "imu needs Python 3.11 or newer: make PYTHON=python3.12 ...")'
	@echo "setting up .venv (about 6 GB, a minute or two)"
	@$(PYTHON) -m venv .venv
	@python -m pip install -q --disable-pip-version-check uv==$(UV)
	@uv pip sync -q --compile-bytecode requirements.lock
	@uv pip install -q --no-deps --no-build-isolation -e .
	@touch $@

.prefect/ready: .venv/installed
	@prefect server database upgrade -y > /dev/null
	@touch $@

mlflow/mlflow.db: | .venv/installed
	@python -m tasks store

.prefect/data: | .venv/installed
	@python -m tasks data
	@mkdir -p .prefect
	@touch $@

## make clean     remove results and databases; data/, DVC's cache and .venv stay
clean:
	rm -rf runs .prefect mlflow/*.db mlflow/artifacts .pytest_cache .mypy_cache .ruff_cache
