# Each target sets up what it needs; a fresh machine needs Python 3.11 or later and make.
PYTHON ?= python3
CIFAR10 ?= ../shared/data
HOME_FOLDER ?= data/demo
FUZZ ?= 10000
SOAK ?= 50

.DEFAULT_GOAL := help
.PHONY: help setup demo cifar10 benchmark encoders cameras sensitivity study incremental bench million million-images cost-model memory publication near-copies clothing neighbour workers cluster ui serve lineage page check quick test slow fuzz soak audit lint clean

help:            ## list the targets
	@grep -E '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z0-9-]+):[^#]*## /make \1\t/' | expand -t 20

setup: .venv/installed  ## create .venv and install everything

demo: setup      ## the whole chain on 1,000 handwritten digits with planted errors
	.venv/bin/sava demo --home data/demo

cifar10: setup   ## the same on 20,000 CIFAR-10 images; CIFAR10=folder with cifar10/ and cifar10_encoder/
	.venv/bin/sava cifar10 $(CIFAR10) --home data/cifar10

benchmark: setup  ## what is found on CIFAR-10 and on two sets nothing was tuned on, beside yardsticks; an hour
	.venv/bin/python benchmarks/detection.py $(CIFAR10)
	.venv/bin/python benchmarks/other_sets.py $(CIFAR10)

encoders: setup  ## the same on three sets through encoders that hardly tell the classes; 15 minutes
	.venv/bin/python benchmarks/other_encoders.py $(CIFAR10)

cameras: setup   ## the same where all reference images come from another camera; 10 minutes
	.venv/bin/python benchmarks/other_cameras.py $(CIFAR10)

sensitivity: setup  ## how the defaults were chosen: one knob at a time; 40 minutes
	.venv/bin/python benchmarks/sensitivity.py $(CIFAR10)

study: setup     ## every method on every corruption, reduced: writes docs/study.md; half an hour
	.venv/bin/sava study $(CIFAR10) --home data/study --report docs/study.md

incremental: setup  ## what one more shard costs, beside the first valuation
	.venv/bin/python benchmarks/incremental.py

bench: setup     ## speed beside POT and geomloss, and where the time goes: writes benchmarks/README.md and, on a GPU, gpu.md; 10 minutes
	.venv/bin/python benchmarks/speed.py
	.venv/bin/python benchmarks/gpu.py

million: setup   ## a million points through the real assets: time and memory; 10 minutes, 4 GB of disk
	.venv/bin/python benchmarks/million.py

million-images: setup  ## a million real images through every asset, resumed where it was stopped; hours
	.venv/bin/python benchmarks/million_images.py $(CIFAR10) data/million-images

cost-model: setup  ## what 1 M, 100 M and 1 B images cost, from what was measured and the demo's home: writes docs/scale.md
	.venv/bin/python benchmarks/cost_model.py $(HOME_FOLDER)

memory: setup    ## peak memory of every asset for 2,000 and 20,000 images of 224 px; 15 minutes
	.venv/bin/python benchmarks/memory.py $(CIFAR10)

publication: setup  ## time and memory of publishing a shard with more than 2 GiB of images; a minute
	.venv/bin/python benchmarks/publication.py

near-copies: setup  ## planted near copies: recall and precision, beside imagededup if that is installed (then an hour)
	.venv/bin/python benchmarks/near_copies.py $(CIFAR10) 10000 83334

clothing: setup  ## real photographs from landing to a person's decisions and the next night; needs chromium; minutes
	rm -rf data/clothing
	.venv/bin/python benchmarks/clothing.py $(CIFAR10) data/clothing

neighbour: setup  ## the same valuation quiet, beside one and beside two busy processes; 5 minutes
	.venv/bin/python benchmarks/neighbour.py

workers: setup   ## what Ray adds to a grid of 200,000 points on the same processors; needs Ray; 5 minutes
	.venv/bin/python benchmarks/workers.py

cluster: .venv-cluster/installed  ## PostgreSQL, an S3 server and two Ray nodes against one process, and every Ray test; needs Debian's postgresql; minutes
	.venv-cluster/bin/pytest -m '' -rs tests/e2e/test_cluster.py tests/sava_assets/cli/test_instances.py tests/sava_assets/assets/test_on_ray.py

ui: setup        ## Dagster UI on 127.0.0.1:3000; HOME_FOLDER=data/demo
	.venv/bin/sava ui --home $(HOME_FOLDER)

serve: setup  ## the UI with the automation on: new shards are curated as they arrive
	.venv/bin/sava serve --home $(HOME_FOLDER)

lineage: setup  ## draw docs/lineage.png from the demo's home; needs chromium
	.venv/bin/python docs/lineage.py $(HOME_FOLDER)

page: setup     ## draw docs/review.png from the demo's home; needs chromium
	.venv/bin/python docs/review.py $(HOME_FOLDER)

check: setup     ## lint, and side by side with it the short tests that start no server and kill nothing
	$(MAKE) --no-print-directory --jobs=2 --output-sync lint quick

quick: setup     ## only these tests
	.venv/bin/pytest --numprocesses=auto --ignore=tests/e2e -m 'not cluster and not slow and not long'

test: setup      ## the whole suite, with real servers and a browser if chromium is there
	.venv/bin/pytest --numprocesses=auto

slow: setup      ## only what repeats at length what a test of the suite shows: more kills, more steps; minutes
	.venv/bin/pytest --numprocesses=auto -m slow

audit: setup     ## known advisories of the installed packages; fails on one, and where it cannot be asked
	.venv/bin/pip-audit --local --strict --skip-editable --progress-spinner off

fuzz: setup      ## 10,000 hostile inputs, others every time; FUZZ=number
	.venv/bin/python -m tests.fuzz $(FUZZ)

soak: setup      ## 50 shards come and go under the real daemon on a failing disk; SOAK=number; an hour
	.venv/bin/python -m tests.soak $(SOAK)

lint: setup      ## formatting, lint rules, types
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .
	.venv/bin/pyright

clean:           ## remove the environment; data/ stays
	rm -rf .venv .venv-cluster

# uv installs in seconds what pip takes minutes for. Compiled once here, or every process of a run would compile it all
# again where Python may not write its cache.
.venv/installed: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "SAVA Assets needs Python 3.11 or later")'
	$(PYTHON) -m venv .venv
	.venv/bin/pip install --quiet --disable-pip-version-check uv
	.venv/bin/uv pip install --quiet --compile-bytecode --python .venv/bin/python --editable '.[dev]'
	touch $@

# One of its own: dagster-postgres takes one release of dagster alone, which may not be the newest.
.venv-cluster/installed: pyproject.toml .venv/installed
	$(PYTHON) -m venv .venv-cluster
	.venv/bin/uv pip install --quiet --compile-bytecode --python .venv-cluster/bin/python --editable '.[dev,postgres]'
	touch $@
