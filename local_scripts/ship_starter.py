# SPDX-License-Identifier: Apache-2.0
"""Put a warmed-up policy, or a text reasoner, into the package, in bfloat16.

python local_scripts/ship_starter.py runs/starter/warm_up/final
python local_scripts/ship_starter.py runs/starter/reasoner/final
"""

import argparse
import shutil
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText, AutoTokenizer

from open_r1_vision.models import is_text_only, load_processor
from open_r1_vision.starter.model import describe_size

#: Where each goes, and how much the package may carry of it.
POLICY = ("checkpoint", 8)
REASONER = ("reader", 4)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="folder of the model")
    parser.add_argument("--target", type=Path, help="folder to write, replaced if it exists")
    args = parser.parse_args(argv)
    is_reasoner = is_text_only(str(args.model))
    folder, limit = REASONER if is_reasoner else POLICY
    target = args.target or Path(str(resources.files("open_r1_vision.starter"))) / folder
    model_class = AutoModelForCausalLM if is_reasoner else AutoModelForImageTextToText
    model = model_class.from_pretrained(args.model, dtype=torch.bfloat16)
    processor = AutoTokenizer.from_pretrained(args.model) if is_reasoner else load_processor(str(args.model))
    if target.exists():
        shutil.rmtree(target)
    model.save_pretrained(target)
    processor.save_pretrained(target)
    size = (target / "model.safetensors").stat().st_size / 1e6
    if size > limit:
        raise SystemExit(f"The weights take {size:.1f} MB; the package may carry {limit}.")
    print(f"{target}: {describe_size(str(target))}")


if __name__ == "__main__":
    main()
