# SPDX-License-Identifier: Apache-2.0
"""Hand-made images, and a real Qwen2.5-VL processor whose text tokens are bytes, so that lengths can be counted."""

import io
from importlib import resources

import datasets
import pytest
from PIL import Image
from tiny_models import SPECIAL_TOKENS


@pytest.fixture(autouse=True, scope="session")
def quiet_offline(tmp_path_factory):
    patch = pytest.MonkeyPatch()
    patch.setattr(datasets.config, "HF_DATASETS_OFFLINE", True)
    patch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))
    datasets.disable_progress_bars()
    yield
    patch.undo()


@pytest.fixture
def png():
    """`png(width, height, colour)` gives the bytes of an image."""

    def make(width=56, height=56, colour="red", kind="PNG"):
        buffer = io.BytesIO()
        Image.new("RGB", (width, height), colour).save(buffer, kind)
        return buffer.getvalue()

    return make


@pytest.fixture(scope="session")
def processor():
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast, Qwen2_5_VLProcessor
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    from open_r1_vision.models import without_video

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({token: index for index, token in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(list(SPECIAL_TOKENS))
    return without_video(Qwen2_5_VLProcessor)(
        image_processor=Qwen2VLImageProcessorPil(min_pixels=28 * 28, max_pixels=1_000_000),
        tokenizer=PreTrainedTokenizerFast(
            tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>"
        ),
        chat_template=(resources.files("trl") / "chat_templates" / "qwen2_5_vl.jinja").read_text(),
    )
