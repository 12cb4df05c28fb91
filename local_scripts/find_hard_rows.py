# SPDX-License-Identifier: Apache-2.0
"""Find the starter's hard rows: training pages of digits that the shipped policy gets wrong in all of its samples.

python local_scripts/find_hard_rows.py     about four minutes on two cores

Writes the list that `open_r1_vision.starter.hard` reads; run it after local_scripts/ship_starter.py.
"""

import argparse
import hashlib
import json
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

import torch
from tqdm import trange
from transformers import AutoModelForImageTextToText
from trl.data_utils import prepare_multimodal_messages

from open_r1_vision.data.rows import add_prompts
from open_r1_vision.generation import encode_chats
from open_r1_vision.models import load_processor
from open_r1_vision.prompts import load_prompt
from open_r1_vision.rewards.answers import extract_answer, score_answer
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

    folder = model.policy()
    processor = load_processor(folder)
    policy = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).eval()
    rows = add_prompts(digits.rows("train", args.tried), load_prompt("starter"))
    torch.manual_seed(0)
    indices = []
    for start in trange(0, args.tried, args.batch_size, desc="sampling"):
        batch = [rows[index] for index in range(start, min(start + args.batch_size, args.tried))]
        inputs = encode_chats(
            processor, [prepare_multimodal_messages(row["prompt"], images=row["images"]) for row in batch], "cpu"
        )
        with torch.inference_mode():
            ids = policy.generate(
                **inputs,
                max_new_tokens=60,
                do_sample=True,
                temperature=args.temperature,
                top_k=0,
                num_return_sequences=args.samples,
                suppress_tokens=[policy.config.image_token_id, policy.config.video_token_id],
            )
        texts = processor.tokenizer.batch_decode(ids[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        for number, row in enumerate(batch):
            answers = [extract_answer(text) for text in texts[number * args.samples : (number + 1) * args.samples]]
            if not any(score_answer(answer, row["solution"], row["problem_type"]) for answer in answers):
                indices.append(start + number)
    weights = hashlib.sha256((Path(folder) / "model.safetensors").read_bytes()).hexdigest()
    found = {"weights": weights, "tried": args.tried, "samples": args.samples, "temperature": args.temperature}
    args.target.write_text(json.dumps({**found, "indices": indices}) + "\n", encoding="utf-8")
    print(f"{args.target}: {len(indices)} of {args.tried} rows are wrong in all of {args.samples} samples")


if __name__ == "__main__":
    main()
