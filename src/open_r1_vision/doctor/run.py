# SPDX-License-Identifier: Apache-2.0
"""One training run: its batch, memory, rows, rewards, servers and output folder, by the checks that training has."""

import contextlib
import dataclasses
import io
from types import SimpleNamespace
from typing import Any

from open_r1_vision.arguments import Recipe
from open_r1_vision.doctor import files, machine
from open_r1_vision.doctor.machine import Machine
from open_r1_vision.doctor.report import Report
from open_r1_vision.memory.plan import Plan
from open_r1_vision.rewards.loading import check_weights

_GIB = 2**30
#: From this share of the GPU's memory on an estimate may be wrong.
_TIGHT = 0.9
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
        "vllm": plain.get("use_vllm") or any(isinstance(r, dict) and r.get("backend") == "vllm" for r in reasoners),
        "reasoners": any(isinstance(block, dict) and block.get("kind") == "endpoint" for block in reasoners),
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
    from open_r1_vision import train
    from open_r1_vision.memory.plan import parse_training

    with report.attempt("recipe"):
        script, training, model = parse_training(recipe)
        trainer_class = train.find_trainer(recipe)
        report.ok(
            "recipe", f"{len(recipe.settings)} keys, {trainer_class.__name__}, {len(script.reward_funcs)} reward(s)"
        )
        machine.check_gpus(report, where, bool(training.bf16))
        machine.check_attention(report, where, model.attn_implementation)
        folder = files.check_model(report, model.model_name_or_path)
        check_memory(report, recipe, script, training, model, where, folder)
        check_servers(report, training)
        check_rows(report, script, training, trainer_class, folder, num_rows)
        check_output(report, recipe, script, training, where)


def check_memory(
    report: Report, recipe: Recipe, script: Any, training: Any, model: Any, where: Machine, folder: str | None
) -> None:
    """Batch, memory of GPUs and host, vLLM's cache, DeepSpeed, disk."""
    from open_r1_vision.memory.plan import plan_of, read_deepspeed

    with report.attempt("deepspeed"):
        machine.check_deepspeed(report, where, read_deepspeed(recipe.as_plain().get("deepspeed")))
    with report.attempt("batch"):
        # by its hub id it needs no download
        named = model if folder is None else dataclasses.replace(model, model_name_or_path=folder)
        plan = plan_of(recipe, script, training, named, where.processes, where.gpu_bytes or 80 * _GIB)
        if plan.batch:
            report.ok("batch", str(plan.batch))
        compare_memory(report, plan, where)
        made = plan.estimate()
        files.check_disk(report, plan.output_dir, made.checkpoint_bytes, plan.checkpoints_kept, made.final_bytes)


def compare_memory(report: Report, plan: Plan, where: Machine) -> None:
    """The estimate against the memory of GPUs and host, and vLLM's cache against the longest sequence."""
    made = plan.estimate()
    peak, phase = made.peak_bytes / _GIB, made.peak_phase
    text = f"{peak:.1f} GiB on each GPU at the peak, estimated, in the {phase} phase"
    if not where.gpus:
        report.note("memory", "estimated for GPUs alone: --gpus and --gpu_memory say which")
    elif made.peak_bytes > where.gpu_bytes:
        report.stop(
            "memory",
            f"{text}, but there are {where.gpu_bytes / _GIB:.1f}: {_REMEDIES[phase]}; or choose another of "
            f"recipes/hardware.\n{made.table()}",
        )
    elif made.peak_bytes > _TIGHT * where.gpu_bytes:
        report.note("memory", f"{text} of {where.gpu_bytes / _GIB:.1f}: tight for an estimate\n{made.table()}")
    else:
        table = f"\n{made.table()}" if report.is_verbose else ""
        report.ok("memory", f"{text} of {where.gpu_bytes / _GIB:.1f}{table}")
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

    with report.attempt("rewards"):
        check_weights(training.reward_weights, script.reward_funcs)
    with report.attempt("data"):
        rows, eval_rows, rewards = train.load_inputs(script, trainer_class, training.named_columns)
        report.ok("rewards", ", ".join(train_name(reward) for reward in rewards))
        held_out = f", {len(eval_rows)} held out" if eval_rows is not None else ""
        count = min(num_rows, len(rows))
        if folder is not None and count:
            from open_r1_vision.models import load_processor

            processor = load_processor(folder, script.min_pixels, script.max_pixels)
            checked = dataclasses.replace(script, check_rows=count)
            with contextlib.redirect_stdout(io.StringIO()):  # it says how many it checked
                train.check_inputs(checked, training.max_prompt_tokens, rows, rewards, processor)
        looked = f"the first {count} are good" if folder is not None else "not looked at without a processor"
        report.ok("data", f"{len(rows)} rows{held_out}; columns are there, {looked}")


def train_name(reward: Any) -> str:
    """What a reward is called in logs."""
    from open_r1_vision.rewards.loading import reward_name

    return reward_name(reward)


def check_output(report: Report, recipe: Recipe, script: Any, training: Any, where: Machine) -> None:
    """Whose output folder it is."""
    from pathlib import Path

    from open_r1_vision.runs import open_run

    with report.attempt("output"):
        folder = Path(training.output_dir)
        settings = {**recipe.as_plain(), "num_processes": where.processes}
        state = open_run(folder, settings, script.overwrite_output)
        if state.finished:
            report.note("output", f"{folder} holds this run, finished: nothing would be trained")
        elif state.checkpoint:
            report.ok("output", f"goes on from {state.checkpoint}")
        elif state.obsolete:
            report.note("output", f"overwrite_output would delete the run in {folder}")
        else:
            report.ok("output", f"a new run in {folder}")
