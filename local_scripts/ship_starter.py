# SPDX-License-Identifier: Apache-2.0
"""Put a warmed-up policy into the package as the starter's checkpoint, in bfloat16.

python local_scripts/ship_starter.py runs/starter/warm_up/final
"""

import argparse
import shutil
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

import torch
from transformers import AutoModelForImageTextToText

from open_r1_vision.models import load_processor
from open_r1_vision.starter.model import describe_size

#: What the package may carry.
MAX_MEGABYTES = 8


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="folder of the model")
    target = Path(str(resources.files("open_r1_vision.starter"))) / "checkpoint"
    parser.add_argument("--target", type=Path, default=target, help="folder to write, replaced if it exists")
    args = parser.parse_args(argv)
    model = AutoModelForImageTextToText.from_pretrained(args.model, dtype=torch.bfloat16)
    if args.target.exists():
        shutil.rmtree(args.target)
    model.save_pretrained(args.target)
    load_processor(str(args.model)).save_pretrained(args.target)
    size = (args.target / "model.safetensors").stat().st_size / 1e6
    if size > MAX_MEGABYTES:
        raise SystemExit(f"The weights take {size:.1f} MB; the package may carry {MAX_MEGABYTES}.")
    print(f"{args.target}: {describe_size(str(args.target))}")


if __name__ == "__main__":
    main()
