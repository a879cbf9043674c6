# Every target sets itself up: a virtual environment in .venv, and in it what the target needs.
# Another Python than the default one: make demo PYTHON=python3.12

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: help demo test lint types notebooks lab mini evaluate ablation bench figures clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(VENV)/.installed-app ## hear it: the app on 127.0.0.1:7860
	$(BIN)/python -m app

test: lint types $(VENV)/.installed-all ## ruff, types, tests, and the notebooks run and compared
	$(BIN)/python -m pytest
	$(BIN)/python -m pytest --nbval --nbval-current-env --nbval-sanitize-with notebooks/sanitize.cfg --nbval-cell-timeout 300 notebooks

lint: $(VENV)/.installed-all ## ruff over code and notebooks
	$(BIN)/ruff check
	$(BIN)/ruff format --check

types: $(VENV)/.installed-all ## mypy
	$(BIN)/mypy

notebooks: $(VENV)/.installed-all ## run every notebook and store its outputs
	$(BIN)/python notebooks/store.py

lab: $(VENV)/.installed-all ## open the notebooks in JupyterLab
	$(BIN)/jupyter lab notebooks

mini: $(VENV)/.installed-all ## train the embedded voice from nothing: hours, resumable
	$(BIN)/python -m recipes.mini

evaluate: $(VENV)/.installed-all ## measure the embedded voice, stage by stage
	$(BIN)/python -m recipes.mini.evaluate

ablation: $(VENV)/.installed-all ## what each part of the method is worth: RESULTS.md, about an hour, resumable
	test -e runs/mini/corpus/codes.npz || $(BIN)/python -m recipes.mini corpus analysis shipped codes
	$(BIN)/python -m recipes.mini.ablation

bench: $(VENV)/.installed-all ## speed against the baselines and the floor: benchmarks/README.md, about 10 minutes
	$(BIN)/python -m benchmarks --write

figures: $(VENV)/.installed-all ## draw the figures of docs/ again
	$(BIN)/python docs/figures.py

clean: ## remove caches and builds; .venv, runs and the shipped voice stay
	rm -rf build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +

# An empty file remembers which extras are installed; a newer pyproject.toml installs them again.
$(VENV)/.installed-%: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --editable '.[$*]'
	touch $@
