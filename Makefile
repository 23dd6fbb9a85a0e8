# Every target sets up what it needs: only Python 3.11+, pip, make and git are assumed.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
SDKS := .venv/sdk/.ready


# Older versions of other people's SDKs, beside the newest in requirements.lock: see tests/sdk.
OLD_SDKS := openai==2.54.0 openai==2.3.0 dashscope==1.27.8 dashscope==1.24.6

.PHONY: help setup sdks demo test run check docs bench faults train-tiny clean

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

setup: $(READY)  ## virtual environment with pinned dependencies

$(READY): requirements.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Vidmill needs Python 3.11 or newer")'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -e .
	touch $@

sdks: $(SDKS)  ## older SDK versions that the conformance tests run

$(SDKS): $(READY) Makefile
	for sdk in $(OLD_SDKS); do \
		folder=.venv/sdk/$${sdk%%==*}-$${sdk##*==}; \
		test -d $$folder || $(BIN)/python -m pip install --quiet --disable-pip-version-check \
			--no-deps --target $$folder $$sdk || exit 1; \
	done
	touch $@

demo: $(READY)  ## the main job: six prompts to six finished clips in out/demo/
	$(BIN)/vidmill demo --out out/demo

test: $(READY) $(SDKS)  ## the tests that this machine can run; long variants too: ARGS="-m 'long or not long'"
	$(BIN)/python -m pytest -n 4 --dist loadgroup $(ARGS)

run: $(READY)  ## the whole stack on this machine: vidmill up
	$(BIN)/vidmill up

check: $(READY)  ## what CI checks before the tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: $(READY)  ## write the generated reference pages
	$(BIN)/python -m vidmill.reference

bench: $(READY)  ## measure, and print what was measured (docs/benchmarks.md keeps a record)
	$(BIN)/python -m bench

faults: $(READY)  ## break everything on purpose, about 12 minutes; prints the table of docs/reliability.md
	$(BIN)/python -m tests.faults --report out/reliability.md $(ARGS)

train-tiny: $(READY)  ## train the tiny model from nothing, about 150 minutes on two cores; resumable
	$(BIN)/python -m training all --run-dir out/train

clean:  ## remove what the targets made, the virtual environment too
	rm -rf .venv out build src/*.egg-info
