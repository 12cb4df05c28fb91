# SPDX-License-Identifier: Apache-2.0
"""What the trainers take from TRL without a promise that it stays, so that an upgrade says what moved."""

import ast
import functools
import inspect
import re
import textwrap

import pytest
import trl
from transformers import Trainer
from transformers.trainer_callback import CallbackHandler
from trl import GRPOTrainer
from trl.generation import vllm_generation
from trl.generation.vllm_generation import VLLMGeneration
from trl.trainer import grpo_trainer
from trl.trainer import utils as trl_utils
from trl.trainer.utils import RepeatSampler

from open_r1_vision.trainers import CaptionGRPOTrainer, FilteredGRPOTrainer, HintGRPOTrainer, VisionGRPOTrainer
from open_r1_vision.trainers import base as base_module
from open_r1_vision.trainers import caption as caption_module
from open_r1_vision.trainers import colocated_vllm as colocated_vllm_module
from open_r1_vision.trainers import fetching_once as fetching_once_module
from open_r1_vision.trainers import filtered as filtered_module
from open_r1_vision.trainers import group_generation as group_generation_module
from open_r1_vision.trainers import hint as hint_module
from open_r1_vision.trainers import missing_images as missing_images_module
from open_r1_vision.trainers import processing_once as processing_once_module
from open_r1_vision.trainers import shared_prefix as shared_prefix_module
from open_r1_vision.trainers import timing as timing_module
from open_r1_vision.trainers import whole_checkpoints as checkpoints_module
from open_r1_vision.trainers import without_signal as without_signal_module
from open_r1_vision.trainers.colocated_vllm import ColocatedVLLM
from open_r1_vision.trainers.fetching_once import FetchingOnce
from open_r1_vision.trainers.group_generation import GroupGeneration
from open_r1_vision.trainers.missing_images import MissingImages
from open_r1_vision.trainers.processing_once import ProcessingOnce
from open_r1_vision.trainers.shared_prefix import SharedPrefix
from open_r1_vision.trainers.timing import TimedSteps
from open_r1_vision.trainers.whole_checkpoints import WholeCheckpoints
from open_r1_vision.trainers.without_signal import WithoutSignal

#: Methods that we override or call, with their parameters.
METHODS = {
    "__init__": "self, model, reward_funcs, args, train_dataset, eval_dataset, processing_class, "
    "reward_processing_classes, callbacks, optimizers, quantization_config, peft_config, tools, rollout_func, "
    "environment_factory",
    "_get_train_sampler": "self, dataset",
    "_prepare_inputs": "self, generation_batch",
    "_get_per_token_logps_and_entropies": "self, model, input_ids, attention_mask, logits_to_keep, batch_size, "
    "compute_entropy, compute_aux_loss, pixel_values, image_grid_thw, num_images, pixel_attention_mask, "
    "spatial_shapes, num_tiles, image_sizes, token_type_ids, mm_token_type_ids, image_position_ids",
    "_generate_and_score_completions": "self, inputs",
    "_generate": "self, prompts",
    "_tokenize_prompts": "self, prompts",
    "_generate_single_turn": "self, prompt_ids, images, multimodal_fields, num_generations, has_tool_images",
    "_calculate_rewards": "self, inputs, prompts, completions, completion_ids_list",
    "_log_metric": "self, name, value",
    "_log_completion_extra": "self, column, values",
    "_compute_loss": "self, model, inputs",
    "training_step": "self, model, inputs, num_items_in_batch",
    "get_batch_samples": "self, epoch_iterator, num_batches, device",
    "_clip_grad_norm": "self, model",
    "_get_dataloader": "self, dataset, description, batch_size, sampler_fn, is_training, dataloader_key",
    "log": "self, logs, start_time",
    "_run_epoch": "self, model, epoch, train_dataloader, steps_in_epoch, num_update_steps_per_epoch, trial, "
    "ignore_keys_for_eval, start_time, resume_from_checkpoint, epochs_trained, steps_trained_in_current_epoch",
    "_save_checkpoint": "self, model, trial",
    "_load_from_checkpoint": "self, resume_from_checkpoint, model",
    "_load_best_model": "self",
    "_save_optimizer_and_scheduler": "self, output_dir",
    "_load_optimizer_and_scheduler": "self, checkpoint",
    "_get_output_dir": "self, trial",
    "add_callback": "self, callback",
}
#: Attributes that we read or set.
ATTRIBUTES = {
    "_buffered_inputs",
    "_entropy_bonus_enabled",
    "_logs",
    "_metrics",
    "_pending_extra_logs",
    "_step",
    "_tokenizer",
    "accelerator",
    "args",
    "aux_loss_enabled",
    "beta",
    "control",
    "eos_token_ids",
    "generation_config",
    "generation_kwargs",
    "is_deepspeed_enabled",
    "is_fsdp_enabled",
    "log_multimodal",
    "model",
    "model_wrapped",
    "multi_objective_aggregation",
    "num_generations",
    "num_generations_eval",
    "processing_class",
    "max_completion_length",
    "ref_model",
    "reward_func_names",
    "reward_funcs",
    "reward_weights",
    "state",
    "tools",
    "top_entropy_quantile",
    "train_dataset",
    "use_transformers_continuous_batching",
    "use_vllm",
    "vllm_generation",
    "vllm_importance_sampling_correction",
    "vllm_mode",
}
#: Attributes of TRL's vLLM backend that we read or set.
VLLM_ATTRIBUTES = {
    "_llm_weights_sleeping",
    "accelerator",
    "enable_sleep_mode",
    "generation_kwargs",
    "llm",
    "max_completion_length",
    "min_p",
    "model",
    "processing_class",
    "repetition_penalty",
    "structured_outputs_regex",
    "temperature",
    "top_k",
    "top_p",
}
TRAINERS = [
    (TimedSteps, GRPOTrainer, timing_module),
    (WholeCheckpoints, GRPOTrainer, checkpoints_module),
    (FetchingOnce, GRPOTrainer, fetching_once_module),
    (WithoutSignal, GRPOTrainer, without_signal_module),
    (MissingImages, GRPOTrainer, missing_images_module),
    (GroupGeneration, GRPOTrainer, group_generation_module),
    (ProcessingOnce, GRPOTrainer, processing_once_module),
    (SharedPrefix, GRPOTrainer, shared_prefix_module),
    (ColocatedVLLM, GRPOTrainer, colocated_vllm_module),
    (VisionGRPOTrainer, GRPOTrainer, base_module),
    (CaptionGRPOTrainer, VisionGRPOTrainer, caption_module),
    (FilteredGRPOTrainer, VisionGRPOTrainer, filtered_module),
    (HintGRPOTrainer, VisionGRPOTrainer, hint_module),
]
MOVED = f"TRL {trl.__version__} moved what open_r1_vision builds on: "


@functools.cache
def class_tree(cls):
    return ast.parse(textwrap.dedent(inspect.getsource(cls))).body[0]


@functools.cache
def attributes_set(*classes):
    """Names that a class assigns to self, or defines."""
    names = set()
    for cls in classes:
        names |= set(vars(cls))
        for node in ast.walk(class_tree(cls)):
            if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
                names.add(node.attr)
    return names


def methods_of(cls):
    return {node.name: node for node in class_tree(cls).body if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize("name", METHODS)
def test_method(name):
    method = getattr(GRPOTrainer, name, None)
    assert method is not None, f"{MOVED}GRPOTrainer.{name} is gone"
    parameters = ", ".join(inspect.signature(method).parameters)
    assert parameters == METHODS[name], f"{MOVED}GRPOTrainer.{name} takes ({parameters}), not ({METHODS[name]})"


@pytest.mark.parametrize("name", sorted(ATTRIBUTES))
def test_attribute(name):
    classes = [cls for cls in GRPOTrainer.__mro__ if cls is not object]
    assert name in attributes_set(*classes), f"{MOVED}GRPOTrainer no longer has the attribute {name}"
    assert Trainer in classes


@pytest.mark.parametrize("name", sorted(VLLM_ATTRIBUTES))
def test_attribute_of_the_vllm_backend(name):
    assert name in attributes_set(VLLMGeneration), f"{MOVED}VLLMGeneration no longer has the attribute {name}"


def test_vllm_backend():
    for name, expected in {
        "_init_vllm": "self",
        "sync_weights": "self",
        "generate": "self, prompts, images, num_generations, profiler",
    }.items():
        parameters = ", ".join(inspect.signature(getattr(VLLMGeneration, name)).parameters)
        assert parameters == expected, f"{MOVED}VLLMGeneration.{name} takes ({parameters}), not ({expected})"
    source = inspect.getsource(GRPOTrainer._generate_single_turn)
    assert "self.state.global_step != self._last_loaded_step" in source, f"{MOVED}when weights are synchronised"
    # the engine's class comes in its place, and gives the engine options
    assert grpo_trainer.VLLMGeneration is VLLMGeneration
    assert "self.vllm_generation = VLLMGeneration(" in inspect.getsource(GRPOTrainer), f"{MOVED}what makes the backend"
    made = inspect.getsource(VLLMGeneration._init_vllm)
    assert "self.llm = LLM(\n" in made, f"{MOVED}what makes the engine"
    options = made.partition("self.llm = LLM(")[2].partition("\n            )")[0]
    ours = {"dtype", "mm_processor_kwargs", "limit_mm_per_prompt", "enforce_eager"}
    assert not ours & set(re.findall(r"^ +(\w+)=", options, re.M)), f"{MOVED}it gives the engine more options"
    pushed = inspect.getsource(VLLMGeneration.sync_weights)
    assert "reset_encoder_cache" not in pushed, f"{MOVED}image features are forgotten with the weights"
    # sleep of another level takes the place of this one
    passes = inspect.getsource(VLLMGeneration.generate)
    assert passes.count("self.llm.sleep(level=2)") == 1, f"{MOVED}when the engine sleeps"
    assert (
        passes.count("self.enable_sleep_mode and self._llm_weights_sleeping:\n            self.sync_weights()") == 1
    ), f"{MOVED}when weights that sleep threw away are pushed"
    assert inspect.isfunction(vllm_generation.empty_cache), f"{MOVED}what frees the GPU's memory"


def test_passes_that_share_prompts():
    """A callable stands in for the model there, and gets what TRL's fused LM head takes."""
    scoring = ast.unparse(methods_of(GRPOTrainer)["_get_per_token_logps_and_entropies"])
    calls = re.findall(r"\bmodel\b[^_].*", scoring.partition(":\n")[2])
    assert [call for call in calls if "model(" in call] == [
        "model(**model_inputs, labels=labels, fused_lm_head=True)"
    ], f"{MOVED}how the model is called for log-probabilities"
    used = set(re.findall(r"outputs\.(\w+)", scoring))
    assert used == {"log_probs", "entropy", "aux_loss"}, f"{MOVED}of the model's outputs it reads {used}"
    head = inspect.getsource(trl_utils.add_fused_lm_head)
    assert "hidden_states = backbone_outputs.last_hidden_state\n            labels = shift_labels" in head, (
        f"{MOVED}the LM head shifts labels that are shifted"
    )


def test_the_loss_of_a_micro_batch():
    """Rows that the model isn't run on get constants, and the logged entropy is put right afterwards."""
    loss = ast.unparse(methods_of(GRPOTrainer)["_compute_loss"])
    assert (
        loss.count("self._get_per_token_logps_and_entropies(model, input_ids, attention_mask, logits_to_keep") == 1
    ), f"{MOVED}how the loss asks for log-probabilities"
    assert "self._metrics[mode]['entropy'].append(global_masked_mean(entropies))" in loss, f"{MOVED}the logged entropy"
    # without a KL term and a bonus these are all that the loss takes of a row beside its log-probabilities
    used = set(re.findall(r"inputs(?:\.get\(|\[)'(\w+)'", loss))
    known = {"advantages", "num_items_in_batch", "old_per_token_logps", "ref_per_token_logps", "tool_mask"}
    known |= {"importance_sampling_ratio", "sampling_per_token_logps"}
    known |= {f"{part}_{kind}" for part in ("prompt", "completion") for kind in ("ids", "mask")}
    scored = set(METHODS["_get_per_token_logps_and_entropies"].split(", "))
    assert used - scored == known, f"{MOVED}the loss takes {used - scored - known}"


def test_the_order_of_an_optimizer_step():
    """By which seconds are told apart."""
    source = inspect.getsource(Trainer._run_epoch)
    steps = ["self.get_batch_samples(", "on_step_begin(", "self.training_step(", "self._clip_grad_norm("]
    steps += ["on_pre_optimizer_step(", "self.optimizer.step(", "zero_grad()", "on_step_end("]
    steps += ["self._maybe_log_save_evaluate("]
    places = [source.find(step) for step in steps]
    assert -1 not in places and places == sorted(places), f"{MOVED}the order of {steps}"


def test_rewards_and_advantages_that_are_logged():
    """Equal rewards are found there, those of all processes."""
    caller = ast.unparse(methods_of(GRPOTrainer)["_generate_and_score_completions"])
    for statement in (
        "self._logs['rewards'][name].extend(rewards_per_func[:, i].tolist())",
        "self._logs['advantages'].extend(all_process_advantages.tolist())",
    ):
        assert statement in caller, f"{MOVED}what is logged: {statement}"
    assert "deque(maxlen=args.generation_batch_size)" in inspect.getsource(GRPOTrainer.__init__), f"{MOVED}the logs"


def test_logs_and_tables_of_trackers():
    """Tables are made by the module's trackers, and a log of its own may not look like that of the step."""
    log = ast.unparse(methods_of(GRPOTrainer)["log"])
    for statement in (
        "logging_backends.append(wandb)",
        "logging_backends.append(trackio)",
        "logging_backend.log({'completions': logging_backend.Table(dataframe=df)})",
        "images.append([logging_backend.Image(image) for image in image_list])",
    ):
        assert statement in log, f"{MOVED}what trackers get: {statement}"
    assert "control.should_log = False" in inspect.getsource(CallbackHandler.on_log), f"{MOVED}what a log ends"


def test_micro_batches():
    prepare = ast.unparse(methods_of(GRPOTrainer)["_prepare_inputs"])
    steps = [
        "split_pixel_values_by_grid(",
        "shuffle_sequence_dict(",
        "split_tensor_dict(",
        "unsplit_pixel_values_by_grid(",
    ]
    places = [prepare.find(step) for step in steps]
    assert -1 not in places and places == sorted(places), f"{MOVED}how micro-batches are dealt"
    assert "self._buffered_inputs[self._step % self.args.steps_per_generation]" in prepare, f"{MOVED}which one is next"


def test_sampler():
    expected = "data_source, mini_repeat_count, batch_size, repeat_count, shuffle, seed"
    parameters = ", ".join(inspect.signature(RepeatSampler).parameters)
    assert parameters == expected, f"{MOVED}RepeatSampler takes ({parameters}), not ({expected})"
    missing = {*expected.split(", "), "num_samples", "generator"} - attributes_set(RepeatSampler)
    assert not missing, f"{MOVED}RepeatSampler no longer has {missing}"


def test_outputs_of_generate():
    statement = [node for node in ast.walk(methods_of(GRPOTrainer)["_generate"]) if isinstance(node, ast.Return)][-1]
    names = [element.id for element in statement.value.elts]
    assert names[-2:] == ["images", "tool_images"], f"{MOVED}_generate returns {names}"


def test_lists_that_the_filter_writes_to():
    """Fresh prompts take their places in lists that TRL goes on with."""
    caller = ast.unparse(methods_of(GRPOTrainer)["_generate_and_score_completions"])
    after = caller.partition("self._generate(prompts)")[2]
    assert "zip(prompts, per_prompt_tools" in after, f"{MOVED}the prompts are not used after _generate"
    assert "self._calculate_rewards(inputs, prompts, completions" in after, f"{MOVED}rewards get other rows"
    generate = ast.unparse(methods_of(GRPOTrainer)["_generate"])
    assert "self._generate_single_turn(prompt_ids, images, multimodal_fields" in generate, f"{MOVED}what is generated"


def test_the_call_of_generate():
    """Group generation gives `generate` its own loop, and fewer rows of input than it takes of output."""
    source = ast.unparse(methods_of(GRPOTrainer)["_generate_single_turn"])
    call = "unwrapped_model.generate(**generate_inputs, generation_config=self.generation_config)"
    assert call in source, f"{MOVED}how transformers is asked to sample"
    after = source.partition(call)[2]
    assert "prompt_ids" not in after, f"{MOVED}prompts are looked at after sampling"


def test_the_lists_above_are_complete():
    """Whatever our trainers use of self or super() is their own or listed."""
    used = set()
    for cls, _, _ in TRAINERS:
        for node in ast.walk(class_tree(cls)):
            if isinstance(node, ast.Attribute) and ast.unparse(node.value) in ("self", "super()"):
                used.add(node.attr)
    inherited = attributes_set(*(cls for cls in GRPOTrainer.__mro__ if cls is not object))
    own = attributes_set(*(cls for cls, _, _ in TRAINERS)) - inherited
    assert used - own == METHODS.keys() | ATTRIBUTES


@pytest.mark.parametrize(("cls", "parent", "module"), TRAINERS)
def test_the_docstring_lists_what_is_overridden(cls, parent, module):
    overridden = {name for name in methods_of(cls) if hasattr(parent, name) and not name.startswith("__")}
    paragraph = next(text for text in re.split(r"\n\s*\n", cls.__doc__) if text.strip().startswith("Overrides"))
    assert set(re.findall(r"`(\w+)`", paragraph)) == overridden
    assert inspect.getsourcefile(cls) == module.__file__


@pytest.mark.parametrize(("cls", "parent", "module"), TRAINERS)
def test_each_override_calls_the_parents(cls, parent, module):
    for name, method in methods_of(cls).items():
        if hasattr(parent, name) and name in {*METHODS, "_generate", "__init__"}:
            assert f"super().{name}(" in ast.unparse(method), name


def test_the_supported_versions():
    assert re.fullmatch(r"1\.16\.\d+", trl.__version__), f"written for TRL 1.16, but {trl.__version__} is installed"
