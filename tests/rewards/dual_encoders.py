# SPDX-License-Identifier: Apache-2.0
"""Tiny random CLIP and SigLIP models in folders; `FineModel` has a branch for long texts, as FG-CLIP does."""

import torch
from tiny_models import SPECIAL_TOKENS
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    CLIPConfig,
    CLIPModel,
    PreTrainedTokenizerFast,
    SiglipConfig,
    SiglipModel,
)
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

SIDE = 16
END = 256
_TEXT = {
    "vocab_size": 264,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "max_position_embeddings": 20,
    "bos_token_id": END,
    "eos_token_id": END,
    "pad_token_id": END,
}
_VISION = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": SIDE,
    "patch_size": 8,
}
_MEAN = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}


def save_clip(folder, seed=0):
    """CLIP: square pixels by cutting, 20 tokens."""
    torch.manual_seed(seed)
    CLIPModel(CLIPConfig(text_config=_TEXT, vision_config=_VISION, projection_dim=8)).save_pretrained(folder)
    processor = CLIPImageProcessorPil(size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE}, **_MEAN)
    processor.save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return str(folder)


def save_siglip(folder, seed=0):
    """SigLIP: square pixels by squashing, 20 tokens."""
    torch.manual_seed(seed)
    text = {**_TEXT, "projection_size": 16}
    SiglipModel(SiglipConfig(text_config=text, vision_config=_VISION)).save_pretrained(folder)
    SiglipImageProcessorPil(size={"height": SIDE, "width": SIDE}, **_MEAN).save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return str(folder)


def tokenizer():
    """One token a byte; the end is also what pads."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    inner = Tokenizer(models.BPE({token: index for index, token in enumerate(alphabet)}, []))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.add_special_tokens(list(SPECIAL_TOKENS))
    return PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="<|endoftext|>", pad_token="<|endoftext|>")


class FineModel(CLIPModel):
    """CLIP whose texts may be long, if they are asked for."""

    walked_short = None

    def get_text_features(self, input_ids, walk_short_pos=True):
        """As FG-CLIP's signature."""
        self.walked_short = walk_short_pos
        self.num_tokens = input_ids.shape[1]
        return super().get_text_features(input_ids[:, :20]).pooler_output
