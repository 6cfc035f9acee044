# Two commands do all there is to do on a machine with Python 3.11, git and make:
#   make run     the experiment in config.yaml, from data to report
#   make test    the tests, but for those marked long (make test-all)
# Both make .venv with the locked requirements if need be.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
CONFIG ?= config.yaml
CORES ?= all
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# The library first, then what the user's PYTHONPATH has: their factories may be there.
LIBRARY := PYTHONPATH="workflow/scripts$${PYTHONPATH:+:$$PYTHONPATH}"
PIP := $(BIN)/python -m pip --disable-pip-version-check

.PHONY: run test test-long test-all lint format lock data plan compare replicate docs site stamp sizes bench faults

run: $(STAMP)
	VALLEYS_VERDICTS=later $(BIN)/snakemake --cores $(CORES) --configfile $(CONFIG)
	@$(LIBRARY) $(BIN)/python -m valleys claims $(CONFIG)

# A worker takes whole files, in the order of tests/conftest.py: those that take longest first.
WORKERS ?= 2
PYTEST := $(BIN)/pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder

test: $(STAMP)
	$(PYTEST) -m "not long"

# .ci/run has these after the others.
test-long: $(STAMP)
	$(PYTEST) -m long -o cache_dir=.pytest_cache/long

test-all: $(STAMP)
	$(PYTEST)

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/snakefmt --check Snakefile workflow/rules
	$(BIN)/snakemake --lint

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/snakefmt Snakefile workflow/rules

# Fetches, prepares and checks the data sets of a config: on a cluster, on a node with a network.
data: $(STAMP)
	@$(LIBRARY) $(BIN)/python -m valleys data $(CONFIG) --cores $(CORES)

# Of a run on this machine, or by what a cluster's nodes have: make plan [PROFILE=profiles/slurm]
plan: $(STAMP)
	@$(LIBRARY) $(BIN)/python -m valleys plan $(CONFIG) $(if $(PROFILE),--profile $(PROFILE),--cores $(CORES))

# Two finished experiments: make compare A=results/x B=results/y [OUTPUT=comparison.html]
compare: $(STAMP)
	@$(if $(and $(A),$(B)),,$(error give the folders of two finished runs: make compare A=results/x B=results/y))
	@$(LIBRARY) $(BIN)/python -m valleys compare $(A) $(B) $(if $(OUTPUT),--output $(OUTPUT))

# The same experiment on fresh seeds, and whether its verdicts hold: make replicate [SEEDS=100-111]
replicate: $(STAMP)
	@$(LIBRARY) $(BIN)/python -m valleys replicate $(CONFIG) --cores $(CORES) $(if $(SEEDS),--seeds $(SEEDS))

# Writes the results in README and docs: of finished runs into docs/results, from there into the pages.
# make docs [RUNS="results/default results/default-replicate"]
docs: $(STAMP)
	$(BIN)/python docs/results/write.py $(RUNS)

# The pages as a site, in site/: any page that links to nothing fails it.
site: .venv-docs/.installed
	NO_MKDOCS_2_WARNING=1 .venv-docs/bin/mkdocs build --strict --quiet

.venv-docs/.installed: docs/requirements.txt
	rm -rf .venv-docs
	$(PYTHON) -m venv .venv-docs
	.venv-docs/bin/python -m pip --disable-pip-version-check install --quiet --no-deps -r docs/requirements.txt
	touch $@

# An hour on 2 cores, which should have nothing else to do; tables go to docs/performance.md and benchmarks/README.md. The last two need a run.
bench: $(STAMP)
	for name in plan_scale startup compute verdicts stacked size on_disk; do $(BIN)/python benchmarks/$$name.py || exit; done
	for name in precision decision; do $(BIN)/python benchmarks/$$name.py $(CONFIG) || exit; done

# Breaks runs on purpose, for half an hour; writes the table of docs/reliability.md.
faults: $(STAMP)
	$(BIN)/python tests/faults.py

# After a change of code that leaves results as they are (see tests/config/test_versions.py).
stamp: $(STAMP)
	$(LIBRARY) $(BIN)/python tests/config/test_versions.py --write
	$(LIBRARY) $(BIN)/python tests/config/test_params.py --write

# After a change of the shipped configs' models, or of an architecture's layers (see tests/costs/test_sizes.py).
sizes: $(STAMP)
	$(LIBRARY) $(BIN)/python -m valleys.costs.shipped $(sort $(wildcard config/*.yaml))

# The stamp is made last. Without it a first installation was interrupted, and the next one starts over; so it does where
# Python is another or cannot run pip. Else the environment may hold packages of the user's, which stay. When a later
# installation was interrupted, files may be missing of packages that pip takes for installed: all are written again.
WHICH := import sys; print(sys.implementation.name, *sys.version_info[:2])
UNFINISHED := $(VENV)/.unfinished
$(STAMP): requirements.txt requirements-torch.txt
	@[ -e $@ ] && [ "$$($(BIN)/python -c '$(WHICH)')" = "$$($(PYTHON) -c '$(WHICH)')" ] && $(PIP) --version > /dev/null \
	  || { rm -rf $(VENV) && $(PYTHON) -m venv $(VENV); }
	@[ ! -e $(UNFINISHED) ] || { $(INSTALL) && $(AGAIN); }
	@touch $(UNFINISHED)
	$(INSTALL)
	@$(PIP) check || { [ -e $@ ] && echo "warning: packages in $(VENV) that are not of the requirements do not fit them (see" \
	  "above): upgrade or uninstall them, or remove $(VENV) to start over"; }
	@rm -f $(UNFINISHED)
	touch $@

INSTALL = $(PIP) install --quiet --no-deps --require-hashes -r requirements.txt \
	  && $(PIP) install --quiet -r requirements-torch.txt
AGAIN = $(PIP) install --quiet --no-deps --ignore-installed --require-hashes -r requirements.txt \
	  && $(PIP) install --quiet --no-deps --ignore-installed -r requirements-torch.txt

# Resolves requirements.in anew. What belongs to one build of torch is left to that build (see requirements-torch.txt).
lock:
	rm -rf .lock-venv
	$(PYTHON) -m venv .lock-venv
	.lock-venv/bin/python -m pip install --quiet -r requirements.in
	.lock-venv/bin/python -m pip freeze --local | sed 's/+cpu$$//' > .lock-venv/pins
	.lock-venv/bin/python -m pip install --quiet uv
	grep -v -E '^(torch==|triton|nvidia-|cuda-)' .lock-venv/pins > .lock-venv/hashed.in
	.lock-venv/bin/uv pip compile --quiet --no-deps --generate-hashes --no-annotate --no-header \
	  --python-version 3.11 .lock-venv/hashed.in -o .lock-venv/hashed.txt
	( sed -n '/^#/p' requirements.txt ; cat .lock-venv/hashed.txt ) > .lock-venv/requirements.txt
	( sed -n '/^#/p' requirements-torch.txt ; grep '^torch==' .lock-venv/pins ) > .lock-venv/requirements-torch.txt
	mv .lock-venv/requirements.txt .lock-venv/requirements-torch.txt .
	rm -rf .lock-venv
