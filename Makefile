# `make help` lists what there is. Every target makes the environment that it needs (.venv) by itself.
PYTHON_BIN := .venv/bin/python
PYTEST := $(PYTHON_BIN) -m pytest
WORKERS ?= 2
N ?= 50
ARGS ?=
SEEDS ?= 200
ROUTED ?= 60
SETTLED ?= 60
FIRST ?= 1
SECONDS ?= 20
INPUTS ?= 10000000
# How `make test` and CI choose: what needs other programs or much time has targets of its own.
QUICK := -m "not interop and not ledger and not slow" --ignore=tests/interop
# The fuzzer has wheels for few systems, so it isn't among the developers' packages.
FUZZER := $(PYTHON_BIN) -m pip --disable-pip-version-check --no-input install --quiet --no-deps --require-hashes \
  --only-binary :all: --requirement requirements/fuzz.lock
PURE_TESTS := $(wildcard tests/test_oer.py tests/ilp tests/connector tests/stream tests/links/btp/test_codec.py \
  tests/links/btp/test_session.py tests/links/http/test_session.py tests/journal/test_record.py tests/vectors)

.DEFAULT_GOAL := help
.PHONY: help topology setup setup-run demo demo-l2 settle-crash test coverage test-slow sim fuzz fuzz-campaign test-native faults audit lint format types layers crash mutants mutants-search trace rows docs \
  interop ledgers contract npm bench bench-smoke native wheel lock clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## the environment for developers, in .venv
	@tools/setup dev

setup-run:
	@tools/setup run

demo: setup-run ## a payment from BTC to ETH over three connectors (ARGS="--keep" leaves them up)
	@$(PYTHON_BIN) -m isthmus demo $(ARGS)

demo-l2: setup ## the same settled by ledgers: Lightning to Ethereum (needs Go and Node), XRP to a bank (ARGS="--only xrp")
	@case "$(ARGS)" in *"only xrp"*) ;; *) tools/npm-packages tests/ledgers/evm && tools/lnd >/dev/null ;; esac
	@$(PYTHON_BIN) -m tools.demo_l2 $(ARGS)

test: setup ## the tests (ARGS="-k name" for some of them)
	@$(PYTEST) $(QUICK) -n $(WORKERS) --dist worksteal $(ARGS)

# Apart from `make test`, since tracing every line costs half as much time again.
coverage: setup ## the same tests, and the lines and branches that they don't reach
	@$(PYTEST) $(QUICK) -n $(WORKERS) --dist worksteal --cov --cov-report=term:skip-covered $(ARGS)

test-slow: setup ## the tests that take long
	@$(PYTEST) -m slow --ignore=tests/interop -n $(WORKERS) $(ARGS); status=$$?; [ $$status -eq 5 ] || exit $$status

sim: setup ## 200 simulated networks with faults and adversaries, audited, 60 that find their routes, 60 that settle (SEEDS=n ROUTED=n SETTLED=n FIRST=n)
	@$(PYTHON_BIN) -m isthmus sim sweep --seeds $(SEEDS) --first $(FIRST) --jobs $(WORKERS) $(ARGS)
	@$(PYTHON_BIN) -m isthmus sim sweep --routes --seeds $(ROUTED) --first $(FIRST) --jobs $(WORKERS) $(ARGS)
	@$(PYTHON_BIN) -m isthmus sim sweep --settle --seeds $(SETTLED) --first $(FIRST) --jobs $(WORKERS) $(ARGS)

topology: setup ## large networks run from cold, lose a link and a node, get them back (a quarter of an hour, 3 GB)
	@set -e; for graph in "chain --nodes 25" "ring --nodes 25" "mesh --nodes 1024 --seed 4 --pairs 200 --sources 2" "scale-free --nodes 1000"; do \
	  $(PYTHON_BIN) -m isthmus sim topology --graph $$graph $(ARGS); done
	@$(PYTHON_BIN) -m isthmus sim topology --graph scale-free --nodes 60 --seed 4 --pairs 300 --convergence docs/convergence.svg \
	  --svg docs/routes.svg --to n41

fuzz: setup ## every decoder under a coverage-guided fuzzer (SECONDS=n for each, TARGET=name for one)
	@$(FUZZER) && $(PYTHON_BIN) -m tests.fuzz run --seconds $(SECONDS) --jobs $(WORKERS) $(if $(TARGET),--target $(TARGET)) $(ARGS)

fuzz-campaign: setup ## the same up to a number of inputs each; goes on where it was stopped (INPUTS=n, TARGET=name)
	@$(FUZZER) && $(PYTHON_BIN) -m tests.fuzz campaign --inputs $(INPUTS) --jobs $(WORKERS) $(if $(TARGET),--target $(TARGET)) $(ARGS)

settle-crash: setup ## settlements on real ledgers while nodes are killed (N=1000 of each kind, SEED=…, RESUME=…; needs Go and Node for some)
	@$(PYTHON_BIN) -m tests.settlement.campaign $(N) $(if $(SEED),--seed $(SEED)) $(if $(RESUME),--resume $(RESUME)) $(ARGS)

mutants: setup ## breaks of the code on purpose: each must be caught on its recorded seed (ARGS=name for one)
	@$(PYTHON_BIN) -m tests.mutants --jobs $(WORKERS) $(ARGS)

mutants-search: setup ## find the seeds that catch them anew (ARGS="--seeds 1000 name")
	@$(PYTHON_BIN) -m tests.mutants --search --jobs $(WORKERS) $(ARGS)

test-native: native ## the tests of the pure core on the compiled build
	@PYTHONPATH=build/native $(PYTHON_BIN) -m isthmus --version
	@PYTHONPATH=build/native ISTHMUS_EXPECT_BUILD=compiled $(PYTEST) -p no:cacheprovider -n $(WORKERS) $(PURE_TESTS) tests/test_house_build.py $(ARGS)

faults: setup ## all tests of real faults: disk, time, network, secrets (some need a C compiler, some root)
	@$(PYTEST) tests/faults -n $(WORKERS) $(ARGS)

audit: setup ## known vulnerabilities in what the lock files name, as far as the registries here answer
	@$(PYTHON_BIN) tools/audit.py

lint: setup ## style (ruff)
	@$(PYTHON_BIN) -m ruff check .
	@$(PYTHON_BIN) -m ruff format --check .

format: setup ## put the code into its form (ruff)
	@$(PYTHON_BIN) -m ruff check --fix-only .
	@$(PYTHON_BIN) -m ruff format .

types: setup ## types (mypy --strict)
	@$(PYTHON_BIN) -m mypy

layers: setup ## which folder may import which (import-linter)
	@.venv/bin/lint-imports

crash: setup ## kill -9 a network's processes under load, audit all books (N=1000 kills, SEED=…, RESUME=…)
	@$(PYTHON_BIN) -m tests.crash $(N) $(if $(SEED),--seed $(SEED)) $(if $(RESUME),--resume $(RESUME)) $(ARGS)

trace: setup ## a node's system calls: every frame follows the fdatasync that covers it (needs strace)
	@$(PYTEST) tests/node/test_durability.py $(ARGS)

rows: setup ## rows of the conformance list that no test names
	@$(PYTHON_BIN) tools/conformance_rows.py

docs: setup ## the site, into docs/_build/html
	@$(PYTHON_BIN) tools/configuration_page.py --check
	@$(PYTHON_BIN) tools/openapi_document.py --check
	@$(PYTHON_BIN) -m sphinx --quiet --fail-on-warning --keep-going --jobs 2 -b html docs docs/_build/html
	@echo "docs/_build/html/index.html"

npm:
	@tools/npm-packages tests/interop

interop: setup npm ## the tests against Interledger implementations by others (needs Node 20)
	@$(PYTEST) tests/interop $(ARGS)

ledgers: setup ## the tests against real ledgers' nodes (needs Node 20, Go 1.25.10 and PostgreSQL: an Ethereum chain, lnd, the bank)
	@tools/npm-packages tests/ledgers/evm
	@tools/web3 >/dev/null || true
	@$(PYTEST) -m ledger tests/ledgers tests/settlement -n $(WORKERS) $(ARGS)

contract: ## the payment channels' contract for EVM chains: what is committed is what its source compiles to (needs Node 20)
	@tools/npm-packages tests/ledgers/evm
	@node tools/contract.mjs

bench: setup npm ## all measurements, written to bench/RESULTS.md
	@$(PYTHON_BIN) -m bench $(ARGS)

bench-smoke: setup npm ## each measurement once and short: it runs, nothing is judged
	@$(PYTHON_BIN) -m bench --smoke $(ARGS)

native: setup ## the pure core compiled by mypyc, in build/native (needs a C compiler)
	@$(PYTHON_BIN) tools/native.py

wheel: setup ## the package, into dist/
	@rm -rf build/lib build/bdist.* dist/*.whl
	@$(PYTHON_BIN) -m pip wheel --quiet --no-deps --no-build-isolation --wheel-dir dist .
	@ls dist/*.whl

lock: setup ## newer versions of all dependencies into requirements/*.lock (needs uv)
	@tools/lock --upgrade

clean: ## removes what was made, .venv too
	@rm -rf .venv build dist docs/_build src/*.egg-info .coverage .coverage.* .pytest_cache .mypy_cache .ruff_cache
