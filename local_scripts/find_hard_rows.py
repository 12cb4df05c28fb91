# SPDX-License-Identifier: Apache-2.0
"""Find the starter's hard rows: training pages of digits that the shipped policy gets wrong in all of its samples.

python local_scripts/find_hard_rows.py     about four minutes on two cores

Writes the list that `open_r1_vision.starter.hard` reads; run it after local_scripts/ship_starter.py. The shipped list
was drawn before samples had random numbers of their own: a new one differs in rows that are right now and then.
"""

import argparse
import hashlib
import json
import tempfile
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

from open_r1_vision import sample, split
from open_r1_vision.starter import digits, hard, model


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tried", type=int, default=3200, help="training rows to try")
    parser.add_argument("--samples", type=int, default=8, help="samples of each")
    parser.add_argument("--temperature", type=float, default=1.1, help="as in the recipes")
    parser.add_argument("--batch_size", type=int, default=32, help="rows at a time")
    target = Path(str(resources.files("open_r1_vision.starter"))) / hard.LIST_FILE
    parser.add_argument("--target", type=Path, default=target, help="file to write, replaced if it exists")
    args = parser.parse_args(argv)

    with tempfile.TemporaryDirectory() as folder:
        settings = {
            "model_name_or_path": "open_r1_vision.starter.model.policy",
            "dataset": "open_r1_vision.starter.digits.rows",
            "dataset_options": json.dumps({"count": args.tried}),
            "system_prompt": "starter",
            "num_generations": args.samples,
            "temperature": args.temperature,
            "top_p": 1.0,
            "max_completion_length": 60,
            "rows_per_batch": args.batch_size,
            "seed": 0,
            "output_dir": folder,
        }
        code = sample.main([word for key, value in settings.items() for word in (f"--{key}", str(value))])
        if code:
            raise SystemExit(code)
        found = split.split_samples(split.SplitArguments(samples=folder, output_dir=f"{folder}/splits"))
    wrong = set(found["splits"]["hard"])
    indices = [index for index, row_id in enumerate(digits.rows("train", args.tried)["id"]) if row_id in wrong]
    weights = hashlib.sha256((Path(model.policy()) / "model.safetensors").read_bytes()).hexdigest()
    about = {"weights": weights, "tried": args.tried, "samples": args.samples, "temperature": args.temperature}
    args.target.write_text(json.dumps({**about, "indices": indices}) + "\n", encoding="utf-8")
    print(f"{args.target}: {len(indices)} of {args.tried} rows are wrong in all of {args.samples} samples")


if __name__ == "__main__":
    main()
