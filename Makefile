# The front door for people and for CI. `make` lists what there is.

PYTHON ?= python3
VENV ?= .venv
# "exec", so that a signal sent to make reaches the program and no shell in between.
WITH_TOOLS = exec env "PATH=$(CURDIR)/.tools/bin:$(PATH)"

.PHONY: help demo test soak check render bench tools venv clean

help:
	@echo 'make demo     see it all work on this machine: a service, Prometheus, Alertmanager'
	@echo 'make test     run the tests                  ARGS="-k health" chooses some'
	@echo 'make soak     kill workers under load for 10 minutes   SECONDS=90 takes less'
	@echo '              and make every alert fire, plant mistakes in rules, watch a thousand pods: an hour and more'
	@echo 'make check    lint, formatting, types'
	@echo 'make render   refresh the rendered files: alert_rules, dashboards, prometheusrule.yaml'
	@echo 'make bench    measure beside the peers, 6 minutes      ARGS="--quick requests" takes half a minute'
	@echo 'make tools    bring prometheus, promtool, alertmanager, amtool, kubectl, haproxy, postgres, redis-server into .tools/bin'
	@echo 'make clean    remove everything that these made'
	@echo 'Another Python: make test PYTHON=python3.12 VENV=.venv-3.12'

demo: venv tools
	@$(WITH_TOOLS) $(VENV)/bin/scaleobs demo $(ARGS)

test: venv tools
	@$(WITH_TOOLS) $(VENV)/bin/pytest -n auto $(ARGS)

soak: venv tools
	@tools/later.sh
	@$(WITH_TOOLS) SOAK_SECONDS=$(or $(SECONDS),600) $(VENV)/bin/pytest -s tests/soak tests/rules $(ARGS)

check: venv
	$(VENV)/bin/ruff check
	$(VENV)/bin/ruff format --check
	$(VENV)/bin/mypy

render: venv
	@$(VENV)/bin/scaleobs render --out . $(ARGS)

# The peers have an environment of their own, so that the tests never see them.
bench:
	@tools/venv.sh "$(PYTHON)" .venv-bench bench
	@exec .venv-bench/bin/python -m benchmarks $(ARGS)

# These two are silent and instant when there is nothing to do.
venv:
	@tools/venv.sh "$(PYTHON)" "$(VENV)" dev

tools:
	@tools/bring.sh

clean:
	rm -rf .tools .venv .venv-* build dist .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -prune -exec rm -rf {} +
