# The two commands of the README are `make run` and `make test`; each sets everything up first.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.set-up

.PHONY: run test check setup lint types contracts unit lock bench bench-tls bench-certmgr bench-policy bench-limits bench-injector measure-init survive system-packages clean images test-cluster e2e \
        evidence vectors interop fuzz coverage mutants manifests

run: setup system-packages
	@$(BIN)/qbitel demo $(ARGS)

test: check unit

setup: $(STAMP)

# The lock pins every version and hash; the project itself is installed editable on top of it.
$(STAMP): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "qbitel-mesh needs Python 3.11 or newer; this is $$($(PYTHON) --version). Try: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 2; }
	@$(PYTHON) -m venv $(VENV) || { echo "could not make a virtual environment: on Debian and Ubuntu, apt-get install python3-venv"; exit 2; }
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

# iptables is no Python package. As root on Debian or Ubuntu it is installed here when it is missing;
# elsewhere the demo and the tests say what they go without.
system-packages:
	@sh tools/system-packages

check: setup lint types contracts

lint: setup
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

types: setup
	@$(BIN)/mypy

contracts: setup
	@$(BIN)/lint-imports --no-cache

unit: setup system-packages
	@$(BIN)/python -m pytest -n 2 $(TESTS)

# What only a real API server can judge. It makes namespaces `qbitel-test-…` in the cluster that KUBECONFIG names and
# deletes them again; it needs an administrator's rights and a cluster that runs no mesh. With QBITEL_CLUSTER_STOP and
# QBITEL_CLUSTER_START, commands that stop and start the API server, it is also stopped for two minutes
# (docs/operations.md has examples). About five minutes without that.
test-cluster: setup
	@test -n "$$KUBECONFIG" || { echo "KUBECONFIG names no cluster"; exit 2; }
	@$(BIN)/python -m pytest tests/kube tests/certmgr/kubernetes tests/cli/ca/test_in_cluster.py tests/control/discovery \
	  tests/injector/test_in_cluster.py tests/deploy/test_in_cluster.py $(TESTS)

# The whole mesh on the cluster that KUBECONFIG names, with real pods of unmodified programs; it prints what it saw. It
# installs deploy/ into `qbitel-system`, makes namespaces `qbitel-e2e-…`, and deletes them all again; about half an hour.
# The nodes must have, or be able to pull, QBITEL_E2E_SIDECAR_IMAGE and QBITEL_E2E_CONTROL_IMAGE (make images) and
# QBITEL_E2E_TOOLS_IMAGE (tests/cluster/build). QBITEL_E2E_INSTALLED=1 takes the mesh that is there, QBITEL_E2E_KEEP=1
# leaves what was installed.
e2e: setup
	@test -n "$$KUBECONFIG" || { echo "KUBECONFIG names no cluster"; exit 2; }
	@QBITEL_E2E=1 $(BIN)/python -m pytest -q -s $(or $(TESTS),tests/cluster)

# How the sidecar survives what a cluster does to it: half an hour on two cores, as root on Linux. It prints what it saw.
# make survive SCALE=0.05 TESTS=tests/survival/test_death.py
survive: SCALE ?= 1
survive: setup system-packages
	@QBITEL_SURVIVE=$(SCALE) $(BIN)/python -m pytest -q -s $(or $(TESTS),tests/survival)

# The data path beside Envoy, and HAProxy and nginx where QBITEL_HAPROXY and QBITEL_NGINX name them or they are on PATH with
# OpenSSL 3.5 or newer: 20 minutes, writes docs/benchmarks/. make bench ARGS=--quick: two minutes.
bench: $(VENV)/.bench
	@$(BIN)/python -m bench mesh $(ARGS)

$(VENV)/.bench: $(STAMP) requirements-bench.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-bench.lock
	@touch $@

bench-tls: setup
	@$(BIN)/python -m bench tls

bench-certmgr: setup
	@$(BIN)/python -m bench certmgr

# Memory and CPU time of the init step in a control group of its own (docs/interception.md); as root on Linux.
measure-init: setup system-packages
	@$(BIN)/python -m tests.init.measuring

bench-policy: setup
	@$(BIN)/python -m bench policy

bench-limits: setup
	@$(BIN)/python -m bench limits

bench-injector: setup
	@$(BIN)/python -m bench injector

# The evidence behind the TLS engine. Slower than `make test`, and with packages of its own.
evidence: $(VENV)/.evidence

$(VENV)/.evidence: $(STAMP) requirements-evidence.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-evidence.lock
	@touch $@

# Known answers for every provider present; QBITEL_CORPUS names a folder with Wycheproof's and RFC 8448's files.
vectors: evidence
	@$(BIN)/python -m pytest tests/pqtls/test_known_answers.py tests/pqtls/test_key_schedule.py tests/pqtls/test_groups.py

# Real handshakes with foreign TLS stacks, each installed where that is possible and skipped with a reason elsewhere.
interop: setup system-packages
	@$(BIN)/python -m pytest tests/pqtls/interop tests/foreign

# make fuzz ARGS='--seconds 300 server client'
fuzz: evidence
	@$(BIN)/python -m fuzz $(ARGS)

coverage: evidence
	@$(BIN)/python -m coverage run --branch --source=pqtls -m pytest -q -p no:xdist tests/pqtls
	@$(BIN)/python -m coverage report --show-missing --skip-covered

# Mutants of the files that decide whether a peer is who it says it is (docs/mutants.md).
mutants: evidence
	@$(BIN)/mutmut run $(ARGS) >/dev/null
	@$(BIN)/mutmut results

# The container images, with docker, podman or buildah, whichever is there (docs/images.md).
images:
	@sh images/build

# The plain manifests of deploy/ from the chart beside them, with Helm 3 or newer: make manifests HELM=/path/to/helm.
manifests:
	@HELM="$(or $(HELM),helm)" sh deploy/render

# Maintainers: resolves the newest versions again and pins them with their hashes.
lock: setup
	@$(BIN)/python -m pip install --quiet pip-tools
	@$(BIN)/pip-compile --quiet --upgrade --generate-hashes --allow-unsafe --extra dev --strip-extras \
	  --no-emit-index-url --no-emit-find-links --no-header --output-file requirements.lock pyproject.toml tools/build-requirements.in
	@$(BIN)/pip-compile --quiet --upgrade --generate-hashes --allow-unsafe --extra evidence --strip-extras --constraint requirements.lock \
	  --no-emit-index-url --no-emit-find-links --no-header --output-file requirements-evidence.lock pyproject.toml
	@$(BIN)/pip-compile --quiet --upgrade --generate-hashes --allow-unsafe --extra bench --strip-extras --constraint requirements.lock \
	  --no-emit-index-url --no-emit-find-links --no-header --output-file requirements-bench.lock pyproject.toml

clean:
	rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
