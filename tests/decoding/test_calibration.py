# SPDX-License-Identifier: Apache-2.0
"""Settings, and the formula worked out by hand."""

import math

import pytest
import torch

from open_r1_vision.decoding import Calibration, calibrate_logits


def test_the_formula():
    image = torch.tensor([[2.0, 1.0, 0.0], [0.0, 4.0, 1.0]])
    text = torch.tensor([[1.0, 1.0, 1.0], [2.0, 2.0, 2.0]])
    # 1.5 * 2 - 0.5 * 1 = 2.5, ...
    assert calibrate_logits(image, text, 0.5).tolist() == [[2.5, 1.0, -0.5], [-1.0, 5.0, 0.5]]


def test_half_precision_is_mixed_in_float32():
    image, text = torch.tensor([[1.0078125]]), torch.tensor([[1.0]])
    mixed = calibrate_logits(image.bfloat16(), text.bfloat16(), 0.1)
    assert mixed.dtype == torch.float32
    assert mixed.item() == pytest.approx(1.00859375, abs=1e-6)  # bfloat16 has nothing between 1.0078125 and 1.015625


def test_tokens_under_a_share_of_the_image_streams_top_are_left_out():
    # probabilities in proportion 1 : 0.4 : 0.3 : 0.2; calibration alone would choose the last
    image = torch.tensor([[1.0, 0.4, 0.3, 0.2]]).log()
    text = torch.tensor([[0.0, 0.0, 0.0, -9.0]])
    assert calibrate_logits(image, text, 1.0).argmax() == 3
    mixed = calibrate_logits(image, text, 1.0, plausibility=0.3 - 1e-6)
    kept = [2 * math.log(share) for share in (1.0, 0.4, 0.3)]
    assert mixed[0, :3].tolist() == pytest.approx(kept, abs=1e-6)
    assert mixed.softmax(-1)[0, 3] == 0
    assert calibrate_logits(image, text, 1.0, plausibility=0.3 + 1e-6).softmax(-1)[0, 2:].tolist() == [0, 0]


def test_where_every_plausible_token_is_barred_the_image_stream_decides():
    image = torch.tensor([[5.0, 2.0, 3.0]])
    mixed = calibrate_logits(image, torch.tensor([[600.0, -50.0, 0.0]]), 100.0, plausibility=0.9)
    assert mixed[0].isfinite().all()
    assert mixed[0].argsort(descending=True).tolist() == [0, 2, 1]


@pytest.mark.parametrize("scale", [-0.1, math.nan, math.inf, "0.8", None])
def test_a_scale_that_is_no_weight(scale):
    with pytest.raises(ValueError, match="scale is .* must be a finite number of at least 0: set 0 for plain"):
        Calibration(scale)


@pytest.mark.parametrize("plausibility", [-0.1, 1, 1.5, math.nan])
def test_a_plausibility_that_is_no_share(plausibility):
    with pytest.raises(ValueError, match="plausibility is .* set a number of at least 0 and below 1"):
        Calibration(0.8, plausibility=plausibility)


@pytest.mark.parametrize("span", ["caption", "<info>", ""])
def test_an_unknown_span(span):
    with pytest.raises(ValueError, match="span is .* set one of info, think, answer, without brackets, or None"):
        Calibration(0.8, span=span)


@pytest.mark.parametrize("settings", [{"plausibility": 0.1}, {"span": "info"}])
def test_settings_without_effect_are_mentioned(settings, caplog):
    Calibration(0.0)
    Calibration(0.8, **settings)
    assert not caplog.records
    Calibration(0.0, **settings)
    assert "no effect while scale is 0" in caplog.text
