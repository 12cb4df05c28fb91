# SPDX-License-Identifier: Apache-2.0
"""What is packed where, on batches of made-up tokens."""

import pytest
import torch

from open_r1_vision.shared_prefix import pack

# prompts 11 12 13 and 21 22, padded on the left; completions padded on the right
INPUTS = {
    "input_ids": torch.tensor(
        [[11, 12, 13, 1, 2, 3], [0, 21, 22, 4, 0, 0], [11, 12, 13, 5, 0, 0], [0, 21, 22, 6, 7, 0]]
    ),
    "attention_mask": torch.tensor([[1, 1, 1, 1, 1, 1], [0, 1, 1, 1, 0, 0], [1, 1, 1, 1, 0, 0], [0, 1, 1, 1, 1, 0]]),
}


def positions(input_ids, attention_mask, **others):
    return attention_mask.cumsum(-1) - 1


def packed(num_images=None, **changes):
    return pack({**INPUTS, **changes}, 3, num_images, positions, "sdpa")


def test_tokens_positions_and_labels():
    result = packed()
    # 13 and 22 stand before each completion, and no completion's last token is needed
    assert result.inputs["input_ids"].tolist() == [[11, 12, 13, 1, 2, 13, 21, 22, 22, 6]]
    assert result.inputs["position_ids"].tolist() == [[0, 1, 2, 3, 4, 2, 0, 1, 1, 2]]
    assert result.inputs["attention_mask"].shape == (1, 1, 1, 0)
    assert result.labels.tolist() == [[1, 2, 3, 5, 4, 6, 7]]
    assert result.rows.tolist() == [0, 0, 0, 2, 1, 3, 3]
    assert result.columns.tolist() == [0, 1, 2, 0, 0, 0, 1]
    assert result.share_saved == pytest.approx(1 - 10 / 17)
    layout = result.inputs["shared_prefix"]
    assert layout.scored.tolist() == [2, 3, 4, 5, 7, 8, 9]
    first, second = layout.groups
    assert (first.start, first.prefix, first.lengths, first.end) == (0, 2, (3, 1), 6)
    assert first.places.tolist() == [0, 1, 2, 3]
    assert (second.start, second.prefix, second.lengths, second.end) == (6, 1, (1, 2), 10)
    assert second.places.tolist() == [0, 2, 3]


def test_values_go_back_to_their_places():
    result = packed()
    values = torch.arange(1.0, 8.0, requires_grad=True)
    unpacked = result.unpack(values[None])
    assert unpacked.tolist() == [[1, 2, 3], [5, 0, 0], [4, 0, 0], [6, 7, 0]]
    (unpacked**2).sum().backward()
    assert values.grad.tolist() == [2.0 * k for k in range(1, 8)]


def test_positions_with_three_axes():
    def three(**inputs):
        return torch.stack([positions(**inputs) + 10 * axis for axis in range(3)])

    result = pack(INPUTS, 3, None, three, "sdpa")
    assert result.inputs["position_ids"].shape == (3, 1, 10)
    assert result.inputs["position_ids"][2, 0].tolist() == [20, 21, 22, 23, 24, 22, 20, 21, 21, 22]


def test_images_tell_prompts_apart():
    grid = torch.tensor([[1, 1, 2]] * 3)
    types = torch.zeros(4, 6, dtype=torch.long)
    pixels = torch.tensor([1.0, 2.0, 1.0, 2.0, 1.0, 3.0])[:, None]
    images = {"image_grid_thw": grid, "mm_token_type_ids": types}
    result = packed(num_images=[1, 0, 1, 1], pixel_values=pixels, **images)
    # rows 0 and 2 have the same image; row 3 has one, which row 1 has not
    assert result.inputs["pixel_values"][:, 0].tolist() == [1, 2, 1, 3]
    assert result.inputs["image_grid_thw"].shape == (2, 3)
    assert [group.lengths for group in result.inputs["shared_prefix"].groups] == [(3, 1), (1,), (2,)]
    pixels = torch.arange(6.0)[:, None]
    assert packed(num_images=[1, 0, 1, 1], pixel_values=pixels, **images) is None


@pytest.mark.parametrize(
    ("inputs", "num_images"),
    [
        ({"input_ids": INPUTS["input_ids"][:2], "attention_mask": INPUTS["attention_mask"][:2]}, None),
        ({"attention_mask": torch.tensor([[1, 1, 1, 0, 0, 0]] * 4)}, None),
        ({"attention_mask": torch.tensor([[1, 1, 1, 0, 1, 0]] * 4)}, None),
        ({"attention_mask": torch.tensor([[1, 1, 0, 1, 1, 0]] * 4)}, None),
        ({"attention_mask": torch.tensor([[1, 0, 1, 1, 1, 0]] * 4)}, None),
        ({"mm_token_type_ids": torch.tensor([[0, 0, 0, 0, 1, 0]] * 4)}, None),
        ({"mm_token_type_ids": torch.tensor([[0, 0, 1, 0, 0, 0]] * 4)}, None),
        ({"pixel_attention_mask": torch.ones(4)}, None),
    ],
    ids=[
        "nothing shared",
        "nothing scored",
        "a gap in a completion",
        "a prompt padded on the right",
        "a gap in a prompt",
        "an image in a completion",
        "an image ends the prompt",
        "an input of unknown meaning",
    ],
)
def test_what_is_not_packed(inputs, num_images):
    assert packed(num_images, **inputs) is None
