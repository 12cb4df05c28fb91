# SPDX-License-Identifier: Apache-2.0
"""Random models of 0.2 M parameters with byte tokenizers, and rows and options to train them with."""

from importlib import resources

import datasets
import torch
import transformers
from PIL import Image
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import GenerationConfig, PreTrainedTokenizerFast
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from open_r1_vision.models import without_video

#: Text tokens are the 256 bytes; these follow, from id 256 on.
SPECIAL_TOKENS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
IDS = {token: 256 + index for index, token in enumerate(SPECIAL_TOKENS)}
VISION_IDS = [IDS[name] for name in ("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")]
END = IDS["<|im_end|>"]

_NAMES = {"qwen2_vl": "Qwen2VL", "qwen2_5_vl": "Qwen2_5_VL", "qwen3_vl": "Qwen3VL"}
_TEXT = {
    "vocab_size": 264,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 2048,
    "bos_token_id": IDS["<|endoftext|>"],
    "eos_token_id": END,
    "pad_token_id": IDS["<|endoftext|>"],
}
_ROPE = {"rope_type": "default", "rope_theta": 10000.0}
_VISION = {"depth": 2, "num_heads": 2, "spatial_merge_size": 2, "temporal_patch_size": 2}
_SHAPES = {
    "qwen2_vl": (
        {"rope_parameters": {**_ROPE, "mrope_section": [2, 3, 3]}},
        {"embed_dim": 32, "hidden_size": 64, "mlp_ratio": 2, "patch_size": 14},
    ),
    "qwen2_5_vl": (
        {"rope_parameters": {**_ROPE, "mrope_section": [2, 3, 3]}},
        {
            "hidden_size": 32,
            "intermediate_size": 64,
            "out_hidden_size": 64,
            "patch_size": 14,
            "window_size": 56,
            "fullatt_block_indexes": [1],
        },
    ),
    "qwen3_vl": (
        {
            "head_dim": 16,
            "rope_parameters": {**_ROPE, "mrope_section": [4, 2, 2], "mrope_interleaved": True},
        },
        {
            "hidden_size": 32,
            "intermediate_size": 64,
            "out_hidden_size": 64,
            "patch_size": 16,
            "num_position_embeddings": 64,
            "deepstack_visual_indexes": [0],
        },
    ),
}


def save_tiny_model(folder, architecture="qwen2_5_vl", seed=0, head_dim=16):
    """Write a random model, its generation config and its processor. vLLM on a CPU needs a `head_dim` of 32."""
    text, vision = _SHAPES[architecture]
    rope = text["rope_parameters"]
    text = {
        **text,
        **({"head_dim": head_dim} if "head_dim" in text else {}),
        "rope_parameters": {**rope, "mrope_section": [part * head_dim // 16 for part in rope["mrope_section"]]},
        "num_attention_heads": 64 // head_dim,
        "num_key_value_heads": 32 // head_dim,
    }
    config = getattr(transformers, f"{_NAMES[architecture]}Config")(
        text_config={**_TEXT, **text},
        vision_config={**_VISION, **vision},
        image_token_id=IDS["<|image_pad|>"],
        video_token_id=IDS["<|video_pad|>"],
        vision_start_token_id=IDS["<|vision_start|>"],
        vision_end_token_id=IDS["<|vision_end|>"],
        tie_word_embeddings=False,
    )
    torch.manual_seed(seed)
    model = getattr(transformers, f"{_NAMES[architecture]}ForConditionalGeneration")(config)
    model.generation_config = GenerationConfig(
        eos_token_id=[END, IDS["<|endoftext|>"]], pad_token_id=IDS["<|endoftext|>"]
    )
    model.save_pretrained(folder)
    build_processor(architecture).save_pretrained(folder)


def build_processor(architecture="qwen2_5_vl"):
    """The architecture's processor with TRL's packaged chat template. A 56 x 56 image takes 4 tokens."""
    template = "qwen3_vl.jinja" if architecture == "qwen3_vl" else "qwen2_5_vl.jinja"
    name = _NAMES[architecture]
    return without_video(getattr(transformers, f"{name}Processor"))(
        image_processor=Qwen2VLImageProcessorPil(
            patch_size=_SHAPES[architecture][1]["patch_size"], min_pixels=28 * 28, max_pixels=112 * 112
        ),
        tokenizer=build_tokenizer(),
        chat_template=(resources.files("trl") / "chat_templates" / template).read_text(),
    )


def build_tokenizer():
    """One token a byte."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({character: index for index, character in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(list(SPECIAL_TOKENS))
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>", padding_side="left"
    )


def image(index=0, width=56, height=56):
    """A picture of one colour, another one for each index."""
    return Image.new("RGB", (width, height), (37 * index % 256, 91 * index % 256, 200))


def rows(*image_counts, problems=None, solution="7"):
    """A data set with one row for each count of images; None puts None in place of the list.

    Ids are `row-0`, `row-1`, ...; problems get longer from row to row.
    """
    table = []
    for index, count in enumerate(image_counts):
        problem = problems[index] if problems else "How many?" + " please" * index
        content = [{"type": "image", "text": None}] * (count or 0) + [{"type": "text", "text": problem}]
        table.append(
            {
                "id": f"row-{index}",
                "images": None if count is None else [image(7 * index + k) for k in range(count)],
                "problem": problem,
                "solution": solution,
                "problem_type": "number",
                "prompt": [{"role": "user", "content": content}],
            }
        )
    text = {name: datasets.Value("string") for name in ("id", "problem", "solution", "problem_type")}
    part = {"type": datasets.Value("string"), "text": datasets.Value("string")}
    prompt = datasets.List({"role": datasets.Value("string"), "content": datasets.List(part)})
    features = datasets.Features({**text, "images": datasets.List(datasets.Image()), "prompt": prompt})
    return datasets.Dataset.from_list(table, features=features)


def options(output_dir, config_class=None, **settings):
    """Options of a short run: 2 prompts a step with 2 completions each, logged every step."""
    from open_r1_vision.trainers import VisionGRPOConfig

    defaults = {
        "per_device_train_batch_size": 4,
        "num_generations": 2,
        "max_completion_length": 6,
        "max_steps": 2,
        "learning_rate": 1e-2,
        "gradient_checkpointing": False,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": [],
        "num_completions_to_print": 0,
        "disable_tqdm": True,
    }
    return (config_class or VisionGRPOConfig)(output_dir=str(output_dir), **{**defaults, **settings})


def parity_reward(completions, completion_ids, **columns):
    """A reward that random completions earn to different degrees."""
    return [sum(ids) % 7 / 7 for ids in completion_ids]


def step_logs(trainer, *names):
    """Values of the training log, one tuple for each step."""
    return [tuple(entry[name] for name in names) for entry in trainer.state.log_history if "step_time" in entry]


def make_trainer(trainer_class, model, args, dataset, reward=parity_reward, **kwargs):
    """A trainer of the class; the stock one too gets a processor, which it can't load without torchvision."""
    from open_r1_vision.models import load_processor

    processor = kwargs.pop("processing_class", None) or load_processor(model)
    return trainer_class(model, reward, args, train_dataset=dataset, processing_class=processor, **kwargs)


def recording(trainer_class):
    """The trainer, keeping its scored generation batches in `outputs`."""

    class Recording(trainer_class):
        outputs = None

        def _generate_and_score_completions(self, inputs):
            output = super()._generate_and_score_completions(inputs)
            self.outputs = [*(self.outputs or []), output]
            return output

    return Recording
