# SPDX-License-Identifier: Apache-2.0
"""Warm up a vision-language model, or teach a text model to read, on reference completions, with TRL's SFTTrainer.

    torchrun --nproc_per_node=2 -m open_r1_vision.sft --config recipes/starter/warm_up.yaml
    torchrun --nproc_per_node=2 -m open_r1_vision.sft --config recipes/starter/reasoner.yaml

The data set has the columns `prompt` and `completion`, and `images` unless the model takes text alone; the loss is on
the completion alone.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from open_r1_vision.arguments import DataArguments, parse_recipe, print_help, read_recipe
from open_r1_vision.distributed import finish, is_main_process, num_processes


def main(argv: Sequence[str] | None = None) -> str:
    """Run the command line; returns the folder of the final model."""
    recipe = read_recipe(sys.argv[1:] if argv is None else argv)
    import torch
    from transformers import AutoTokenizer
    from trl import ModelConfig, SFTConfig, SFTTrainer, get_peft_config

    from open_r1_vision.data.loading import load_table
    from open_r1_vision.models import find_model, is_text_only, load_processor, save_processor

    if not torch.cuda.is_available():
        for key, value in {"use_cpu": True, "bf16": False, "dataloader_pin_memory": False}.items():
            recipe.settings.setdefault(key, value)
        if num_processes() > 1:
            recipe.settings.setdefault("ddp_backend", "gloo")
    data_args, training_args, model_args = parse_recipe(recipe, (DataArguments, SFTConfig, ModelConfig))
    model = find_model(model_args.model_name_or_path)
    revision = model_args.model_revision
    processor: Any = (
        AutoTokenizer.from_pretrained(model, revision=revision or "main")
        if is_text_only(model, revision)
        else load_processor(model, data_args.min_pixels, data_args.max_pixels, revision)
    )
    # reading columns by name is the collator's task; the trainer would drop what the model doesn't take
    training_args.remove_unused_columns = False
    training_args.model_init_kwargs = {
        "revision": revision,
        "dtype": model_args.dtype,
        "attn_implementation": model_args.attn_implementation,
        **(training_args.model_init_kwargs or {}),
    }
    trainer = SFTTrainer(
        model=model,
        args=training_args,
        train_dataset=load_table(data_args.dataset, data_args.dataset_split, **data_args.dataset_options),
        processing_class=processor,
        peft_config=get_peft_config(model_args),
    )
    trainer.train()
    folder = Path(training_args.output_dir) / "final"
    trainer.save_model(str(folder))
    if is_main_process():
        save_processor(processor, model, str(folder))
    trainer.accelerator.wait_for_everyone()
    return str(folder)


def run_command_line() -> None:
    """Entry point."""
    if {"-h", "--help"} & set(sys.argv[1:]):
        print_help("open_r1_vision.sft", [DataArguments])
        return
    main()
    finish()


if __name__ == "__main__":
    run_command_line()
