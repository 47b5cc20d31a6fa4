# `make run` and `make test` need nothing but python3 and make: they set up $(VENV) themselves.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
RUNS := $(VENV)/.trains

.PHONY: run test test-oldest test-newest lint docs install wheel clean

# Multihead SAC + QMP on Maze10. The paper's run has wider networks, 100 rounds of warm-up and 12 M steps.
LAPTOP := --hidden-dim 256 --warmup-rounds 10 --total-timesteps 600000
# Ctrl-C saves and ends with exit code 75; make run ARGS="--resume runs/RUN_NAME" goes on.
run: $(RUNS)
	$(BIN)/python cleanrl_scripts/sac_qmp_multihead.py --env-id Maze10 $(LAPTOP) $(ARGS)

test: lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal $(ARGS)

# What pyproject.toml promises: the tests against the oldest and the newest versions that it allows, in environments of
# their own. Meta-World pins the oldest MuJoCo, so the newest one is put over it. UV_ARGS="--torch-backend cpu" spares
# the CUDA libraries.
test-oldest:
	$(PYTHON) -m venv .venv-oldest
	.venv-oldest/bin/python -m pip install --quiet uv
	.venv-oldest/bin/uv pip install --python .venv-oldest --resolution lowest-direct $(UV_ARGS) --editable ".[all,track]"
	.venv-oldest/bin/uv pip install --python .venv-oldest $(UV_ARGS) --group test --group package
	OMP_NUM_THREADS=1 .venv-oldest/bin/python -m pytest -n 2 --dist worksteal $(ARGS)

test-newest:
	$(PYTHON) -m venv .venv-newest
	.venv-newest/bin/python -m pip install --quiet uv
	.venv-newest/bin/uv pip install --python .venv-newest --upgrade $(UV_ARGS) --group dev --editable ".[all,track]"
	.venv-newest/bin/uv pip install --python .venv-newest --upgrade "mujoco<3.5"
	OMP_NUM_THREADS=1 .venv-newest/bin/python -m pytest -n 2 --dist worksteal $(ARGS)

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The site, into site/. To read it: python -m http.server --directory site
docs: install
	PYTHONPATH=.:envs $(BIN)/python -m mkdocs build --strict $(ARGS)

install: $(STAMP)

# Training alone needs no developers' tools.
$(RUNS): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	@echo "Installing PyTorch, MuJoCo and what else training needs into $(VENV), once:"
	$(BIN)/python -m pip install --constraint constraints.txt --editable ".[train,envs,report]"
	touch $(RUNS)

# Dependency groups need pip 25.1, which is newer than the one that Python 3.11 brings.
# d4rl's own requirements (mujoco-py, gym < 0.25) no longer install; the tests read one pure-Python file of it.
$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet "pip>=25.1"
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --group dev --editable ".[all,track]"
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --no-deps d4rl
	touch $(STAMP) $(RUNS)

# What could be published: dist/ with an sdist and a wheel. `make test` builds and checks both, too.
wheel: install
	$(BIN)/python -m build --no-isolation
	$(BIN)/python -m twine check --strict dist/*

clean:
	rm -rf $(VENV) .venv-oldest .venv-newest build dist site .mypy_cache .pytest_cache .ruff_cache .hypothesis
