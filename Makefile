# `make run` and `make test` need nothing but python3 and make: they set up $(VENV) themselves.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: run test lint install wheel clean

# Multihead SAC + QMP on Maze10. The paper's run has wider networks, 100 rounds of warm-up and 12 M steps.
LAPTOP := --hidden-dim 256 --warmup-rounds 10 --total-timesteps 600000
run: install
	$(BIN)/python cleanrl_scripts/sac_qmp_multihead.py --env-id Maze10 $(LAPTOP) $(ARGS)

test: lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal $(ARGS)

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

install: $(STAMP)

# d4rl's own requirements (mujoco-py, gym < 0.25) no longer install; the tests read one pure-Python file of it.
$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev]"
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --no-deps d4rl
	touch $(STAMP)

wheel: install
	$(BIN)/python -m build --wheel

clean:
	rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
