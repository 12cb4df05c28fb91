# SPDX-License-Identifier: Apache-2.0
"""How well a completion's description fits its image, by a dual encoder.

PeBR-R1 (arXiv 2509.13031): r_clip = min(1, s / 0.4), where s is the cosine of the image's and the description's
embeddings by FG-CLIP. In [-2.5, 1], weight 0.4 in the perception stage; `floor` cuts it off below. 0 for a completion
without a description, None for a row without an image.

FG-CLIP (`qihoo360/fg-clip-large`) brings its own code (`trust_remote_code`); any model with `get_image_features` and
`get_text_features` will do, such as CLIP and SigLIP, but their cosines are lower: SigLIP's seldom reach 0.2, so set
`scale` to what good descriptions get. Descriptions are cut at the text encoder's length, see `dual_encoder.py`.

Two defects of the authors' code are not shared: there any failure makes 0, and an empty description is scored.
"""

from collections.abc import Iterator, Sequence
from statistics import fmean
from typing import Any

from open_r1_vision.rewards.answers import Completion, completion_text
from open_r1_vision.rewards.headers import check_description_form, extract_description

IMAGES = ("first", "mean")


def clip_reward(
    completions: Sequence[Completion],
    images: Sequence[Sequence[Any] | None],
    *,
    encoder: str | None = None,
    scale: float = 0.4,
    floor: float | None = None,
    use_images: str = "first",
    description_form: str = "sections",
    device: str | None = None,
    dtype: str = "float32",
    batch_size: int = 32,
    max_tokens: int | None = None,
    squash: bool = True,
    trust_remote_code: bool = False,
    **columns: Any,
) -> list[float | None]:
    """Reward completions by the cosine of their description and their image.

    Args:
        completions: strings or TRL's message lists, one for each row.
        images: the images of each row; None or empty where there are none.
        encoder: folder, hub id, or dotted path of a function that returns a folder, of the dual encoder. It is loaded
            once in a process.
        scale: the cosine from which on a description earns 1.
        floor: the least that a description earns; None for no limit.
        use_images: `first` compares with the first image, as the authors do; `mean` takes the mean cosine of all.
        description_form: where the description stands, see `headers.extract_description`.
        device: where the encoder runs, such as `cuda:7` or `cpu`; by default where the policy is trained.
        dtype: of the encoder's weights.
        batch_size: images or texts that are encoded together.
        max_tokens: of a description, if not those that the encoder was made for.
        squash: make every image a square of the encoder's size first, as FG-CLIP's and SigLIP's do; otherwise the
            encoder's own processor may cut its edges off, as CLIP's does.
        trust_remote_code: whether code that the encoder's folder holds may run.
        columns: further columns of the rows; not used.

    Returns:
        A number up to 1 for each completion; None for a row without an image.

    Raises:
        ValueError: an option that can't work, or a folder that holds no dual encoder.
    """
    _check(encoder, scale, floor, use_images)
    check_description_form(description_form)
    texts = [extract_description(completion_text(completion), description_form) for completion in completions]
    pictures = [list(row or ())[: None if use_images == "mean" else 1] for row in images]
    pairs = [(picture, text) for text, row in zip(texts, pictures, strict=True) if text is not None for picture in row]
    cosines: Iterator[float] = iter(())
    if pairs:
        from open_r1_vision.dual_encoder import load_dual_encoder  # rewards import without torch

        dual = load_dual_encoder(encoder or "", device, dtype, trust_remote_code)
        cosines = iter(dual.cosines(pairs, batch_size=batch_size, max_tokens=max_tokens, squash=squash))
    rewards: list[float | None] = []
    for text, row in zip(texts, pictures, strict=True):
        if not row:
            rewards.append(None)
        elif text is None:
            rewards.append(0.0)
        else:
            reward = min(1.0, fmean(next(cosines) for _ in row) / scale)
            rewards.append(reward if floor is None else max(floor, reward))
    return rewards


def check_clip_reward(
    *,
    encoder: str | None = None,
    scale: float = 0.4,
    floor: float | None = None,
    use_images: str = "first",
    description_form: str = "sections",
    device: str | None = None,
    dtype: str = "float32",
    trust_remote_code: bool = False,
    **others: Any,
) -> None:
    """Check the settings of :func:`clip_reward` and load its encoder, which rewards then find loaded.

    Raises:
        ValueError: see :func:`clip_reward`.
    """
    _check(encoder, scale, floor, use_images)
    check_description_form(description_form)
    from open_r1_vision.dual_encoder import load_dual_encoder  # rewards import without torch

    load_dual_encoder(encoder or "", device, dtype, trust_remote_code)


clip_reward.check = check_clip_reward  # type: ignore[attr-defined]


def _check(encoder: str | None, scale: float, floor: float | None, use_images: str) -> None:
    if not encoder:
        raise ValueError(
            "clip_reward has no `encoder`: set reward_kwargs: {open_r1_vision.rewards.clip_reward: {encoder: FOLDER}}"
            ", with the folder or hub id of FG-CLIP, SigLIP or CLIP."
        )
    if not scale > 0:
        raise ValueError(f"scale is {scale}, but the cosine is divided by it: set it above 0.")
    if floor is not None and not floor <= 1:
        raise ValueError(f"floor is {floor}, but no description earns more than 1: set it to 1 or less.")
    if use_images not in IMAGES:
        raise ValueError(f"use_images is {use_images!r}: set it to {' or '.join(IMAGES)}.")
