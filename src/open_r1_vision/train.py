# SPDX-License-Identifier: Apache-2.0
"""Train a vision-language model with reinforcement learning, from a recipe.

    torchrun --nproc_per_node=1 -m open_r1_vision.train --config recipes/qwen2_5_vl_3b/visionary_r1.yaml
    torchrun --nproc_per_node=8 -m open_r1_vision.train --config recipes/qwen2_5_vl_3b/visionary_r1.yaml
    torchrun --nproc_per_node=2 -m open_r1_vision.train --config recipes/starter/visionary_r1.yaml --seed 1

`--key value` overrides a key of the recipe. A run that was stopped resumes from its last whole checkpoint when the same
command is given again.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from open_r1_vision.arguments import Recipe, ScriptArguments, parse_recipe, print_help, read_recipe
from open_r1_vision.distributed import finish, is_main_process, num_processes


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Run the command line; returns what results.json holds."""
    recipe = read_recipe(sys.argv[1:] if argv is None else argv)
    trainer_class = _find_trainer(recipe)
    from trl import ModelConfig

    script_args, training_args, model_args = parse_recipe(
        recipe, (ScriptArguments, trainer_class.config_class, ModelConfig)
    )
    return train(script_args, training_args, model_args, trainer_class, recipe.as_plain())


def train(
    script_args: ScriptArguments, training_args: Any, model_args: Any, trainer_class: type, settings: dict[str, Any]
) -> dict[str, Any]:
    """Data, rewards, trainer, training or resuming, evaluation, saving."""
    from open_r1_vision import report
    from open_r1_vision.models import find_model, load_processor
    from open_r1_vision.runs import open_run, write_run

    output_dir = Path(training_args.output_dir)
    settings = {**settings, "num_processes": training_args.world_size}
    with training_args.main_process_first(desc="opening the output folder"):
        state = open_run(output_dir, settings, script_args.overwrite_output and is_main_process())
        if not state.finished and is_main_process():
            write_run(output_dir, settings)
    if state.finished:
        say(f"{output_dir} holds this run already finished; overwrite_output: true trains it again.")
        results = report.read_results(output_dir)
        say(report.format_table(results))
        return results

    model = find_model(model_args.model_name_or_path)
    processor = load_processor(model, script_args.min_pixels, script_args.max_pixels)
    train_rows, eval_rows, rewards = load_inputs(script_args, trainer_class)
    if training_args.batch_plan:
        say(str(training_args.batch_plan))
    trainer = build_trainer(trainer_class, model, rewards, training_args, model_args, train_rows, processor)
    add_callbacks(trainer, script_args, eval_rows)
    if state.checkpoint:
        say(f"Resuming from {state.checkpoint}.")
    trainer.train(resume_from_checkpoint=str(state.checkpoint) if state.checkpoint else None)
    save(trainer, model, processor, output_dir / "final")
    results = {}
    if trainer.is_world_process_zero():
        results = report.write_report(output_dir, trainer.state.log_history, settings)
        say(report.format_table(results))
        say(
            f"Model: {output_dir / 'final'}   picture: {output_dir / report.CURVE_FILE}   numbers: {output_dir / report.RESULTS_FILE}"
        )
    return results


def load_inputs(script_args: ScriptArguments, trainer_class: type) -> tuple[Any, Any, list]:
    """The training rows, the held-out rows (None where there are none) and the rewards, checked against each other."""
    from open_r1_vision.data.checks import check_columns
    from open_r1_vision.data.loading import load_rows
    from open_r1_vision.data.rows import add_prompts
    from open_r1_vision.prompts import load_prompt
    from open_r1_vision.rewards.loading import load_rewards, required_columns, reward_name

    system_prompt = load_prompt(script_args.system_prompt) if script_args.system_prompt else None
    rows = load_rows(script_args.dataset, script_args.dataset_split, **script_args.dataset_kwargs)
    rewards = load_rewards(script_args.reward_funcs, script_args.reward_kwargs, rows.column_names)
    needs = {reward_name(reward): required_columns(reward) for reward in rewards}
    check_columns(rows, {**needs, trainer_class.__name__: trainer_class.required_columns})
    eval_rows = None
    if script_args.eval_dataset:
        eval_rows = load_rows(
            script_args.eval_dataset, script_args.eval_dataset_split, **script_args.eval_dataset_kwargs
        )
        eval_rows = add_prompts(eval_rows, system_prompt)
    return add_prompts(rows, system_prompt), eval_rows, rewards


def build_trainer(
    trainer_class: type, model: str, rewards: list, training_args: Any, model_args: Any, rows: Any, processor: Any
) -> Any:
    """Construct the trainer; the model is loaded here, by TRL."""
    from trl import get_peft_config, get_quantization_config

    quantization = get_quantization_config(model_args)
    training_args.model_init_kwargs = {
        "revision": model_args.model_revision,
        "attn_implementation": model_args.attn_implementation,
        "dtype": model_args.dtype,
        **({"quantization_config": quantization} if quantization else {}),
        **(training_args.model_init_kwargs or {}),
    }
    return trainer_class(
        model=model,
        reward_funcs=rewards,
        args=training_args,
        train_dataset=rows,
        processing_class=processor,
        peft_config=get_peft_config(model_args),
    )


def add_callbacks(trainer: Any, script_args: ScriptArguments, eval_rows: Any) -> None:
    """The progress bar, and the held-out evaluation where there are rows for it."""
    from transformers import PrinterCallback, ProgressCallback

    from open_r1_vision.evaluation import HeldOutEvaluation
    from open_r1_vision.progress import RewardProgressCallback

    trainer.remove_callback(PrinterCallback)
    trainer.remove_callback(ProgressCallback)
    trainer.add_callback(RewardProgressCallback())
    if eval_rows is not None:
        trainer.add_callback(HeldOutEvaluation(trainer, eval_rows, script_args.eval_every))


def save(trainer: Any, source: str, processor: Any, folder: Path) -> None:
    """Save model, processor and generation config to a folder that `from_pretrained` loads."""
    from open_r1_vision.models import save_processor

    trainer.save_model(str(folder))
    if trainer.is_world_process_zero():
        save_processor(processor, source, str(folder))
    trainer.accelerator.wait_for_everyone()


def say(text: str) -> None:
    """Write a line for the person at the terminal, from the main process alone."""
    if is_main_process():
        sys.stderr.flush()
        sys.stdout.write(text + "\n")
        sys.stdout.flush()


def _find_trainer(recipe: Recipe) -> type:
    from open_r1_vision.importing import import_callable

    path = recipe.as_plain().get("trainer") or ScriptArguments.trainer
    trainer_class = import_callable(path)
    if not hasattr(trainer_class, "config_class"):
        raise ValueError(f"`trainer` is {path!r}, which has no `config_class`: name a subclass of VisionGRPOTrainer.")
    return trainer_class


def run_command_line() -> None:
    """Entry point: messages instead of tracebacks for what a user can mend, and a clean end of every process."""
    if {"-h", "--help"} & set(sys.argv[1:]):
        print_help("open_r1_vision.train", [ScriptArguments])
        return
    try:
        main()
    except ValueError as error:
        say(f"error: {error}")
        raise SystemExit(2) from error
    finish()


if __name__ == "__main__":
    run_command_line()
