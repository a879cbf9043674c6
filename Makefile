# Every target sets itself up: a virtual environment in .venv, and in it what the target needs, at the versions of
# constraints.txt. Another Python than the default one: make demo PYTHON=python3.12

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
UV := .venv-uv/bin/uv

# What knows nothing of the app, the notebooks and the recipe, and so depends on transformers and torch alone.
LIBRARY_TESTS := tests/attention tests/distillation tests/profiling tests/systems tests/cli tests/test_public.py
# Two processes with a thread each: tiny models gain nothing from more threads.
PYTEST = OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(PROCESSES) --dist loadfile
PROCESSES ?= 2
# The extras that these tests need.
LIBRARY_EXTRAS := train,eval,cosyvoice,cosyvoice-text,indextts,whisper-tiny,dev
# Python compiles a module when it is first imported, and here it keeps that, whatever the environment says. pip would
# compile all of the 22,000 files that it installs, of which a fifth is used: more than a minute (--no-compile, below).
export PYTHONDONTWRITEBYTECODE :=
# Packages whose upper bound in pyproject.toml is the newest release that was tested: test-newest lifts it.
LIFTED := transformers
OLDEST_TRANSFORMERS := $(shell sed -n 's/^ *"transformers>=\([0-9.]*\),.*/\1/p' pyproject.toml)

.DEFAULT_GOAL := help
.PHONY: help demo test test-slow test-upstream test-families families test-notebooks test-colab test-newest test-oldest test-oldest-transformers lint types \
	notebooks lab mini evaluate ablation bench figures screenshots docs constraints clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-25s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(VENV)/.installed-app ## hear it: the app on 127.0.0.1:7860
	$(BIN)/python -m app

test: lint types $(VENV)/.installed-all ## ruff, imports, types and the tests that take seconds: about 15 minutes on 2 cores
	$(PYTEST) -m 'not slow'

test-slow: $(VENV)/.installed-all ## the tests that train, compile, start processes or load the app for minutes
	$(PYTEST) -m 'slow and not families'

test-families: $(VENV)/.installed-all ## every decoder that transformers registers, against docs/families.md: minutes
	$(PYTEST) --dist load tests/attention/test_families.py

families: $(VENV)/.installed-all ## write docs/families.md anew
	PYTHONPATH=.:tests/helpers $(BIN)/python tests/helpers/family_sweep.py

test-upstream: $(VENV)/.installed-all ## compare with the published code of the systems, in the checkouts that WANDLIB_UPSTREAM names
	@test -d '$(WANDLIB_UPSTREAM)' || { echo 'WANDLIB_UPSTREAM=folder make test-upstream: the folder holds checkouts of the published code (docs/systems.md)'; exit 2; }
	$(BIN)/python -m pytest -m upstream tests/systems

test-notebooks: $(VENV)/.installed-all ## run the notebooks, every exercise blank and solved, and compare with what is stored
	rm -rf build/notebooks
	$(BIN)/python notebooks/fill.py build/notebooks --tested
	$(PYTEST) -p notebooks.approximate --nbval --nbval-current-env --nbval-sanitize-with notebooks/sanitize.cfg --nbval-cell-timeout 600 --timeout 600 \
		--no-loadscope-reorder $$(ls -r build/notebooks/*.ipynb) # those that take minutes before the short ones

test-colab: $(VENV)/.installed-all ## pip's dry run of the notebooks' extra, what a Colab runtime brings held at its versions
	$(BIN)/python -m pip install --dry-run --ignore-installed --quiet --constraint tests/notebooks/colab.txt '.[colab]'

lint: $(VENV)/.installed-all ## ruff over code and notebooks, and the direction of imports
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/lint-imports --no-cache --no-logo

types: $(VENV)/.installed-all ## mypy
	$(BIN)/mypy

notebooks: $(VENV)/.installed-all ## run every notebook and store its outputs
	$(BIN)/python notebooks/store.py

lab: $(VENV)/.installed-all ## open the notebooks in JupyterLab
	$(BIN)/jupyter lab notebooks

mini: $(VENV)/.installed-all ## train the embedded voice from nothing: hours, resumable
	$(BIN)/python -m recipes.mini

evaluate: $(VENV)/.installed-all ## measure the embedded voice, stage by stage; PEOPLE=folder: recordings of people to imitate
	$(BIN)/python -m recipes.mini.evaluate $(if $(PEOPLE),--people $(PEOPLE))

ablation: $(VENV)/.installed-all ## what each part of the method is worth: RESULTS.md, minutes from what is kept in the repository; its --anew measures again, in hours
	test -e runs/mini/corpus/spoken.npz || $(BIN)/python -m recipes.mini shipped
	$(BIN)/python -m recipes.mini.ablation

bench: $(VENV)/.installed-all ## speed against the baselines and the floor: benchmarks/README.md, about 10 minutes; ONLY=endless: that alone
	$(BIN)/python -m benchmarks $(if $(ONLY),--only $(ONLY),--write)

figures: $(VENV)/.installed-all ## draw the figures of docs/ again
	$(BIN)/python docs/figures.py

docs: $(VENV)/.installed-all ## build the pages of docs/ into build/docs/html; a warning is an error
	$(BIN)/python -m sphinx --fail-on-warning --keep-going --quiet docs build/docs/html

screenshots: $(VENV)/.installed-all ## take the pictures of the app in docs/ again; needs chromium and chromium-driver
	PYTHONPATH=.:tests/helpers $(BIN)/python tests/helpers/screenshots.py

constraints: $(UV) ## pin the newest releases that pyproject.toml allows, for every Python and platform: constraints.txt
	$(UV) pip compile pyproject.toml --extra all --universal --python-version 3.11 --fork-strategy fewest --upgrade \
		--quiet --no-annotate --custom-compile-command 'make constraints' --output-file constraints.txt

test-newest: $(UV) ## the library's tests on the newest transformers there is, its upper bound lifted, in .venv-newest
	$(UV) venv --quiet --allow-existing --python $(PYTHON) .venv-newest
	printf '%s\n' $(LIFTED) > .venv-newest/lifted.txt
	$(UV) pip install --python .venv-newest --upgrade --override .venv-newest/lifted.txt --editable '.[$(LIBRARY_EXTRAS)]'
	.venv-newest/bin/python -m pytest -m 'not families' $(LIBRARY_TESTS)

test-oldest: $(UV) ## the library's tests on the oldest releases that pyproject.toml allows, in .venv-oldest
	$(UV) venv --quiet --allow-existing --python $(PYTHON) .venv-oldest
	$(UV) pip install --python .venv-oldest --resolution lowest-direct --editable '.[$(LIBRARY_EXTRAS)]'
	.venv-oldest/bin/python -m pytest -m 'not families' $(LIBRARY_TESTS)

test-oldest-transformers: $(VENV)/.oldest-transformers-$(OLDEST_TRANSFORMERS) ## the attention's tests, with fewer examples, on the oldest transformers, all else as in .venv
	EXAMPLES=15 PYTHONPATH=$< $(PYTEST) -m 'not slow' tests/attention

clean: ## remove caches and builds; virtual environments, runs and the shipped voice stay
	rm -rf build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis
	find . -name __pycache__ -not -path './.venv*' -prune -exec rm -rf {} +

# An empty file remembers which extras are installed; newer requirements or constraints install them again.
$(VENV)/.installed-%: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' || { echo '$(VENV) is of another Python than 3.11 to 3.13: remove it, and say make ... PYTHON=python3.12'; exit 2; }
	@$(BIN)/python -m pip --version >/dev/null || { echo '$(VENV) has no pip: remove it, and on Debian install python3-venv'; exit 2; }
	$(BIN)/python -m pip install --no-compile --constraint constraints.txt --editable '.[$*]'
	touch $@

# A folder of its own beside the newer packages; transformers below 5.21 wants the first major version of its hub client.
$(VENV)/.oldest-transformers-%: $(VENV)/.installed-all
	rm -rf $@
	$(BIN)/python -m pip install --no-compile --no-deps --target $@ 'transformers==$*' 'huggingface-hub<2'
	touch $@

$(UV):
	$(PYTHON) -m venv .venv-uv
	.venv-uv/bin/python -m pip install --quiet 'uv>=0.9'
