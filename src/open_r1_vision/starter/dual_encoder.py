# SPDX-License-Identifier: Apache-2.0
"""The starter's dual encoder: CLIP's architecture at 1.7 million parameters, for pages of digits and descriptions.

`dual_encoder()` is the folder of the one that ships with the package, for `clip_reward`; recipes name it by its dotted
path. `corrupt` makes the wrong descriptions that it was trained to tell from right ones.
"""

import random
from collections.abc import Callable

import torch
from tokenizers import pre_tokenizers, processors
from transformers import CLIPConfig, CLIPModel, PreTrainedTokenizerFast
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from open_r1_vision.starter import digits
from open_r1_vision.starter.model import VOCABULARY_SIZE, build_tokenizer, find_shipped
from open_r1_vision.starter.page import CELL_PIXELS, LONGEST_CAPTION, PAGE_PIXELS, draw_cells

LINE_BREAK = ";"
#: Tokens of a description that are read, its end included: 8 digits and 3 line breaks take 12.
MAX_TOKENS = 32
#: Beyond one error per description: the cosine is to fall with the number of errors.
MOST_EDITS = 4


def dual_encoder() -> str:
    """Folder of the dual encoder that `recipes/starter/dual_encoder.yaml` made."""
    command = "python -m open_r1_vision.starter.train_dual_encoder --config recipes/starter/dual_encoder.yaml"
    return find_shipped("encoder", "dual encoder", command)


def new_dual_encoder(seed: int = 0) -> tuple[CLIPModel, CLIPImageProcessorPil, PreTrainedTokenizerFast]:
    """A model with weights drawn from `seed`, its image processor and its tokenizer."""
    tokenizer = build_description_tokenizer()
    torch.manual_seed(seed)
    return CLIPModel(build_config(tokenizer)), build_image_processor(), tokenizer


def build_config(tokenizer: PreTrainedTokenizerFast) -> CLIPConfig:
    """Shape of the model: a patch is a cell of the page, so a digit lies in one patch."""
    end = tokenizer.eos_token_id
    return CLIPConfig(
        text_config={
            "vocab_size": VOCABULARY_SIZE,
            "hidden_size": 128,
            "intermediate_size": 384,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "max_position_embeddings": MAX_TOKENS,
            # CLIP draws the weights of its layers by their width, but the embeddings of tokens and positions with
            # 0.02 times this factor, whatever the width: too little beside what the layers add
            "initializer_factor": 3.0,
            "bos_token_id": end,
            "eos_token_id": end,
            "pad_token_id": end,
        },
        vision_config={
            "hidden_size": 160,
            "intermediate_size": 512,
            "num_hidden_layers": 3,
            "num_attention_heads": 5,
            "image_size": PAGE_PIXELS,
            "patch_size": CELL_PIXELS,
            "initializer_range": 0.06,
        },
        projection_dim=128,
    )


def build_image_processor() -> CLIPImageProcessorPil:
    """CLIP's own processor; pages pass it at their size."""
    return CLIPImageProcessorPil(
        size={"shortest_edge": PAGE_PIXELS},
        crop_size={"height": PAGE_PIXELS, "width": PAGE_PIXELS},
        # white paper becomes 0, so that an empty cell says nothing
        image_mean=[1.0, 1.0, 1.0],
        image_std=[0.5, 0.5, 0.5],
    )


def build_description_tokenizer() -> PreTrainedTokenizerFast:
    """The policy's vocabulary, for texts that stand alone.

    A description that was cut out of a completion begins without a blank; one is put before it, so that its first
    digit is the same token as every other. The end is marked, for that is where CLIP pools.
    """
    tokenizer = build_tokenizer()
    inner = tokenizer.backend_tokenizer
    # not <|im_end|>, whose id is 2: with that one transformers pools at the largest id, as old CLIP configs need
    end = tokenizer.pad_token
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    inner.post_processor = processors.TemplateProcessing(
        single=f"$A {end}", special_tokens=[(end, tokenizer.pad_token_id)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, eos_token=end, pad_token=end, padding_side="right", model_max_length=MAX_TOKENS
    )


def corrupt(caption: str, rng: random.Random, edits: int = 1) -> str:
    """A description with `edits` random changes, which is never the right one.

    Args:
        caption: digits and line breaks, separated by blanks.
        rng: draws the changes.
        edits: how many changes; some may undo others, but never all of them.

    Raises:
        ValueError: there is nothing to change, or no change is asked for.
    """
    words = caption.split()
    if edits < 1 or not set(words) - {LINE_BREAK}:
        raise ValueError(
            f"The description {caption!r} can't be given {edits} errors: pass one with a digit, and at least 1 edit."
        )
    while True:
        wrong = words
        for _ in range(edits):
            wrong = rng.choice(_EDITS)(list(wrong), rng)
        if wrong != words:
            return " ".join(wrong)


def replace_digit(words: list[str], rng: random.Random) -> list[str]:
    """The words with another digit in a digit's place; unchanged where there is none."""
    places = _digit_places(words)
    if places:
        place = rng.choice(places)
        words[place] = rng.choice([digit for digit in "0123456789" if digit != words[place]])
    return words


def drop_digit(words: list[str], rng: random.Random) -> list[str]:
    """The words without one of the digits, and without the line break that then has nothing on one side."""
    places = _digit_places(words)
    if len(places) < 2:
        return words
    del words[rng.choice(places)]
    return _tidy(words)


def insert_digit(words: list[str], rng: random.Random) -> list[str]:
    """The words with a digit more; a digit of the page is doubled half of the time."""
    place = rng.randint(0, len(words))
    near = [words[index] for index in (place - 1, place) if 0 <= index < len(words) and words[index] != LINE_BREAK]
    digit = rng.choice(near) if near and rng.random() < 0.5 else str(rng.randint(0, 9))
    return [*words[:place], digit, *words[place:]]


def swap_digits(words: list[str], rng: random.Random) -> list[str]:
    """The words with two digits in each other's place."""
    places = _digit_places(words)
    if len(places) >= 2:
        first, second = rng.sample(places, 2)
        words[first], words[second] = words[second], words[first]
    return words


def change_lines(words: list[str], rng: random.Random) -> list[str]:
    """The words with a line break taken away, put in, or moved by a word."""
    breaks = [place for place, word in enumerate(words) if word == LINE_BREAK]
    kind = rng.choice(("join", "split", "move"))
    if kind == "split" or not breaks:
        return _tidy(_insert(words, rng.randint(1, len(words)), LINE_BREAK))
    place = rng.choice(breaks)
    del words[place]
    return words if kind == "join" else _tidy(_insert(words, place + rng.choice((-1, 1)), LINE_BREAK))


def draw_foreign(rng: random.Random) -> str:
    """A text that describes no page, or another one: what a policy might try on any page."""
    kind = rng.randrange(6)
    if kind == 0:
        return " ".join("0123456789")
    if kind == 1:
        return " ".join([str(rng.randint(0, 9))] * rng.randint(1, 2 * LONGEST_CAPTION))
    if kind == 2:
        return rng.choice(("", LINE_BREAK, ".", "digits", "the digits", "What is the sum of the digits?"))
    if kind == 3:
        return " ".join(str(rng.randint(0, 9)) for _ in range(rng.randint(1, 2 * LONGEST_CAPTION)))
    cells = draw_cells(rng, rng.randint(2, LONGEST_CAPTION))
    return " ; ".join(digits.describe([rng.randint(0, 9) for _ in cells], cells))


_EDITS: tuple[Callable[[list[str], random.Random], list[str]], ...] = (
    # what a policy that reads badly does most
    *(replace_digit, replace_digit, replace_digit),
    *(drop_digit, insert_digit, swap_digits, change_lines),
)


def _digit_places(words: list[str]) -> list[int]:
    return [place for place, word in enumerate(words) if word != LINE_BREAK]


def _insert(words: list[str], place: int, word: str) -> list[str]:
    return [*words[:place], word, *words[place:]]


def _tidy(words: list[str]) -> list[str]:
    """The words without line breaks that end no line: at the start, at the end, or after another."""
    kept: list[str] = []
    for word in words:
        if word != LINE_BREAK or (kept and kept[-1] != LINE_BREAK):
            kept.append(word)
    return kept[:-1] if kept and kept[-1] == LINE_BREAK else kept
