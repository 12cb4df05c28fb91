# SPDX-License-Identifier: Apache-2.0
"""One training run: its batch, memory, rows, rewards, servers and output folder, by the checks that training has."""

import contextlib
import dataclasses
import io
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from open_r1_vision.arguments import Recipe
from open_r1_vision.batching import plan_batch
from open_r1_vision.doctor import files, machine
from open_r1_vision.doctor.machine import Machine
from open_r1_vision.doctor.report import Report
from open_r1_vision.memory.plan import Plan, parse_training, plan_of, read_deepspeed
from open_r1_vision.rewards.loading import check_weights, reward_name

_GIB = 2**30
#: From this share of the GPU's memory on an estimate may be wrong.
_TIGHT = 0.9
#: The phases of an estimate, in words.
_PHASES = {"update": "update", "step": "optimizer's step", "sampling": "sampling"}
_REMEDIES = {
    "update": "lower max_completions_per_device, max_completion_length or max_prompt_tokens",
    "step": "shard over more GPUs, offload the optimizer (recipes/deepspeed/zero3_offload.json), or set use_peft",
    "sampling": "set use_vllm, lower vllm_gpu_memory_utilization, or without vLLM steps_per_generation",
}


def needed_extras(recipe: Recipe) -> list[str]:
    """The package's extras that a recipe needs."""
    plain = recipe.as_plain()
    reasoners = [plain.get(name) for name in ("reasoner", "fact_judge", "description_judge")]
    wanted = {
        "deepspeed": plain.get("deepspeed"),
        "vllm": plain.get("use_vllm")
        or plain.get("backend") == "vllm"
        or any(isinstance(r, dict) and r.get("backend") == "vllm" for r in reasoners),
        "reasoners": plain.get("backend") == "endpoint"
        or any(isinstance(block, dict) and block.get("kind") == "endpoint" for block in reasoners),
        "starter": "open_r1_vision.starter" in str(plain),
    }
    return [name for name, is_wanted in wanted.items() if is_wanted]


def is_warm_up(recipe: Recipe) -> bool:
    """Whether a recipe is of `open_r1_vision.sft`: its keys are, and not all of them are those of a training."""
    from trl import ModelConfig, SFTConfig

    from open_r1_vision.arguments import ScriptArguments, WarmUpArguments, find_unknown_keys
    from open_r1_vision.trainers.config import VisionGRPOConfig

    if "trainer" in recipe.settings:
        return False
    return bool(find_unknown_keys(recipe, (ScriptArguments, VisionGRPOConfig, ModelConfig))) and not find_unknown_keys(
        recipe, (WarmUpArguments, SFTConfig, ModelConfig)
    )


def check_run(report: Report, recipe: Recipe, where: Machine, num_rows: int) -> None:
    """Everything that belongs to one run of `open_r1_vision.train`.

    Args:
        report: gets what is found.
        recipe: of the run.
        where: it is to run.
        num_rows: how many rows to look at.
    """
    plain = recipe.as_plain()
    machine.check_gpus(report, where, bool(plain.get("bf16", not plain.get("fp16"))))
    machine.check_attention(report, where, plain.get("attn_implementation"))
    folder = files.check_model(report, str(plain["model_name_or_path"])) if plain.get("model_name_or_path") else None
    with report.attempt("deepspeed"):
        machine.check_deepspeed(report, where, read_deepspeed(plain.get("deepspeed")))
    machine.check_report_to(report, plain.get("report_to"))
    count = report.num_stops
    parsed = parse_known(report, recipe)
    if parsed is None:
        report.note(
            "recipe", "batch, memory, rewards, data and output are looked at when its keys and values are right"
        )
        return
    script, training, model, trainer_class = parsed
    if report.num_stops == count:
        counts = f"{len(recipe.settings)} keys, {trainer_class.__name__}, {len(script.reward_funcs)} reward(s)"
        report.ok("recipe", counts)
    check_memory(report, recipe, script, training, model, where, where.processes, folder)
    check_servers(report, training)
    check_rows(report, script, training, trainer_class, folder, num_rows)
    check_output(report, recipe, training.output_dir, script.overwrite_output, where.processes)


def parse_known(report: Report, recipe: Recipe) -> tuple[Any, Any, Any, Any] | None:
    """A training's arguments and its trainer, unknown keys left out; None where they can't be read.

    Args:
        report: gets what is found.
        recipe: of the run.
    """
    from trl import ModelConfig

    from open_r1_vision import train
    from open_r1_vision.arguments import ScriptArguments, find_unknown_keys

    with report.attempt("recipe"):
        trainer_class = train.find_trainer(recipe)
        unknown = find_unknown_keys(recipe, (ScriptArguments, trainer_class.config_class, ModelConfig))
        for fault in unknown.values():
            if not report.was_said(fault):
                report.stop("recipe", fault)
        script, training, model = parse_training(recipe.without(*unknown))
        return script, training, model, trainer_class
    return None


def check_memory(
    report: Report,
    recipe: Recipe,
    script: Any,
    training: Any,
    model: Any,
    where: Machine,
    processes: int,
    folder: str | None,
) -> int:
    """Batch, memory of GPUs and host, vLLM's cache, disk.

    Args:
        report: gets what is found.
        recipe: of the run.
        script: its arguments, as :func:`open_r1_vision.memory.plan.parse_training` gives them.
        training: the trainer's.
        model: the model's.
        where: it is to run.
        processes: of the run.
        folder: of the model; None where there is none yet.

    Returns:
        Bytes that are needed on the disk, 0 where they are not known.
    """
    from open_r1_vision.memory.shapes import read_shape

    # by its hub id it needs no download
    named = model if folder is None else dataclasses.replace(model, model_name_or_path=folder)
    if training.prompts_per_step is not None:
        good = False
        with report.attempt("batch"):
            batch = (training.prompts_per_step, training.num_generations or 0)
            report.ok("batch", str(plan_batch(*batch, processes, training.max_completions_per_device)))
            good = True
        if not good:
            return 0
    try:
        read_shape(named.model_name_or_path)
    except ValueError as error:
        report.note("memory", f"not estimated. {error}")
        return 0
    with report.attempt("memory"):
        plan = plan_of(recipe, script, training, named, processes, where.gpu_bytes or 80 * _GIB)
        compare_memory(report, plan, where)
        made = plan.estimate()
        kept = 0 if str(recipe.as_plain().get("save_strategy")) == "no" else plan.checkpoints_kept
        return files.check_disk(report, plan.output_dir, made.checkpoint_bytes, kept, made.final_bytes, where.is_here)
    return 0


def compare_memory(report: Report, plan: Plan, where: Machine) -> None:
    """The estimate against the memory of GPUs and host, and vLLM's cache against the longest sequence."""
    made = plan.estimate()
    peak, phase, there = made.peak_bytes / _GIB, made.peak_phase, f"{where.gpu_bytes / _GIB:.1f}"
    text = f"GiB on each GPU at the peak ({_PHASES[phase]}), estimated"
    if not where.gpus and report.stage:
        pass  # it was said once for all stages
    elif not where.gpus:
        report.note("memory", "estimated for GPUs alone: --gpus and --gpu_memory say which")
    elif made.peak_bytes > where.gpu_bytes:
        report.stop(
            "memory",
            f"{peak:.1f} {text}, but there are {there}: {_REMEDIES[phase]}; or choose another of "
            f"recipes/hardware.\n{made.table()}",
        )
    elif made.peak_bytes > _TIGHT * where.gpu_bytes:
        report.note("memory", f"{peak:.1f} of {there} {text}: tight for an estimate\n{made.table()}")
    else:
        table = f"\n{made.table()}" if report.is_verbose else ""
        report.ok("memory", f"{peak:.1f} of {there} {text}{table}")
    if made.host_bytes:
        _compare_host(report, made.host_bytes, where)
    if made.vllm_tokens is not None and where.gpus:
        room = f"vLLM's share holds keys and values of {made.vllm_tokens} tokens"
        if made.vllm_tokens < plan.longest:
            report.stop(
                "vllm",
                f"{room}, but the longest prompt and completion are {plan.longest}: raise "
                "vllm_gpu_memory_utilization, or lower max_completion_length or max_prompt_tokens.",
            )
        else:
            report.ok("vllm", f"{room}, {made.vllm_tokens // plan.longest} sequences of the longest at a time")


def _compare_host(report: Report, needed: int, where: Machine) -> None:
    import psutil

    total = psutil.virtual_memory().total
    if where.is_here and needed > total:
        report.stop(
            "host memory",
            f"{needed / _GIB:.0f} GiB are offloaded to it, but there are {total / _GIB:.0f}: take a recipe without "
            "offload and more GPUs, or set use_peft.",
        )
    else:
        report.ok("host memory", f"{needed / _GIB:.0f} GiB are offloaded to it")


def check_servers(report: Report, training: Any) -> None:
    """Servers that are asked during the run."""
    from open_r1_vision import train

    for name, config in training.reasoners.items():
        if config.kind == "endpoint":
            with report.attempt(name):
                train.check_reasoners(SimpleNamespace(reasoners={name: config}))
                report.ok(name, f"{config.model} answers at {config.base_url}")
        elif config.kind == "local":
            files.check_model(report, config.model)
            report.note(name, f"{config.model} takes memory in each process, which the estimate does not count")
    if training.use_vllm and training.vllm_mode == "server":
        url = training.vllm_server_base_url or f"http://{training.vllm_server_host}:{training.vllm_server_port}"
        check_vllm_server(report, url)


def check_vllm_server(report: Report, url: str) -> None:
    """Whether vLLM's server is up."""
    import urllib.error
    import urllib.request

    try:
        with urllib.request.urlopen(f"{url.rstrip('/')}/health", timeout=10):
            report.ok("vllm", f"its server answers at {url}")
    except (urllib.error.URLError, OSError, ValueError) as error:
        report.stop("vllm", f"its server does not answer at {url} ({error}): start it, or set vllm_server_base_url.")


def check_rows(
    report: Report, script: Any, training: Any, trainer_class: Any, folder: str | None, num_rows: int
) -> None:
    """Rewards that can be imported, rows with the columns that they need, and the first rows themselves."""
    from open_r1_vision import train
    from open_r1_vision.curriculum.checks import on_cpu
    from open_r1_vision.data.loading import load_rows
    from open_r1_vision.data.rows import add_prompts
    from open_r1_vision.rewards.loading import check_settings

    rows: Any = None
    with report.attempt("data"):
        rows = load_rows(script.dataset, script.dataset_split, **script.dataset_options)
    names = () if rows is None else rows.column_names
    rewards: list = []
    with report.attempt("rewards"):
        check_weights(training.reward_weights, script.reward_funcs)
        rewards = train.name_rewards(script, names)
        check_settings(map(on_cpu, rewards))
        report.ok("rewards", ", ".join(map(reward_name, rewards)))
    with report.attempt("rewards"):
        gate = train.load_gate(training, script.answer_form, names)
    held_out: Any = None
    with report.attempt("data"):
        held_out = train.load_eval_rows(script)
    if rows is None:
        return
    with report.attempt("data"):
        train.check_needs(rows, [*rewards, *gate.values()], trainer_class, training.named_columns)
        if held_out is not None:
            held_out = add_prompts(held_out, **script.prompt_texts)
        rows = add_prompts(rows, **script.prompt_texts)
        looked = look_at_rows(script, training.max_prompt_tokens, rows, rewards, folder, num_rows)
        more = f", {len(held_out)} held out" if held_out is not None else ""
        report.ok("data", f"{len(rows)} rows{more}; columns are there, {looked}")


def look_at_rows(
    options: Any, max_prompt_tokens: int | None, rows: Any, rewards: list, folder: str | None, num_rows: int
) -> str:
    """Check the first rows as training does; returns what to say about them.

    Args:
        options: whose prompts and limits of pixels count.
        max_prompt_tokens: of the recipe.
        rows: in the row schema.
        rewards: whose columns they need.
        folder: of the model with their processor, None where there is none yet.
        num_rows: how many to look at.

    Raises:
        ValueError: there are bad ones among them.
    """
    from open_r1_vision import train
    from open_r1_vision.models import load_processor

    count = min(num_rows, len(rows))
    if folder is None or not count:
        return "not looked at without a processor" if count else "there are none"
    processor = load_processor(folder, options.min_pixels, options.max_pixels)
    checked: Any = SimpleNamespace(check_rows=count, prompt_texts=options.prompt_texts)
    with contextlib.redirect_stdout(io.StringIO()):  # it says how many it checked
        train.check_inputs(checked, max_prompt_tokens, rows, rewards, processor)
    return f"the first {count} are good"


def check_output(report: Report, recipe: Recipe, output_dir: str, overwrite: bool, processes: int) -> None:
    """Whose output folder it is."""
    from open_r1_vision.runs import open_run

    with report.attempt("output"):
        folder = Path(output_dir)
        state = open_run(folder, {**recipe.as_plain(), "num_processes": processes}, overwrite)
        if state.finished:
            report.note("output", f"{folder} holds this run, finished: nothing would be trained")
        elif state.checkpoint:
            report.ok("output", f"goes on from {state.checkpoint}")
        elif state.obsolete:
            report.note("output", f"overwrite_output would delete the run in {folder}")
        else:
            report.ok("output", f"a new run in {folder}")
