# SPDX-License-Identifier: Apache-2.0
"""Put a warmed-up policy, a text reasoner, or a dual encoder into the package, in bfloat16.

python local_scripts/ship_starter.py runs/starter/warm_up/final
python local_scripts/ship_starter.py runs/starter/reasoner/final
python local_scripts/ship_starter.py runs/starter/dual_encoder/final
"""

import argparse
import shutil
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoTokenizer,
)

# transformers itself gives this name only where there is torchvision; the class falls back to PIL
from transformers.models.auto.image_processing_auto import AutoImageProcessor

from open_r1_vision.models import is_text_only, load_processor
from open_r1_vision.starter.model import describe_size

#: Where each goes, and how much the package may carry of it.
POLICY = ("checkpoint", 8)
REASONER = ("reader", 4)
DUAL_ENCODER = ("encoder", 4)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="folder of the model")
    parser.add_argument("--target", type=Path, help="folder to write, replaced if it exists")
    args = parser.parse_args(argv)
    source = str(args.model)
    model_class: Any = AutoModelForImageTextToText
    if AutoConfig.from_pretrained(source).model_type == "clip":
        folder, limit = DUAL_ENCODER
        model_class = AutoModel
        processors = [AutoImageProcessor.from_pretrained(source), AutoTokenizer.from_pretrained(source)]
    elif is_text_only(source):
        folder, limit = REASONER
        model_class = AutoModelForCausalLM
        processors = [AutoTokenizer.from_pretrained(source)]
    else:
        folder, limit = POLICY
        processors = [load_processor(source)]
    target = args.target or Path(str(resources.files("open_r1_vision.starter"))) / folder
    model = model_class.from_pretrained(source, dtype=torch.bfloat16)
    if target.exists():
        shutil.rmtree(target)
    model.save_pretrained(target)
    for processor in processors:
        processor.save_pretrained(target)
    size = (target / "model.safetensors").stat().st_size / 1e6
    if size > limit:
        raise SystemExit(f"The weights take {size:.1f} MB; the package may carry {limit}.")
    print(f"{target}: {describe_size(str(target))}")


if __name__ == "__main__":
    main()
