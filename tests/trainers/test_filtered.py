# SPDX-License-Identifier: Apache-2.0
"""Groups without signal give way to fresh prompts: in tokens, images, rewards and logs alike."""

import json
from pathlib import Path

import pyarrow.parquet
import pytest
import transformers
from processes import run_train, write_recipe
from text_model import save_text_model
from tiny_models import IDS, make_trainer, options, recording, rows, step_logs
from trl import GRPOTrainer

from open_r1_vision.trainers import FilteredGRPOConfig, FilteredGRPOTrainer, VisionGRPOTrainer, filtered

IMAGE = IDS["<|image_pad|>"]


def gate_of(*good):
    """A gate that gives the rows with these numbers one right completion of two, and the others none."""

    def gate(completions, id, **columns):
        seen: dict = {}
        scores = []
        for row_id in id:
            seen[row_id] = seen.get(row_id, -1) + 1
            scores.append(float(int(row_id.split("-")[1]) in good and seen[row_id] % 2 == 0))
        return scores

    return gate


def spy(received):
    def reward(completions, completion_ids, id, images, **columns):
        received.append((list(id), [len(of_row) for of_row in images], [list(ids) for ids in completion_ids]))
        return [sum(ids) % 7 / 7 for ids in completion_ids]

    return reward


@pytest.fixture
def train(tiny_model, tmp_path):
    """`train(dataset, gate, **settings)` trains a step on the first two rows; gives trainer, reward calls and logs."""

    def run(dataset, gate, **settings):
        received: list = []
        settings = {"shuffle_dataset": False, "max_steps": 1, "filter_rounds": 8, **settings}
        args = options(tmp_path, FilteredGRPOConfig, **settings)
        trainer = make_trainer(recording(FilteredGRPOTrainer), tiny_model, args, dataset, spy(received), gate=gate)
        trainer.train()
        names = ("filter/replaced", "filter/left", "filter/rounds", "filter/extra_tokens")
        return trainer, received, dict(zip(names, step_logs(trainer, *names)[0], strict=True))

    return run


def test_a_group_without_signal_gives_way_to_a_fresh_prompt(train):
    dataset = rows(1, 1, 2, 1, 1, 2)
    trainer, received, logs = train(dataset, gate_of(0, 2))
    ((ids, counts, _),) = received
    assert (ids, counts) == (["row-0", "row-0", "row-2", "row-2"], [1, 1, 2, 2])
    (output,) = trainer.outputs
    # tokens, images and lengths are those of the new rows: row 2 has two images of 4 tokens, and 14 letters more
    assert [(of_row == IMAGE).sum().item() for of_row in output["prompt_ids"]] == [4, 4, 8, 8]
    assert output["num_images"] == [1, 1, 2, 2]
    assert len(output["image_grid_thw"]) == 6
    texts = trainer.processing_class.batch_decode(output["prompt_ids"])
    assert ["please please" in text for text in texts] == [False, False, True, True]
    assert logs["filter/replaced"] == 0.5
    assert logs["filter/left"] == 0
    assert 1 <= logs["filter/rounds"] <= 8
    assert logs["filter/extra_tokens"] > 0


def test_rewards_get_what_was_sampled_for_the_fresh_prompt(train):
    trainer, received, _ = train(rows(1, 1, 1), gate_of(2))
    ((ids, _, completions),) = received
    assert set(ids) >= {"row-2"}
    (output,) = trainer.outputs
    masks = output["completion_mask"].sum(dim=1).tolist()
    assert [of_row[:n].tolist() for of_row, n in zip(output["completion_ids"], masks, strict=True)] == completions


def test_there_is_a_limit_and_what_is_left_is_told(train):
    _, received, logs = train(rows(1, 1, 1, 1, 1), gate_of(), filter_rounds=2)
    assert logs["filter/replaced"] == logs["filter/left"] == 1
    assert logs["filter/rounds"] == 2
    # two groups, never two of one row
    assert len(set(received[0][0])) == 2


def test_nothing_is_replaced_where_all_is_well(train):
    _, received, logs = train(rows(1, 1, 1), gate_of(0, 1))
    assert received[0][0] == ["row-0", "row-0", "row-1", "row-1"]
    assert set(logs.values()) == {0}


def test_bounds_of_the_perception_stage(train):
    """Kept are groups that are all right; here none is, but row 1 has no score, and is kept too."""

    def gate(completions, id, **columns):
        return [None if row_id == "row-1" else float(row_id in ("row-2", "row-4")) for row_id in id]

    settings = {"filter_above": 0.9999, "filter_below": 1.0001}
    _, received, logs = train(rows(1, 1, 1, 1, 1), gate, **settings)
    assert set(received[0][0][:2]) <= {"row-2", "row-4"}
    assert received[0][0][2:] == ["row-1", "row-1"]
    assert logs["filter/left"] == 0


def test_rows_without_images_stay_among_themselves(train):
    trainer, received, logs = train(rows(1, 0, 0, 1, 0), gate_of(2, 3))
    assert received[0][0] == ["row-3", "row-3", "row-2", "row-2"]
    assert received[0][1] == [1, 1, 0, 0]
    assert logs["filter/left"] == 0
    # no other row without images: the one that is there stays, and is told
    _, received, logs = train(rows(1, 0, 1), gate_of(2))
    assert received[0][0] == ["row-2", "row-2", "row-1", "row-1"]
    assert logs["filter/left"] == 0.5


def test_the_same_rows_are_drawn_again(train):
    dataset = rows(*[1] * 30)
    first = train(dataset, gate_of(*range(2, 30)))[1][0][0]
    assert train(dataset, gate_of(*range(2, 30)))[1][0][0] == first
    assert train(dataset, gate_of(*range(2, 30)), seed=7)[1][0][0] != first


def test_with_nothing_to_filter_the_losses_are_trls(tiny_model, tmp_path):
    logs = []
    for trainer_class, config, extra in (
        (GRPOTrainer, None, {}),
        (FilteredGRPOTrainer, FilteredGRPOConfig, {"gate": lambda completions, **_: [0.5] * len(completions)}),
    ):
        args = options(tmp_path, config, shared_prefix=False)
        trainer = make_trainer(trainer_class, tiny_model, args, rows(1, 1, 1, 1), **extra)
        trainer.generation_config.suppress_tokens = trainer.generation_kwargs["suppress_tokens"] = None
        trainer.train()
        logs.append(step_logs(trainer, "loss", "grad_norm", "reward"))
    assert logs[0] == logs[1]


def test_bad_options(tmp_path):
    for settings, message in [
        ({"filter_above": 1.0}, "filter_above is 1.0 and filter_below 1.0, so that no group could be kept"),
        ({"filter_rounds": 0}, "filter_rounds is 0: set at least 1"),
    ]:
        with pytest.raises(ValueError, match=message):
            options(tmp_path, FilteredGRPOConfig, **settings)
    assert "solution" in options(tmp_path, FilteredGRPOConfig).named_columns
    assert issubclass(FilteredGRPOTrainer, VisionGRPOTrainer)


def test_a_text_model_on_a_process_with_fewer_fresh_rows(tmp_path, monkeypatch):
    """Its repeated chats are as the data set has them: templates of text models take no list of parts."""
    model = save_text_model(tmp_path / "model")
    dataset = rows(0, 0).remove_columns(["images", "prompt"])
    dataset = dataset.add_column("prompt", [[{"role": "user", "content": text}] for text in dataset["problem"]])
    trainer = make_trainer(
        FilteredGRPOTrainer,
        model,
        options(tmp_path, FilteredGRPOConfig),
        dataset,
        processing_class=transformers.AutoTokenizer.from_pretrained(model),
    )
    trainer._batch_rows = [{**row, "images": []} for row in dataset]
    monkeypatch.setattr(trainer.accelerator.state, "num_processes", 2)
    # the other process has two more
    monkeypatch.setattr(filtered, "gather_object", lambda counts: [*counts, counts[0] + 2])
    prompt_ids, images, _, completion_ids = trainer._sample([dataset[1]["prompt"]])
    assert "please" in trainer._tokenizer.decode(prompt_ids[0])
    assert (len(prompt_ids), images, len(completion_ids)) == (1, [None], 1)


def even_gate(completions, id, **columns):
    """Half a point for rows with an even number, nothing for the others."""
    return [0.5 * (int(row_id.split("-")[1]) % 2 == 0) for row_id in id]


def test_across_processes(tiny_model, tmp_path):
    """Three groups of four completions on two processes, the second group on both."""
    recipe = write_recipe(
        tmp_path,
        tiny_model,
        trainer="open_r1_vision.trainers.FilteredGRPOTrainer",
        filter_gate="test_filtered.even_gate",
        filter_rounds=10,
        dataset_options={"count": 40, "texts": [1, 4, 8, 12]},
        prompts_per_step=3,
        max_completions_per_device=6,
        max_steps=2,
        save_strategy="no",
        log_completions=True,
    )
    outcome = run_train(recipe, PYTHONPATH=f"{Path(__file__).parent}:{Path(__file__).parents[1]}:{_source()}")
    assert outcome.code == 0, outcome.log[-4000:]
    for step in (1, 2):
        file = tmp_path / "run" / "completions" / f"completions_{step:05d}.parquet"
        table = pyarrow.parquet.read_table(file).to_pydict()
        groups = [table["id"][start : start + 4] for start in (0, 4, 8)]
        assert all(len(set(group)) == 1 for group in groups)
        assert all(int(group[0].split("-")[1]) % 2 == 0 for group in groups)
        assert len({group[0] for group in groups}) == 3
        asked = [prompt[-1]["content"][-1]["text"] for prompt in table["prompt"]]
        assert all(f"of {row_id.split('-')[1]}?" in text for row_id, text in zip(table["id"], asked, strict=True))
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["means"]["filter/left"] == 0


def _source():
    import open_r1_vision

    return Path(open_r1_vision.__file__).parents[1]
