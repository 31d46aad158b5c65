# Each target sets up .venv by itself the first time.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo browser test check lint docs bench figures mutations clean

AXE := axe-core@4.10.3

demo: .venv/installed  ## train, merge and report on digits: runs/digits/report.html
	$(BIN)/moeframe run specs/digits.yaml

browser: .browser/package/axe.min.js  ## axe-core, which checks the pages in Chromium for accessibility; needs npm
.browser/package/axe.min.js:
	mkdir -p .browser
	cd .browser && npm pack --silent $(AXE) && tar xzf axe-core-*.tgz package/axe.min.js && rm axe-core-*.tgz
	touch $@

test: .venv/installed  ## all tests
	$(BIN)/python -m pytest -n 2 --dist worksteal

check: lint  ## what to run before a commit
	MOEFRAME_CHECK_SHAPES=0 $(BIN)/python -m pytest -n 2 --dist worksteal -m "not slow" -q

lint: .venv/installed  ## format, lint, types, layers
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: .venv/installed  ## the documentation site, built strictly: site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

bench: .venv/installed  ## speed and memory, side by side in one run: results/{engine/speed,data/loading,evaluation/sampling_memory}.json
	$(BIN)/python benchmarks/speed.py
	$(BIN)/python benchmarks/loading.py
	$(BIN)/python benchmarks/sampling_memory.py

figures: .venv/installed  ## exactness, resume, likelihood, coverage of intervals, official formats: results/
	$(BIN)/python benchmarks/exactness.py
	$(BIN)/python benchmarks/resume.py
	$(BIN)/python benchmarks/likelihood.py
	$(BIN)/python benchmarks/coverage.py
	$(BIN)/python benchmarks/coverage_quality.py
	$(BIN)/python benchmarks/agreement.py
	$(BIN)/python benchmarks/official_formats.py

mutations: .venv/installed  ## mutation tests with historic mistakes: results/evaluation/mutations.json
	$(BIN)/python benchmarks/mutations.py -j 2

.venv/installed: pyproject.toml examples/moeframe-myslicer/pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[dev]'
	$(BIN)/pip install --quiet --disable-pip-version-check -e examples/moeframe-myslicer
	touch $@

clean:
	rm -rf .venv site .mypy_cache .ruff_cache .pytest_cache .hypothesis
