# SPDX-License-Identifier: Apache-2.0
import pytest
import torch
from transformers import AutoModelForImageTextToText, LlamaConfig, LlamaForCausalLM

from open_r1_vision.freezing import find_part, freeze


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("model.visual.blocks.0.attn.qkv.weight", "vision tower"),
        ("model.visual.patch_embed.proj.weight", "vision tower"),
        ("model.visual.merger.mlp.0.weight", "projector"),
        ("model.visual.deepstack_merger_list.0.norm.weight", "projector"),
        ("model.vision_tower.encoder.layers.1.norm.bias", "vision tower"),
        ("model.multi_modal_projector.linear_1.weight", "projector"),
        ("model.vision_model.embeddings.patch_embedding.weight", "vision tower"),
        ("model.connector.modality_projection.proj.weight", "projector"),
        ("base_model.model.model.visual.blocks.0.attn.qkv.lora_A.default.weight", "vision tower"),
        ("model.language_model.layers.0.mlp.up_proj.weight", None),
        ("lm_head.weight", None),
    ],
)
def test_parts_by_name(name, part):
    assert find_part(name) == part


@pytest.mark.parametrize("vision_tower", [True, False])
@pytest.mark.parametrize("projector", [True, False])
def test_only_the_parts_that_are_asked_for_are_frozen(any_model, vision_tower, projector):
    model = AutoModelForImageTextToText.from_pretrained(any_model)
    counts = freeze(model, vision_tower=vision_tower, projector=projector)
    frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    expected = {
        name
        for name, _ in model.named_parameters()
        if ".visual." in name and (projector if "merger" in name else vision_tower)
    }
    assert frozen == expected
    assert sum(counts.values()) == sum(model.get_parameter(name).numel() for name in frozen)


def test_what_can_not_be_frozen():
    config = LlamaConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8, vocab_size=9)
    with pytest.raises(ValueError, match="LlamaForCausalLM has no vision tower to freeze.*freeze_vision_tower: false"):
        freeze(LlamaForCausalLM(config), vision_tower=True)
    tower = torch.nn.ModuleDict({"visual": torch.nn.Linear(2, 2)})
    with pytest.raises(ValueError, match="Nothing is left to train"):
        freeze(tower, vision_tower=True)
