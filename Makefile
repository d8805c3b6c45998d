# Everything starts here: `make` alone says what there is. All set-up is done on the way, in .venv.

PYTHON ?= $(shell for python in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$python && break; done)
WORKERS ?= 2
TESTS ?= tests
BIN := .venv/bin
READY := .venv/ready
BENCH_READY := .venv/bench-ready
PEERS := .venv/peers
PEERS_READY := $(PEERS)/ready
DOCS_READY := .venv/docs-ready
SBOM := .venv/sbom
SBOM_READY := $(SBOM)/ready

.DEFAULT_GOAL := help
.PHONY: help setup demo run picture screenshots test test-page test-hardware bench bench-more bench-short chaos chaos-ha up down \
	flood fuzz sbom lint types docs man format lock servers clean

help:
	@echo 'Portclaim hands out SR-IOV ports, whole (PF) or in slices (VF), and never twice.'
	@echo
	@echo '  make demo     see it work: this machine and simulated hosts, in one process, in under a minute'
	@echo '  make run      keep it: the database, all services, the HTTP API, the page and three simulated hosts, until Ctrl-C'
	@echo '                  LOAD=--load       with clients that claim and release     DATA=DIR   its data there'
	@echo '  make test     run all tests, on a real PostgreSQL and a real RabbitMQ that the run starts itself'
	@echo '                  TESTS=tests/unit       only these         WORKERS=4   in four processes'
	@echo '                  The tests of the containers run where a Docker engine answers.'
	@echo '  make test-page        the page in a real browser, and its measurement on a fleet of 256,000 VFs'
	@echo '  make test-hardware    the agent on real SR-IOV devices, in the virtual machine that LAB names'
	@echo '  make bench    claims beside OpenStack Placement, Nova, PostgreSQL and the bus alone: under 40 minutes'
	@echo '  make bench-short      the same in under 6 minutes, with smaller fleets and one round'
	@echo '  make bench-more       what metrics, traces and signatures cost a claim, and what a refused message costs'
	@echo '  make chaos    break all that can break, a thousand times under load, and count what went wrong: an hour'
	@echo '                  FAULTS=100 SEED=7 MINUTES=10   fewer, others, no longer than this'
	@echo '  make chaos-ha         lose servers of PostgreSQL and RabbitMQ and the network between them: a quarter of an hour'
	@echo '  make fuzz     100,000 messages and 10,000 requests made at random: nothing ends, nothing changes'
	@echo '                  COUNT=5000 SEED=7   fewer, others'
	@echo '  make flood    what a host that sends all it can costs the claims on another host: two minutes'
	@echo '  make sbom     what the services are made of, and under which licences: build/sbom.json, build/licences.txt'
	@echo '  make up       the real thing in containers: PostgreSQL, RabbitMQ, all services, three simulated hosts'
	@echo '                  then: docker compose run --rm portclaim tree         make down   stop and forget it'
	@echo '  make lint     ruff: mistakes and layout        make format   let ruff mend what it can'
	@echo '  make types    mypy: types, strict in common/'
	@echo '  make docs     build the site of documentation into build/site, and check its links'
	@echo '  make man      manual pages of the command line into build/man; MAN=DIR for another directory'
	@echo '  make setup    only the set-up that all of the above begin with: .venv, from requirements-dev.txt'
	@echo '  make lock     after a change of requirements*.in: choose versions anew, write them with their hashes'
	@echo '  make picture  run the demo and draw docs/images/demo.svg'
	@echo '  make screenshots      make the pictures of the page in docs/images'
	@echo '  make clean    remove .venv and all that tools have left'
	@echo
	@echo 'Then: .venv/bin/portclaim --help, README.md, make docs.'

demo: $(READY)
	@$(BIN)/portclaim demo

# The data stay where they are: the next `make run` goes on with them.
LOAD ?=
run: $(READY)
	@exec $(BIN)/portclaim serve --simulate 3 $(LOAD) $(if $(DATA),--data $(DATA))

# After a change of what the demo prints. A test compares the picture's text with the demo's.
picture: $(READY)
	@$(BIN)/python deploy/make_picture.py docs/images/demo.svg

test: $(READY) servers
	@$(BIN)/python -m pytest --numprocesses $(WORKERS) --dist loadfile --timeout 300 $(TESTS)

# The tests of the page are in `make test` too. The measurement takes a minute and a quiet machine.
test-page: $(READY) servers
	@$(BIN)/python -m pytest --timeout 300 tests/browser
	@$(BIN)/python -m tests.browser.measure

# After a change of how the page looks.
screenshots: $(READY) servers
	@$(BIN)/python -m tests.browser.pictures docs/images

# Exits with 77 where there is no lab. One of them at a time: it takes a core and some minutes.
test-hardware: $(READY)
	@tests/hardware/run

# On a quiet machine. Results and pictures are in bench/results/, docs/performance.md and docs/scaling.md are made from them.
bench: $(BENCH_READY) $(PEERS_READY) servers
	$(BIN)/python -m bench.run
	$(BIN)/python -m bench.report --pictures

# The parts that are not in it: metrics and traces, signatures, refused messages, other releases of PostgreSQL.
bench-more: $(BENCH_READY) servers
	$(BIN)/python -m bench.run --parts observability,signing,refused_messages,postgresql
	$(BIN)/python -m bench.report --pictures

bench-short: $(BENCH_READY) $(PEERS_READY) servers
	$(BIN)/python -m bench.run --short
	$(BIN)/python -m bench.report --pictures

# The long form of what the tests do in short. Cutting networks and filling disks takes root.
FAULTS ?= 1000
SEED ?= 1
MINUTES ?= 60
chaos: $(READY) servers
	@$(BIN)/python -m tests.chaos --faults $(FAULTS) --seed $(SEED) --minutes $(MINUTES) \
		--results bench/results/chaos.json
	@PORTCLAIM_CHAOS=long $(BIN)/python -m pytest --timeout 3600 -rA tests/chaos/test_scheduler_kills.py

# Servers and networks that are lost while claims are made: PostgreSQL with a standby, a restore, a cluster of RabbitMQ.
# Splitting the cluster takes root.
chaos-ha: $(READY) servers
	@$(BIN)/python -m tests.chaos.high_availability --results bench/results/chaos_ha.json

# Long forms of two tests about trust. They print their figures.
COUNT ?= 100000
fuzz: $(READY) servers
	@PORTCLAIM_FUZZ=$(COUNT) PORTCLAIM_FUZZ_SEED=$(SEED) $(BIN)/python -m pytest --timeout 3600 -rP \
		tests/integration/test_fuzz.py

flood: $(READY) servers
	@PORTCLAIM_FLOOD=20 $(BIN)/python -m pytest --timeout 600 -rP tests/integration/test_flood.py -k how_long

# Of requirements.txt only: tests and tools are not part of what runs. It needs no network after the set-up.
sbom: $(READY) $(SBOM_READY)
	@$(SBOM)/bin/python deploy/sbom.py $(BIN)/python requirements.txt build

$(SBOM_READY): requirements-sbom.txt | $(READY)
	@deploy/make-venv "$(PYTHON)" $(SBOM)
	@$(SBOM)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r $<
	@touch $@

up: .env
	docker compose up --build --detach

down: .env
	docker compose down --volumes

.env:
	deploy/make-env $@

lint: $(READY)
	$(BIN)/ruff check
	$(BIN)/ruff format --check

format: $(READY)
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

types: $(READY)
	$(BIN)/mypy

docs: $(DOCS_READY)
	@$(BIN)/python -W ignore -m docs._generate

MAN ?= build/man/man1
man: $(READY)
	@$(BIN)/python -W ignore -m docs._generate.manual $(MAN)

setup: $(READY)
	@echo 'Set up. Next: make demo, make test, or $(BIN)/portclaim --help'

# Done again only when what is to be installed has changed.
$(READY): requirements-dev.txt requirements.in pyproject.toml
	@if [ -z "$(PYTHON)" ]; then \
		echo "Portclaim needs Python 3.11 or newer; here is $$(python3 --version 2>&1)." >&2; \
		echo 'Install one and name it, e.g.: make PYTHON=/usr/local/bin/python3.12 setup' >&2; exit 1; fi
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || deploy/make-venv "$(PYTHON)" .venv
	@echo 'Installing what requirements-dev.txt names into .venv (a minute, once) ...'
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.txt
	@PYTHONWARNINGS=ignore \
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

$(BENCH_READY): requirements-bench.txt $(READY)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r $<
	@touch $@

# OpenStack Placement and Nova need other versions of some packages: they have an environment of their own.
$(PEERS_READY): requirements-peers.txt | $(READY)
	@deploy/make-venv "$(PYTHON)" $(PEERS)
	@echo 'Installing what requirements-peers.txt names into $(PEERS) (some minutes, once) ...'
	@$(PEERS)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r $<
	@touch $@

$(DOCS_READY): requirements-docs.txt $(READY)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r $<
	@touch $@

# The tests start servers of their own from the installed programs. Without these they say what they left out.
servers:
	@tests/support/install-servers

COMPILE = $(BIN)/pip-compile --quiet --upgrade --generate-hashes --allow-unsafe --strip-extras --no-header \
	--no-emit-options --no-emit-index-url --no-emit-find-links --no-emit-trusted-host
lock: $(READY)
	$(COMPILE) --output-file requirements.txt requirements.in
	$(COMPILE) --output-file requirements-dev.txt requirements-dev.in
	$(COMPILE) --output-file requirements-docs.txt requirements-docs.in
	$(COMPILE) --output-file requirements-bench.txt requirements-bench.in
	$(COMPILE) --output-file requirements-peers.txt requirements-peers.in
	$(COMPILE) --output-file requirements-sbom.txt requirements-sbom.in

clean:
	rm -rf .venv build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
