# SPDX-License-Identifier: Apache-2.0
"""Warm up a vision-language model, or teach a text model to read, on reference completions, with TRL's SFTTrainer.

    torchrun --nproc_per_node=2 -m open_r1_vision.sft --config recipes/starter/warm_up.yaml
    torchrun --nproc_per_node=2 -m open_r1_vision.sft --config recipes/starter/reasoner.yaml

The data set has the columns `prompt` and `completion`, or `messages`, and `images` unless the model takes text alone;
the loss is on the completion alone. The vision tower and the projector can be frozen; with `use_peft` an adapter is
trained, and `final` holds the model with the adapter merged into it. A run that was stopped resumes from its last
whole checkpoint when the same command is given again, and a finished one is left as it is.
"""

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from open_r1_vision.arguments import Recipe, WarmUpArguments, parse_recipe, print_all_help, print_help, read_recipe
from open_r1_vision.distributed import boot_deepspeed_on_cpu, end_with_launcher, finish, is_main_process, num_processes
from open_r1_vision.train import Job, refuse, say, stop

#: Keys that recipes share with the training, and that a warm-up does not read.
_UNREAD = ("system_prompt", "user_prompt", "eval_dataset")


def main(argv: Sequence[str] | None = None) -> str:
    """Run the command line; returns the folder of the final model."""
    return run(prepare(read_recipe(sys.argv[1:] if argv is None else argv)))


def prepare(recipe: Recipe) -> Job:
    """Everything before the first step: arguments, output folder, rows, trainer.

    Raises:
        ValueError: something that the user can mend; the message says how.
    """
    import torch
    from trl import ModelConfig, SFTConfig

    from open_r1_vision.models import find_model
    from open_r1_vision.runs import open_run, require_shared, take_run, write_run
    from open_r1_vision.trackers import check_trackers

    settings = recipe.as_plain()
    if not torch.cuda.is_available():
        for key, value in _prepare_for_cpu(settings).items():
            recipe.settings.setdefault(key, value)
    data_args, training_args, model_args = parse_recipe(recipe, (WarmUpArguments, SFTConfig, ModelConfig))
    job = Job(Path(training_args.output_dir), {**settings, "num_processes": training_args.world_size})
    with training_args.main_process_first(desc="opening the output folder"):
        state = open_run(job.output_dir, job.settings, data_args.overwrite_output)
    if state.finished:
        return job
    check_trackers(training_args.report_to)
    job.checkpoint = state.checkpoint
    job.model = find_model(model_args.model_name_or_path)
    unread = [name for name in _UNREAD if getattr(data_args, name)]
    if unread:
        say(f"A warm-up learns its data set's own prompts: {' and '.join(unread)} have no effect.")
    rows = load_lessons(data_args, training_args)
    # only now that everything else is right, and before the trainer writes
    with training_args.main_process_first(desc="taking the output folder"):
        if is_main_process():
            job.lock = take_run(job.output_dir, state.obsolete)
    require_shared(job.output_dir)
    job.trainer = build_trainer(job.model, data_args, training_args, model_args, rows)
    if is_main_process():
        write_run(job.output_dir, job.settings)
    return job


def run(job: Job) -> str:
    """Train or resume, save, report; returns the folder of the final model."""
    from open_r1_vision import report
    from open_r1_vision.models import save_final

    final = job.output_dir / "final"
    trainer = job.trainer
    if trainer is None:
        say(f"{job.output_dir} holds this run already finished; --overwrite_output true trains it again.")
        return str(final)
    if job.checkpoint:
        say(f"Resuming from {job.checkpoint}.")
    trainer.train(resume_from_checkpoint=str(job.checkpoint) if job.checkpoint else None)
    save_final(trainer, job.model, final)
    if is_main_process():
        history = trainer.state.log_history
        losses = [entry for entry in history if "loss" in entry]
        results = {
            "steps": trainer.state.global_step,
            "train_seconds": next((entry["train_runtime"] for entry in history if "train_runtime" in entry), None),
            "loss": {entry["step"]: entry["loss"] for entry in losses},
            "last_step": {key: value for key, value in (losses[-1] if losses else {}).items() if key != "step"},
        }
        report.write_results(job.output_dir, results, job.settings)
        if losses:
            say(f"loss     {losses[0]['loss']:.3f} (step {losses[0]['step']}) -> {losses[-1]['loss']:.3f}")
        say(f"model    {final}")
    trainer.accelerator.wait_for_everyone()
    job.release()
    return str(final)


def load_lessons(data_args: WarmUpArguments, training_args: Any) -> Any:
    """The rows, with a prompt and a completion.

    Raises:
        ValueError: they have neither, or they have images and are to be packed.
    """
    from open_r1_vision.data.lessons import as_lessons
    from open_r1_vision.data.loading import load_table

    options: Any = data_args.dataset_options
    rows = as_lessons(load_table(data_args.dataset, data_args.dataset_split, **options))
    for name in ("packing", "padding_free"):
        if getattr(training_args, name) and "images" in rows.column_names:
            raise ValueError(
                f"{name} is true, which joins rows to one long text, but the rows have a column `images`: pictures "
                f"would be read at the places of other rows'. Set {name}: false, or take rows of text alone, without "
                "that column."
            )
    return rows


def build_trainer(model: str, data_args: WarmUpArguments, training_args: Any, model_args: Any, rows: Any) -> Any:
    """Construct the trainer; the model is loaded here, by TRL, and its frozen parts are frozen."""
    from transformers import AutoTokenizer
    from trl import get_peft_config, get_quantization_config

    from open_r1_vision.freezing import freeze
    from open_r1_vision.models import is_text_only, load_processor
    from open_r1_vision.trainers.warm_up import WarmUpTrainer

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
    trainer: Any = WarmUpTrainer(
        model=model,
        args=training_args,
        train_dataset=rows,
        processing_class=processor,
        quantization_config=get_quantization_config(model_args),
        peft_config=get_peft_config(model_args),
    )
    frozen = freeze(trainer.model, vision_tower=data_args.freeze_vision_tower, projector=data_args.freeze_projector)
    for part, count in frozen.items():
        say(f"Frozen: the {part}, {count:,} weights.")
    return trainer


def _prepare_for_cpu(settings: Mapping[str, Any]) -> dict[str, Any]:
    """What a machine without a GPU needs, as VisionGRPOConfig has it."""
    needed: dict[str, Any] = {"use_cpu": True, "bf16": False, "dataloader_pin_memory": False}
    if settings.get("deepspeed"):
        boot_deepspeed_on_cpu(int(settings.get("ddp_timeout", 1800)))
        needed["accelerator_config"] = {"use_configured_state": True}
    elif num_processes() > 1:
        needed["ddp_backend"] = "gloo"
        # accelerate would choose cpu:0, to which torch.load can't move the optimizer's state on a resume
        os.environ["ACCELERATE_TORCH_DEVICE"] = "cpu"
    return needed


def run_command_line() -> None:
    """Entry point: messages instead of tracebacks for what a user can mend, and a clean end of every process."""
    if {"-h", "--help"} & set(sys.argv[1:]):
        further = "Every key of trl's SFTConfig and ModelConfig is allowed too: see --help_all."
        print_help("open_r1_vision.sft", [WarmUpArguments], __doc__, further)
        return
    if {"--help_all", "--help-all"} & set(sys.argv[1:]):
        from trl import ModelConfig, SFTConfig

        print_all_help("open_r1_vision.sft", [WarmUpArguments, SFTConfig, ModelConfig])
        return
    end_with_launcher()
    try:
        job = prepare(read_recipe(sys.argv[1:]))
    except (ValueError, FileNotFoundError) as error:
        refuse(error)
    except KeyboardInterrupt:
        stop(None)
    try:
        run(job)
    except KeyboardInterrupt:
        stop(job.output_dir)
    finish()


if __name__ == "__main__":
    run_command_line()
