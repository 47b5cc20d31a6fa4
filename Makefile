# `make run` and `make test` need nothing but python3 and make: they set up $(VENV) themselves.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# Touched when all of it is installed, so that nothing is twice: what training needs, and what the tests need besides.
TRAINS := $(VENV)/.trains
TESTS := $(VENV)/.tests
COMPILED := $(VENV)/.compiled

.PHONY: run test test-oldest test-newest test-ray lint docs install wheel clean

# `make run` is a first run, of minutes; `make run RUN=laptop`, `make run RUN=paper` (see `qmp train`).
# Ctrl-C saves and ends with exit code 75; make run ARGS="--resume runs/RUN_NAME" goes on.
RUN ?= first
run: $(TRAINS)
	$(BIN)/qmp train $(RUN) $(ARGS)

# Byte-compiling all that is installed takes as long as installing it: `make --jobs 2 test` does so beside lint, which
# does without.
test: lint $(COMPILED)
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

# Many machines: a Ray cluster of three nodes on this one, some of which are killed. Two minutes, and not part of `test`.
test-ray:
	$(PYTHON) -m venv .venv-ray
	.venv-ray/bin/python -m pip install --quiet --editable ".[ray]" hypothesis pytest
	OMP_NUM_THREADS=1 .venv-ray/bin/python -m pytest -m ray tests/fleet $(ARGS)

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The site, into site/. To read it: python -m http.server --directory site
docs: install
	PYTHONPATH=.:envs $(BIN)/python -m mkdocs build --strict $(ARGS)

install: $(TESTS)

define SAY_INSTALLING
	@echo
	@echo "== Installing $(1) into $(VENV), once: minutes."
	@echo "== On Linux, PyTorch brings 2 GB for NVIDIA GPUs; docs/start/install.md says how to do without."
	@echo "== pip says what it fetches; then its line 'Installing collected packages' stands for a minute or two."
endef

# Training alone needs no developers' tools.
$(TRAINS): pyproject.toml constraints.txt
	$(call SAY_INSTALLING,PyTorch and MuJoCo)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --constraint constraints.txt --editable ".[train,envs,report]"
	touch $@

# Dependency groups need pip 25.1, which is newer than the one that Python 3.11 brings.
# d4rl's own requirements (mujoco-py, gym < 0.25) no longer install; the tests read one pure-Python file of it.
$(TESTS): pyproject.toml constraints.txt
	$(call SAY_INSTALLING,all task sets and the developers' tools)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet "pip>=25.1"
	$(BIN)/python -m pip install --no-compile --constraint constraints.txt --group dev --editable ".[all,track]"
	$(BIN)/python -m pip install --no-compile --constraint constraints.txt --no-deps d4rl
	touch $(TRAINS) $@

# Some packages have files for another Python, which do not compile with this one.
$(COMPILED): $(TESTS)
	$(BIN)/python -W ignore -m compileall -qq $(VENV)/lib || true
	touch $@

# What could be published: dist/ with an sdist and a wheel. `make test` builds and checks both, too.
wheel: install
	$(BIN)/python -m build --no-isolation
	$(BIN)/python -m twine check --strict dist/*

clean:
	rm -rf $(VENV) .venv-oldest .venv-newest .venv-ray build dist site .mypy_cache .pytest_cache .ruff_cache .hypothesis
