# SPDX-License-Identifier: Apache-2.0
import io

import pytest
import torch
from dual_encoders import SIDE, FineModel, save_clip, save_siglip
from PIL import Image
from tiny_models import image
from transformers import CLIPModel, LlamaConfig, SiglipModel

from open_r1_vision import dual_encoder
from open_r1_vision.dual_encoder import DualEncoder, load_dual_encoder
from open_r1_vision.rewards import clip_reward


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return save_clip(tmp_path_factory.mktemp("clip"))


@pytest.fixture(scope="module")
def siglip(tmp_path_factory):
    return save_siglip(tmp_path_factory.mktemp("siglip"))


def describe(text):
    return f"### Image Description:\n{text}\n### Rationales: r\n### Step 1: s\n### The final answer is: 7"


def cosine(folder, model_class, picture, text, length=20):
    """By hand: squash, scale to [-1, 1], bytes padded with the end, two forward passes."""
    model = model_class.from_pretrained(folder)
    pixels = torch.tensor(list(picture.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BICUBIC).tobytes()))
    pixels = pixels.view(SIDE, SIDE, 3).permute(2, 0, 1)[None] / 127.5 - 1
    ids = dual_encoder.AutoTokenizer.from_pretrained(folder)(text).input_ids[:length]
    mask = torch.tensor([[1] * len(ids) + [0] * (length - len(ids))])
    ids = torch.tensor([ids + [256] * (length - len(ids))])
    with torch.no_grad():
        one = model.get_image_features(pixels).pooler_output[0]
        other = model.get_text_features(ids, attention_mask=mask).pooler_output[0]
    return (one @ other / one.norm() / other.norm()).item()


def gradient(index, width=40, height=24):
    return Image.linear_gradient("L").resize((width, height)).rotate(30 * index).convert("RGB")


def test_the_encoder_is_loaded_whole_beside_a_sharded_policy(tmp_path):
    """As in the recipes of PeBR-R1; DeepSpeed would cut it, and only some processes may score a description."""
    from transformers.integrations import HfDeepSpeedConfig, is_deepspeed_zero3_enabled

    folder = save_clip(tmp_path)
    sharded = HfDeepSpeedConfig({"zero_optimization": {"stage": 3}, "train_micro_batch_size_per_gpu": 1})
    got = clip_reward([describe("a ramp")], [[gradient(0)]], encoder=folder, scale=1)
    model = load_dual_encoder(folder, None, "float32").model
    assert all(parameter.numel() and not hasattr(parameter, "ds_id") for parameter in model.parameters())
    assert is_deepspeed_zero3_enabled()
    del sharded
    assert got == pytest.approx([cosine(folder, CLIPModel, gradient(0), "a ramp")], abs=1e-5)


@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_the_cosine_is_that_of_two_forward_passes(kind, request):
    folder, model_class = request.getfixturevalue(kind), {"clip": CLIPModel, "siglip": SiglipModel}[kind]
    pictures = [gradient(0), gradient(1), image(3)]
    texts = ["a ramp", "seven dots, and more than the twenty tokens there are", "a ramp"]
    wanted = [cosine(folder, model_class, *pair) for pair in zip(pictures, texts, strict=True)]
    assert max(wanted) - min(wanted) > 0.01
    completions = [describe(text) for text in texts]
    images = [[picture] for picture in pictures]
    for batch_size in (1, 2, 32):
        got = clip_reward(completions, images, encoder=folder, scale=1, batch_size=batch_size)
        assert got == pytest.approx(wanted, abs=1e-5)


def test_scale_and_floor(clip):
    raw = clip_reward([describe("a ramp")], [[gradient(0)]], encoder=clip, scale=1)[0]

    def reward(**options):
        return clip_reward([describe("a ramp")], [[gradient(0)]], encoder=clip, **options)[0]

    assert reward() == pytest.approx(min(1, raw / 0.4))
    assert reward(scale=abs(raw) / 2) == (1 if raw > 0 else pytest.approx(-2))
    assert reward(scale=1, floor=0.999) == 0.999
    assert reward(scale=1, floor=-1) == pytest.approx(raw)


def test_rows_without_image_or_description(clip):
    completions = [describe("a"), "no headers", describe(" "), describe("b"), "no headers"]
    rewards = clip_reward(completions, [[], [image()], [image()], None, []], encoder=clip)
    assert rewards == [None, 0.0, 0.0, None, None]
    tagged = [{"role": "assistant", "content": "<info> a ramp </info>"}]
    by_tags = clip_reward([tagged], [[image()]], encoder=clip, description_form="tags")
    assert by_tags == clip_reward([describe("a ramp")], [[image()]], encoder=clip) != [0.0]


def test_several_images(clip):
    completions, images = [describe("a ramp")] * 2, [[gradient(0), gradient(1)], [gradient(1)]]
    one, other = clip_reward(completions, [[gradient(0)], [gradient(1)]], encoder=clip, scale=1)
    assert clip_reward(completions, images, encoder=clip, scale=1) == pytest.approx([one, other])
    mean = clip_reward(completions, images, encoder=clip, scale=1, use_images="mean")
    assert mean == pytest.approx([(one + other) / 2, other])


def test_images_in_every_form_that_a_row_may_have(clip, tmp_path):
    picture = gradient(1)
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    picture.save(tmp_path / "page.png")
    forms = [picture, {"bytes": buffer.getvalue(), "path": None}, str(tmp_path / "page.png"), picture.convert("RGBA")]
    rewards = clip_reward([describe("a ramp")] * 4, [[form] for form in forms], encoder=clip)
    assert rewards == [rewards[0]] * 4


def test_squash_keeps_the_edges(clip):
    """CLIP's own processor cuts a wide page to its middle."""
    wide = Image.new("RGB", (64, 16), "white")
    marked = wide.copy()
    marked.paste("black", (0, 0, 16, 16))

    def rewards(**options):
        return clip_reward([describe("a")] * 2, [[wide], [marked]], encoder=clip, scale=1, **options)

    one, other = rewards(squash=False)
    assert one == other
    one, other = rewards()
    assert one != other


def test_a_model_is_loaded_once_and_repeats_are_encoded_once(clip, monkeypatch):
    dual = load_dual_encoder(clip, None, "float32")
    assert load_dual_encoder(clip, "cpu", "float32") is dual
    sizes = []
    encode_images, encode_texts = dual._encode_images, dual._encode_texts
    monkeypatch.setattr(
        dual, "_encode_images", lambda batch, squash: (sizes.append(len(batch)), encode_images(batch, squash))[1]
    )
    monkeypatch.setattr(
        dual, "_encode_texts", lambda batch, length: (sizes.append(len(batch)), encode_texts(batch, length))[1]
    )
    clip_reward([describe("a"), describe("b")] * 4, [[gradient(0)]] * 8, encoder=clip)
    assert sizes == [1, 2]
    assert not any(parameter.requires_grad for parameter in dual.model.parameters())


def test_long_texts_take_the_long_branch(clip):
    plain = load_dual_encoder(clip, None, "float32")
    dual = DualEncoder(FineModel.from_pretrained(clip), plain.image_processor, plain.tokenizer)
    (got,) = dual.cosines([(gradient(0), "a ramp")])
    assert (dual.model.walked_short, dual.model.num_tokens) == (False, 248)
    assert -1 <= got <= 1
    dual.cosines([(gradient(0), "a ramp")], max_tokens=30)
    assert dual.model.num_tokens == 30


def test_what_is_no_dual_encoder(clip, tmp_path, tiny_model):
    def refuse(match, **options):
        with pytest.raises(ValueError, match=match):
            clip_reward([describe("a")], [[image()]], **options)

    refuse("clip_reward has no `encoder`: set reward_kwargs")
    refuse("(?s)No dual encoder could be loaded from .*nowhere.*Set `encoder` to", encoder=str(tmp_path / "nowhere"))
    refuse("holds a Qwen2_5_VL.*has no get_text_features.*set `encoder` to", encoder=tiny_model)
    LlamaConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1, vocab_size=9).save_pretrained(tmp_path)
    refuse("(?s)No dual encoder could be loaded", encoder=str(tmp_path))
    CLIPModel.from_pretrained(clip).save_pretrained(tmp_path / "bare")
    refuse("(?s)has weights, but its image processor.*copy", encoder=str(tmp_path / "bare"))
    refuse("dtype is 'float33', which torch does not know", encoder=clip, dtype="float33")
    refuse("scale is 0, but the cosine is divided by it", encoder=clip, scale=0)
    refuse("floor is 2, but no", encoder=clip, floor=2)
    refuse("use_images is 'last': set it to first or mean", encoder=clip, use_images="last")
    refuse("description_form is 'box': set it to sections or tags", encoder=clip, description_form="box")
