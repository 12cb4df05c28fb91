# SPDX-License-Identifier: Apache-2.0
"""Train a vision-language model with reinforcement learning, from a recipe.

    torchrun --nproc_per_node=1 -m open_r1_vision.train --config recipes/qwen2_5_vl_3b/visionary_r1.yaml
    torchrun --nproc_per_node=8 -m open_r1_vision.train --config recipes/qwen2_5_vl_3b/visionary_r1.yaml
    torchrun --nproc_per_node=2 -m open_r1_vision.train --config recipes/starter/visionary_r1.yaml --seed 1

`--key value` overrides a key of the recipe. A run that was stopped resumes from its last whole checkpoint when the
same command is given again.
"""

import os
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, TextIO

from open_r1_vision.arguments import Recipe, ScriptArguments, parse_recipe, print_all_help, print_help, read_recipe
from open_r1_vision.distributed import end_with_launcher, finish, is_main_process, num_processes

#: Exit code of a command that was ended by Ctrl-C.
_INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Run a command line; returns what results.json holds (nothing in other processes than the first)."""
    return run(prepare(read_recipe(sys.argv[1:] if argv is None else argv)))


@dataclass
class Job:
    """A run that is ready to start, to go on, or already over (`trainer` is None)."""

    output_dir: Path
    settings: dict[str, Any]
    trainer: Any = None
    model: str = ""
    checkpoint: Path | None = None
    lock: TextIO | None = None

    def release(self) -> None:
        """Let other runs have the output folder."""
        if self.lock is not None:
            self.lock.close()


def prepare(recipe: Recipe) -> Job:
    """Everything before the first step: arguments, output folder, rows and their checks, rewards, trainer.

    Raises:
        ValueError: something that the user can mend; the message says how.
    """
    trainer_class = find_trainer(recipe)
    from trl import ModelConfig

    from open_r1_vision.models import find_model, load_processor
    from open_r1_vision.rewards.loading import check_weights
    from open_r1_vision.runs import open_run, require_shared, take_run, write_run
    from open_r1_vision.trackers import check_trackers

    script_args, training_args, model_args = parse_recipe(
        recipe, (ScriptArguments, trainer_class.config_class, ModelConfig)
    )
    job = Job(Path(training_args.output_dir), {**recipe.as_plain(), "num_processes": training_args.world_size})
    with training_args.main_process_first(desc="opening the output folder"):
        state = open_run(job.output_dir, job.settings, script_args.overwrite_output)
    if state.finished:
        return job
    check_trackers(training_args.report_to)
    check_weights(training_args.reward_weights, script_args.reward_funcs)
    check_reasoners(training_args)
    job.checkpoint = state.checkpoint
    job.model = find_model(model_args.model_name_or_path)
    processor = load_processor(job.model, script_args.min_pixels, script_args.max_pixels, model_args.model_revision)
    rows, eval_rows, rewards = load_inputs(script_args, trainer_class, training_args.named_columns)
    check_inputs(script_args, training_args.max_prompt_tokens, rows, rewards, processor)
    if training_args.batch_plan:
        say(str(training_args.batch_plan))
    # only now that everything else is right, and before the trainer writes
    with training_args.main_process_first(desc="taking the output folder"):
        if is_main_process():
            job.lock = take_run(job.output_dir, state.obsolete)
    require_shared(job.output_dir)
    job.trainer = build_trainer(
        trainer_class, job.model, rewards, training_args, model_args, rows, processor, script_args.answer_form
    )
    add_callbacks(job.trainer, script_args, eval_rows, rewards)
    if is_main_process():
        write_run(job.output_dir, job.settings)
    return job


def run(job: Job) -> dict[str, Any]:
    """Train or resume, save, report."""
    from open_r1_vision import report
    from open_r1_vision.learning_curve import CURVE_FILE
    from open_r1_vision.models import save_final

    trainer = job.trainer
    if trainer is None:
        results = report.read_results(job.output_dir)
        say(f"{job.output_dir} holds this run already finished; --overwrite_output true trains it again.")
        say(report.format_table(results))
        return results
    if job.checkpoint:
        say(f"Resuming from {job.checkpoint}.")
    trainer.train(resume_from_checkpoint=str(job.checkpoint) if job.checkpoint else None)
    final = job.output_dir / "final"
    save_final(trainer, job.model, final)
    results = {}
    if trainer.is_world_process_zero():
        results = report.write_report(job.output_dir, trainer.state.log_history, job.settings)
        say(report.format_table(results))
        say(f"model    {final}")
        say(f"picture  {job.output_dir / CURVE_FILE}")
        say(f"numbers  {job.output_dir / report.RESULTS_FILE}")
    trainer.accelerator.wait_for_everyone()
    job.release()
    return results


def load_inputs(script_args: Any, trainer_class: Any, named_columns: Sequence[str] = ()) -> tuple[Any, Any, list]:
    """The training rows, the held-out rows (None where there are none) and the rewards, checked against each other."""
    from open_r1_vision.data.loading import load_rows
    from open_r1_vision.data.rows import add_prompts
    from open_r1_vision.rewards.loading import check_settings

    prompts = script_args.prompt_texts
    rows = load_rows(script_args.dataset, script_args.dataset_split, **script_args.dataset_options)
    rewards = name_rewards(script_args, rows.column_names)
    check_needs(rows, rewards, trainer_class, named_columns)
    eval_rows = load_eval_rows(script_args)
    if eval_rows is not None:
        eval_rows = add_prompts(eval_rows, **prompts)
    check_settings(rewards)
    return add_prompts(rows, **prompts), eval_rows, rewards


def name_rewards(script_args: Any, columns: Iterable[str]) -> list:
    """The reward functions that a recipe names, for rows with these columns."""
    from open_r1_vision.rewards.loading import load_rewards

    defaults = {"answer_form": script_args.answer_form} if script_args.answer_form else {}
    return load_rewards(script_args.reward_funcs, script_args.reward_kwargs, columns, defaults)


def check_needs(rows: Any, rewards: list, trainer_class: Any, named_columns: Sequence[str] = ()) -> None:
    """Refuse rows that lack a column which rewards or the trainer need."""
    from open_r1_vision.data.checks import check_columns
    from open_r1_vision.rewards.loading import columns_by_reward

    needs = {trainer_class.__name__: (*trainer_class.required_columns, *named_columns)}
    check_columns(rows, {**columns_by_reward(rewards), **needs})


def load_eval_rows(script_args: Any) -> Any:
    """The held-out rows, still without prompts; None where the recipe names none."""
    from open_r1_vision.data.checks import check_columns
    from open_r1_vision.data.loading import load_rows

    if not script_args.eval_dataset:
        return None
    rows = load_rows(script_args.eval_dataset, script_args.eval_dataset_split, **script_args.eval_dataset_options)
    check_columns(rows, {"held-out evaluation": ("id", "images", "problem", "solution", "problem_type")})
    return rows


def check_reasoners(training_args: Any) -> None:
    """Find out before rows and model are loaded whether the servers that will be asked answer.

    Raises:
        ValueError: one does not; the message says why and what to set.
    """
    from open_r1_vision.reasoners import build_reasoner

    for name, config in training_args.reasoners.items():
        if config.kind != "endpoint":
            continue
        try:
            build_reasoner(config).close()
        except ValueError as error:
            raise ValueError(f"`{name}`: {error}") from error


def check_inputs(
    script_args: ScriptArguments, max_prompt_tokens: int | None, rows: Any, rewards: list, processor: Any
) -> None:
    """Refuse to train on bad rows, by their ids; the first `check_rows` are checked.

    Raises:
        ValueError: there are bad rows among them.
    """
    from accelerate.utils import gather_object

    from open_r1_vision.data.checks import inspect_rows
    from open_r1_vision.rewards.loading import columns_by_reward

    count = min(script_args.check_rows, len(rows))
    problems = []
    if is_main_process() and count:
        problems = inspect_rows(
            rows.select(range(count)),
            processor=processor,
            **script_args.prompt_texts,
            max_prompt_tokens=max_prompt_tokens,
            required_columns=[name for columns in columns_by_reward(rewards).values() for name in columns],
        ).problems
    problems = gather_object(problems)
    if problems:
        shown = "\n".join(f"  {problem.row_id}: {problem.check}: {problem.message}" for problem in problems[:10])
        raise ValueError(
            f"{len({problem.index for problem in problems})} of the {count} rows that were checked can't be trained "
            f"on:\n{shown}\n`python -m open_r1_vision.check_data --config RECIPE --write-clean PATH` lists all such "
            "rows and keeps the good ones; check_rows: 0 trains on them nevertheless."
        )
    if count < len(rows):
        say(f"Checked the first {count} of {len(rows)} rows; open_r1_vision.check_data checks all.")


def load_gate(training_args: Any, answer_form: str | None, columns: Iterable[str]) -> dict[str, Any]:
    """The trainer's argument `gate`, where there is one, of hints or of the filter; it finds answers as rewards do."""
    from open_r1_vision.rewards.loading import load_rewards

    path = getattr(training_args, "hint_gate", None) or getattr(training_args, "filter_gate", None)
    defaults = {"answer_form": answer_form} if answer_form else {}
    return {"gate": load_rewards([path], None, columns, defaults)[0]} if path else {}


def build_trainer(
    trainer_class: Any,
    model: str,
    rewards: list,
    training_args: Any,
    model_args: Any,
    rows: Any,
    processor: Any,
    answer_form: str | None = None,
) -> Any:
    """Construct the trainer; the model is loaded here, by TRL."""
    from trl import get_peft_config, get_quantization_config

    training_args.model_init_kwargs = {
        "revision": model_args.model_revision,
        "attn_implementation": model_args.attn_implementation,
        "dtype": model_args.dtype,
        **(training_args.model_init_kwargs or {}),
    }
    return trainer_class(
        model=model,
        reward_funcs=rewards,
        args=training_args,
        train_dataset=rows,
        processing_class=processor,
        quantization_config=get_quantization_config(model_args),
        peft_config=get_peft_config(model_args),
        **load_gate(training_args, answer_form, rows.column_names),
    )


def add_callbacks(trainer: Any, script_args: ScriptArguments, eval_rows: Any, rewards: list) -> None:
    """The progress bar, and the held-out evaluation where there are rows for it."""
    from transformers import ProgressCallback

    from open_r1_vision.held_out import HeldOutEvaluation, facts_scorer
    from open_r1_vision.progress import RewardProgressCallback
    from open_r1_vision.rewards.loading import reward_name

    if not trainer.args.disable_tqdm:
        trainer.remove_callback(ProgressCallback)
        trainer.add_callback(RewardProgressCallback())
    if eval_rows is not None:
        facts = next((reward for reward in rewards if reward_name(reward) == "visual_facts_reward"), None)
        score_facts = facts_scorer(facts, trainer.fact_judging) if facts else None
        trainer.add_callback(
            HeldOutEvaluation(trainer, eval_rows, script_args.eval_every, script_args.answer_form, score_facts)
        )


def say(text: str) -> None:
    """Write a line for the person at the terminal, from the main process alone."""
    if is_main_process():
        sys.stderr.flush()
        sys.stdout.write(text + "\n")
        sys.stdout.flush()


def refuse(error: Exception) -> NoReturn:
    """End the command line with a message about something that a user can mend, once for all processes."""
    say(f"error: {error}")
    if not is_main_process():
        # where the main process fails too, torchrun ends this one before it repeats the message
        time.sleep(5)
        sys.stderr.write(f"error in process {os.environ['RANK']}: {error}\n")
    raise SystemExit(2) from error


def find_trainer(recipe: Recipe) -> Any:
    """The trainer class that a recipe names.

    Raises:
        ValueError: it names none.
    """
    from open_r1_vision.importing import import_callable

    path = recipe.as_plain().get("trainer") or ScriptArguments.trainer
    trainer_class = import_callable(path)
    if not hasattr(trainer_class, "config_class"):
        raise ValueError(f"`trainer` is {path!r}, which has no `config_class`: name a subclass of VisionGRPOTrainer.")
    return trainer_class


def explain() -> bool:
    """Answer `--help`, or `--help_all` with every key that the recipe's trainer allows; False if neither is there."""
    words = [word for word in sys.argv[1:] if word not in ("--help_all", "--help-all")]
    if {"-h", "--help"} & set(words):
        further = "Every key of the trainer, of trl's GRPOConfig and of ModelConfig is allowed too: see --help_all."
        print_help("open_r1_vision.train", [ScriptArguments], __doc__, further)
        return True
    if len(words) == len(sys.argv[1:]):
        return False
    from trl import ModelConfig

    kinds = [ScriptArguments, find_trainer(read_recipe(words)).config_class, ModelConfig]
    print_all_help("open_r1_vision.train", kinds)
    return True


def stop(output_dir: Path | None) -> NoReturn:
    """End a command line that was interrupted with what is left of the run, instead of a traceback.

    Args:
        output_dir: of the run; None before it has begun.
    """
    from open_r1_vision.checkpoints import find_last_whole

    if output_dir is None:
        say("\nStopped before training began.")
    elif last := find_last_whole(output_dir):
        say(f"\nStopped: the same command goes on from {last}.")
    else:
        say("\nStopped before the first checkpoint: the same command begins anew.")
    # others may still wait for this process: no teardown, which would wait for them
    if num_processes() > 1:
        os._exit(_INTERRUPTED)
    raise SystemExit(_INTERRUPTED)


def run_command_line() -> None:
    """Entry point: messages instead of tracebacks for what a user can mend, and a clean end of every process."""
    try:
        if explain():
            return
        end_with_launcher()
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
