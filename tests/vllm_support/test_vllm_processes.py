# SPDX-License-Identifier: Apache-2.0
"""Real engines in other processes: two with an engine each, two that share one, and `sample` with one apart."""

import json
from pathlib import Path

import pytest

pytest.importorskip("vllm", reason="`make test-vllm` installs it")

from processes import run_command, run_train, write_recipe  # noqa: E402

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(400)]


def train(folder, model, gaps, what, *words, processes=2, **settings):
    """A run through torchrun; returns its log and its gaps."""
    vllm = {"use_vllm": True, "vllm_max_model_length": 512, "vllm_gpu_memory_utilization": 0.1}
    recipe = write_recipe(folder, model, **{"max_steps": 20, "save_steps": 20, "beta": 0.0, **vllm, **settings})
    outcome = run_train(recipe, *words, processes=processes, timeout=350, VLLM_LOGGING_LEVEL="WARNING")
    assert outcome.code == 0, outcome.log[-6000:]
    state = json.loads((folder / "run" / "checkpoint-20" / "trainer_state.json").read_text())
    return state["log_history"], gaps(what, state["log_history"])


LORA = {
    "lora_r": 4,
    "lora_alpha": 64,
    "lora_dropout": 0.0,
    "lora_target_modules": ["q_proj", "v_proj"],
}


@pytest.mark.parametrize(
    ("size", "kind", "limit"),
    [(1, "float32", 1e-5), (2, "float32", 1e-5), (1, "bfloat16", 1e-3), (2, "LoRA, float32", 1e-5)],
)
def test_two_processes(tmp_path, wide_model, gaps, size, kind, limit):
    """Some rows have no image, so that one process may have images where the other has none."""
    what = "two processes, an engine each" if size == 1 else "two processes, tensor parallel 2"
    options = {"texts": [1, 2]}
    shared_memory = set(Path("/dev/shm").glob("*cpushm*"))
    settings = {"dataset_options": options, "vllm_tensor_parallel_size": size, "learning_rate": 1e-3}
    settings |= {"dtype": "bfloat16"} if kind == "bfloat16" else {}
    settings |= {"use_peft": True, **LORA} if "LoRA" in kind else {}
    history, values = train(tmp_path, wide_model(), gaps, f"{what}, {kind}", **settings)
    assert len(values) == 20
    assert max(values) <= limit
    assert all(entry["grad_norm"] > 0 for entry in history if "grad_norm" in entry)
    # both processes took part, each with prompts of its own
    notes = [
        [json.loads(line) for line in (tmp_path / "run" / f"notes-{rank}.jsonl").read_text().splitlines()]
        for rank in (0, 1)
    ]
    for first, second in zip(*notes, strict=True):
        assert not set(first["ids"]) & set(second["ids"])
    # nothing is left that the next run would trip over
    assert set(Path("/dev/shm").glob("*cpushm*")) <= shared_memory
    assert {note["images"] for of_rank in notes for note in of_rank} != {0}


def test_samples_of_vllm_are_those_of_transformers(tmp_path, starter):
    """At so low a temperature that both say what is likeliest; vLLM's engine is in a process that it starts itself."""
    from open_r1_vision import sample

    settings = {
        "model_name_or_path": starter,
        "dtype": "float32",
        "dataset": "open_r1_vision.starter.digits.rows",
        "dataset_options": json.dumps({"count": 3}),
        "system_prompt": "starter",
        "num_generations": 1,
        "max_completion_length": 40,
        "temperature": 1e-3,
        "vllm_max_model_length": 256,
    }
    lines = []
    for backend in ("transformers", "vllm"):
        given = {**settings, "backend": backend, "output_dir": tmp_path / backend}
        words = [word for name, value in given.items() for word in (f"--{name}", str(value))]
        if backend == "vllm":
            outcome = run_command(["-m", "open_r1_vision.sample", *words], 350, TORCH_COMPILE_DISABLE="1")
            assert outcome.code == 0, outcome.log[-6000:]
        else:
            assert sample.main(words) == 0
        lines.append([json.loads(line) for line in (tmp_path / backend / "samples.jsonl").read_text().splitlines()])
    assert lines[0] == lines[1]
    assert all("</answer>" in line["completion"] for line in lines[0])
