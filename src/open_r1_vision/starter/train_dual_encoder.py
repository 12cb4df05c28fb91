# SPDX-License-Identifier: Apache-2.0
"""Train the starter's dual encoder on pages of the warm-up's writers, right descriptions and wrong ones.

    python -m open_r1_vision.starter.train_dual_encoder --config recipes/starter/dual_encoder.yaml

The loss is CLIP's, with wrong descriptions of each page among the texts, as NegCLIP (arXiv 2210.01936) has them: other
pages' descriptions are so easy to tell from a page's own that a wrong digit would go unseen. A second part makes the
cosine fall by the same amount for each error. A third part asks the image encoder, and through one shared head both
encoders, for the digit in each cell of the page: without it the loss of the others hardly fell from step 400 to 600.
"""

import math
import random
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from rapidfuzz.distance import Levenshtein
from transformers import Trainer, TrainingArguments

from open_r1_vision.arguments import parse_recipe, print_all_help, print_help, read_recipe
from open_r1_vision.starter import digits
from open_r1_vision.starter.dual_encoder import LINE_BREAK, MOST_EDITS, corrupt, draw_foreign, new_dual_encoder
from open_r1_vision.starter.page import CELLS_PER_SIDE
from open_r1_vision.trackers import check_trackers
from open_r1_vision.train import refuse, say

#: Digits of a page: those of every page that the policy meets.
OBJECTS = (2, 8)
NUM_CELLS = CELLS_PER_SIDE**2
#: Class of an empty cell, after the ten digits.
EMPTY = 10


@dataclass
class DualEncoderArguments:
    """Arguments of `open_r1_vision.starter.train_dual_encoder` beside those of transformers.TrainingArguments."""

    num_pages: int = field(default=40000, metadata={"help": "Pages that are drawn; each may be seen several times."})
    num_wrong: int = field(default=4, metadata={"help": "Wrong descriptions of each page, 1 or more."})
    max_logit_scale: float = field(
        default=30.0,
        metadata={"help": "Largest factor between cosines and logits; a large one is content with small differences."},
    )
    error_cost: float = field(
        default=0.2, metadata={"help": "How much lower the cosine is to be for each error in a description, up to 1."}
    )
    error_weight: float = field(
        default=1.0, metadata={"help": "Weight of the part of the loss that counts errors; 0 leaves it out."}
    )
    reading_weight: float = field(
        default=1.0, metadata={"help": "Weight of the part of the loss that asks for digits; 0 leaves it out."}
    )

    def __post_init__(self) -> None:
        for name in ("num_pages", "num_wrong"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}: set at least 1.")
        if self.max_logit_scale < 1:
            raise ValueError(
                f"max_logit_scale is {self.max_logit_scale}, which makes all cosines look alike: set at least 1."
            )
        if not 0 < self.error_cost <= 1:
            raise ValueError(f"error_cost is {self.error_cost}, but cosines go from 1 to 0: set it above 0, up to 1.")
        for name in ("error_weight", "reading_weight"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is {getattr(self, name)}, which rewards errors: set 0 or more.")


class Reader(torch.nn.Module):
    """A dual encoder with heads that name the digit of each cell; they are left behind after the training.

    Args:
        clip: the dual encoder.
    """

    def __init__(self, clip: Any) -> None:
        super().__init__()
        self.clip = clip
        self.patch_head = torch.nn.Linear(clip.vision_embed_dim, EMPTY + 1)
        self.page_head = torch.nn.Linear(clip.projection_dim, NUM_CELLS * (EMPTY + 1))

    def forward(self, **inputs: torch.Tensor) -> Any:
        """The dual encoder's outputs for pages and texts."""
        return self.clip(**inputs)

    def reading_loss(self, outputs: Any, cells_BC: torch.Tensor) -> torch.Tensor:
        """Cross-entropy of the digits of B pages, read from patches, from the page's vector and from its text's.

        Args:
            outputs: of B pages and N texts, of which the first B are the pages' own.
            cells_BC: digit of each of C cells, :data:`EMPTY` where there is none.
        """
        patches_BCD = outputs.vision_model_output.last_hidden_state[:, 1:]
        vectors_2BD = torch.cat([outputs.image_embeds, outputs.text_embeds[: len(cells_BC)]])
        of_patches = self.patch_head(torch.nn.functional.layer_norm(patches_BCD, patches_BCD.shape[-1:]))
        # vectors of length 1 are small beside the weights of a new layer
        of_vectors = self.page_head(10 * vectors_2BD)
        return _cross_entropy(of_patches, cells_BC) + 2 * _cross_entropy(of_vectors, torch.cat([cells_BC] * 2))


class DescriptionCollator:
    """Make batches: pages, their descriptions, then `num_wrong` wrong ones of each page.

    Args:
        image_processor: makes `pixel_values`.
        tokenizer: makes `input_ids`.
        num_wrong: wrong descriptions of each page.
        seed: draws them; the n-th batch of two collators with one seed has the same.
    """

    def __init__(self, image_processor: Any, tokenizer: Any, num_wrong: int, seed: int = 0) -> None:
        self.image_processor, self.tokenizer, self.num_wrong = image_processor, tokenizer, num_wrong
        self.rng = random.Random(f"wrong descriptions-{seed}")

    def __call__(self, rows: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """Tensors of B pages and N = B (1 + num_wrong) texts.

        Returns:
            `pixel_values`, `input_ids`, `attention_mask`; `is_right`, B x N bool, which texts describe which page;
            `errors`, B x (1 + num_wrong), the number of words by which a page's own texts are wrong; and `cells`, B x
            16, what stands in each cell of the page.
        """
        captions = [row["caption"] for row in rows]
        wrong = [self._draw_wrong(caption) for caption in captions]
        texts = captions + [text for own in wrong for text in own]
        encoded = self.tokenizer(texts, padding=True, truncation=True, return_tensors="pt")
        pages = self.image_processor(images=[row["images"][0] for row in rows], return_tensors="pt")
        return {
            "pixel_values": pages["pixel_values"],
            "input_ids": encoded["input_ids"],
            "attention_mask": encoded["attention_mask"],
            "cells": torch.tensor([list_cells(caption) for caption in captions]),
            "is_right": torch.tensor([[text == caption for text in texts] for caption in captions]),
            "errors": torch.tensor(
                [
                    [0.0] + [float(count_errors(text, caption)) for text in own]
                    for caption, own in zip(captions, wrong, strict=True)
                ]
            ),
        }

    def _draw_wrong(self, caption: str) -> list[str]:
        """By turns a description with one error, one with several, and now and then one of no page."""
        texts = []
        for index in range(self.num_wrong):
            text = caption
            if index % 3 == 2 and self.rng.random() < 0.5:
                text = draw_foreign(self.rng)
            if text == caption:
                text = corrupt(caption, self.rng, self.rng.randint(2, MOST_EDITS) if index % 3 == 1 else 1)
            texts.append(text)
        return texts


def count_errors(text: str, caption: str) -> int:
    """Words to replace, drop or insert so that a description becomes the right one."""
    return Levenshtein.distance(text.split(), caption.split())


def list_cells(caption: str) -> list[int]:
    """What stands in each cell of the page of a right description, row by row; :data:`EMPTY` for nothing."""
    cells = []
    for line in caption.split(LINE_BREAK):
        words = [int(word) for word in line.split()]
        cells += words + [EMPTY] * (CELLS_PER_SIDE - len(words))
    return cells + [EMPTY] * (NUM_CELLS - len(cells))


class DualEncoderTrainer(Trainer):
    """transformers' Trainer for a :class:`Reader`.

    The loss is the sum of :func:`contrastive_loss`, :func:`error_loss` and the reader's own.

    Args:
        max_logit_scale: the learnt factor between cosines and logits stays below it.
        error_cost: see :func:`error_loss`.
        error_weight: weight of that loss.
        reading_weight: weight of :meth:`Reader.reading_loss`.
        kwargs: transformers' own.
    """

    def __init__(
        self, *, max_logit_scale: float, error_cost: float, error_weight: float, reading_weight: float, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.max_log_scale = math.log(max_logit_scale)
        self.error_cost, self.error_weight, self.reading_weight = error_cost, error_weight, reading_weight

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """The weighted sum of the losses."""
        is_right, errors, cells = (inputs.pop(name) for name in ("is_right", "errors", "cells"))
        reader = self.accelerator.unwrap_model(model)
        outputs = model(**inputs)
        cosines = outputs.image_embeds @ outputs.text_embeds.T
        scale = reader.clip.logit_scale.clamp(max=self.max_log_scale).exp()
        loss = contrastive_loss(scale * cosines, is_right)
        if self.error_weight:
            loss = loss + self.error_weight * error_loss(cosines, errors, self.error_cost)
        if self.reading_weight:
            loss = loss + self.reading_weight * reader.reading_loss(outputs, cells)
        return (loss, outputs) if return_outputs else loss


def contrastive_loss(logits_BN: torch.Tensor, is_right_BN: torch.Tensor) -> torch.Tensor:
    """CLIP's symmetric loss with further texts.

    Args:
        logits_BN: scaled cosines of B pages with N texts, of which the first B are the pages' own.
        is_right_BN: which texts describe which page. Pages may look alike by chance, and such a text is no negative.
    """
    num_pages = len(logits_BN)
    labels_B = torch.arange(num_pages, device=logits_BN.device)
    is_other = is_right_BN.clone()
    is_other[labels_B, labels_B] = False
    logits_BN = logits_BN.masked_fill(is_other, -math.inf)
    to_texts = torch.nn.functional.cross_entropy(logits_BN, labels_B)
    to_pages = torch.nn.functional.cross_entropy(logits_BN[:, :num_pages].T, labels_B)
    return (to_texts + to_pages) / 2


def error_loss(cosines_BN: torch.Tensor, errors_BT: torch.Tensor, cost: float) -> torch.Tensor:
    """Squared distance of the cosines of a page's own texts from 1 - cost * errors, or 0 if that is below it.

    Args:
        cosines_BN: of B pages with N texts: the pages' right ones, then T - 1 wrong ones of each page.
        errors_BT: how many errors they have, with the right ones first.
        cost: of an error.
    """
    num_pages, num_texts = errors_BT.shape
    pages_B = torch.arange(num_pages, device=cosines_BN.device)
    wrong_B1 = num_pages + pages_B[:, None] * (num_texts - 1)
    own_BT = torch.cat([pages_B[:, None], wrong_B1 + torch.arange(num_texts - 1, device=cosines_BN.device)], dim=1)
    targets_BT = (1 - cost * errors_BT).clamp(min=0)
    return (cosines_BN.gather(1, own_BT) - targets_BT).square().mean()


def _cross_entropy(logits: torch.Tensor, cells_BC: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.cross_entropy(logits.reshape(-1, EMPTY + 1), cells_BC.flatten())


def main(argv: Sequence[str] | None = None) -> str:
    """Run the command line; returns the folder of the final model.

    Raises:
        ValueError: something that the user can mend; the message says how.
    """
    recipe = read_recipe(sys.argv[1:] if argv is None else argv)
    if not torch.cuda.is_available():
        recipe.settings.setdefault("use_cpu", True)
    arguments, training = parse_recipe(recipe, (DualEncoderArguments, TrainingArguments))
    check_trackers(training.report_to)
    # the collator reads columns that the model does not take
    training.remove_unused_columns = False
    model, image_processor, tokenizer = new_dual_encoder(training.seed)
    trainer = DualEncoderTrainer(
        model=Reader(model),
        args=training,
        train_dataset=digits.rows("warm_up", arguments.num_pages, training.seed, objects=OBJECTS).select_columns(
            ["images", "caption"]
        ),
        data_collator=DescriptionCollator(image_processor, tokenizer, arguments.num_wrong, training.seed),
        max_logit_scale=arguments.max_logit_scale,
        error_cost=arguments.error_cost,
        error_weight=arguments.error_weight,
        reading_weight=arguments.reading_weight,
    )
    trainer.train()
    final = Path(training.output_dir) / "final"
    for part in (model, image_processor, tokenizer):
        part.save_pretrained(final)
    say(f"model    {final}")
    return str(final)


def run_command_line() -> None:
    """Entry point: messages instead of tracebacks for what a user can mend."""
    if {"-h", "--help"} & set(sys.argv[1:]):
        further = "Every key of transformers' TrainingArguments is allowed too: see --help_all."
        print_help("open_r1_vision.starter.train_dual_encoder", [DualEncoderArguments], __doc__, further)
        return
    if {"--help_all", "--help-all"} & set(sys.argv[1:]):
        print_all_help("open_r1_vision.starter.train_dual_encoder", [DualEncoderArguments, TrainingArguments])
        return
    try:
        main()
    except ValueError as error:
        refuse(error)


if __name__ == "__main__":
    run_command_line()
