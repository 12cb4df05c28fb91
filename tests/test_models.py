# SPDX-License-Identifier: Apache-2.0
import json
import shutil
from pathlib import Path

import pytest
import torch
import transformers
from tiny_models import build_tokenizer, image
from transformers import AutoModelForImageTextToText, LlamaConfig, ProcessorMixin
from transformers.utils import is_torchvision_available

from open_r1_vision import models
from open_r1_vision.models import find_model, load_processor, save_processor, without_video

CLASSES = {"qwen2_vl": "Qwen2VLProcessor", "qwen2_5_vl": "Qwen2_5_VLProcessor", "qwen3_vl": "Qwen3VLProcessor"}
CHAT = [{"role": "user", "content": [{"type": "image", "image": image()}, {"type": "text", "text": "How many?"}]}]


def encode(processor, chat=CHAT):
    return processor.apply_chat_template(
        [chat], add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
    )


@pytest.fixture
def no_torchvision(monkeypatch):
    monkeypatch.setattr(models, "is_torchvision_available", lambda: False)


@pytest.mark.parametrize("architecture", CLASSES)
def test_a_processor_without_torchvision(model_folder, no_torchvision, architecture):
    folder = model_folder(architecture)
    processor = load_processor(folder)
    assert isinstance(processor, getattr(transformers, CLASSES[architecture]))
    assert type(processor).__name__ == CLASSES[architecture]
    assert processor.tokenizer.padding_side == "left"
    inputs = encode(processor)
    # 56 x 56 pixels are 4 x 4 patches of 14, or after rounding to 64 of 16; four patches make a token
    assert inputs["image_grid_thw"].tolist() == [[1, 4, 4]]
    assert (inputs["input_ids"] == processor.image_token_id).sum() == 4
    model = AutoModelForImageTextToText.from_pretrained(folder)
    with torch.inference_mode():
        assert model(**inputs).logits.shape[:2] == inputs["input_ids"].shape


def test_a_processor_saved_and_loaded_again(any_model, no_torchvision, tmp_path):
    processor = load_processor(any_model)
    save_processor(processor, any_model, str(tmp_path))
    shutil.copy(Path(any_model) / "config.json", tmp_path)
    again = load_processor(str(tmp_path))
    for name, value in encode(processor).items():
        assert torch.equal(value, encode(again)[name]), name
    saved = json.loads((tmp_path / "processor_config.json").read_text())
    assert saved["processor_class"] == type(processor).__name__


def test_pixel_limits(tiny_model):
    chat = [{"role": "user", "content": [{"type": "image", "image": image(0, 84, 84)}]}]
    # 84 x 84 pixels are 6 x 6 patches; at most 56 x 56 are 4 x 4, at least 112 x 112 are 8 x 8
    for limits, side in (((None, None), 6), ((None, 56 * 56), 4), ((112 * 112, 200 * 200), 8)):
        assert encode(load_processor(tiny_model, *limits), chat)["image_grid_thw"].tolist() == [[1, side, side]]


@pytest.fixture
def bare(tiny_model, tmp_path):
    """A model folder without the processor's files."""
    for name in ("config.json", "model.safetensors"):
        shutil.copy(Path(tiny_model) / name, tmp_path)
    return tmp_path


def test_a_folder_without_processor(bare):
    with pytest.raises(
        ValueError,
        match="No processor of a vision-language model could be loaded from .*A model folder must hold the files that "
        "`processor.save_pretrained` writes",
    ):
        load_processor(str(bare))


def test_a_folder_with_a_tokenizer_alone(bare):
    build_tokenizer().save_pretrained(bare)
    with pytest.raises(ValueError, match="No processor of a vision-language model could be loaded from"):
        load_processor(str(bare))


def test_a_text_model(tmp_path):
    LlamaConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, vocab_size=300).save_pretrained(tmp_path)
    build_tokenizer().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="handles text only|no processor for the architecture 'llama'"):
        load_processor(str(tmp_path))


def test_no_folder():
    with pytest.raises(ValueError, match="No processor .* could be loaded from '/nowhere'"):
        load_processor("/nowhere")


def test_saving_keeps_the_video_settings(tiny_model, tmp_path):
    source = tmp_path / "source"
    shutil.copytree(tiny_model, source)
    settings = source / "video_preprocessor_config.json"
    settings.write_text('{"fps": 3}')
    save_processor(load_processor(str(source)), str(source), str(tmp_path / "a"))
    if not is_torchvision_available():
        assert (tmp_path / "a" / "video_preprocessor_config.json").read_text() == '{"fps": 3}'
    # what is there already stays
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "video_preprocessor_config.json").write_text('{"fps": 4}')
    save_processor(without_video_of(source), str(source), str(tmp_path / "b"))
    assert (tmp_path / "b" / "video_preprocessor_config.json").read_text() == '{"fps": 4}'


def without_video_of(folder):
    return without_video(transformers.Qwen2_5_VLProcessor).from_pretrained(folder)


def test_video_settings_inside_the_processors_own_file(tiny_model, tmp_path, no_torchvision):
    """Newer folders hold them in processor_config.json."""
    source = tmp_path / "source"
    shutil.copytree(tiny_model, source)
    path = source / "processor_config.json"
    settings = json.loads(path.read_text())
    settings["video_processor"] = {"fps": 3, "video_processor_type": "Qwen2VLVideoProcessor"}
    path.write_text(json.dumps(settings))
    save_processor(load_processor(str(source)), str(source), str(tmp_path / "saved"))
    saved = json.loads((tmp_path / "saved" / "processor_config.json").read_text())
    assert saved["video_processor"] == settings["video_processor"]


def test_without_video_is_one_class_for_each():
    changed = without_video(transformers.Qwen3VLProcessor)
    assert changed is without_video(transformers.Qwen3VLProcessor)
    assert issubclass(changed, transformers.Qwen3VLProcessor)
    assert issubclass(changed, ProcessorMixin)
    assert sorted(changed.get_attributes()) == ["image_processor", "tokenizer"]


def make_folder():
    """A callable that a recipe can name."""
    return "/made"


def test_finding_models(tmp_path, monkeypatch):
    assert find_model("Qwen/Qwen2.5-VL-3B-Instruct") == "Qwen/Qwen2.5-VL-3B-Instruct"
    assert find_model(str(tmp_path)) == str(tmp_path)
    assert find_model("test_models.make_folder") == "/made"
    # a folder comes before a callable of its name
    monkeypatch.chdir(tmp_path)
    (tmp_path / "test_models.make_folder").mkdir()
    assert find_model("test_models.make_folder") == "test_models.make_folder"
