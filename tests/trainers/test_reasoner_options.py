# SPDX-License-Identifier: Apache-2.0
"""Reasoners as options of trainers: what is found out before anything is loaded, and how long they may take."""

import json
import socket

import pytest
import yaml
from scripted_server import ScriptedServer, reply
from tiny_models import make_trainer, options, recording, rows

from open_r1_vision import train
from open_r1_vision.arguments import read_recipe
from open_r1_vision.held_out import facts_scorer
from open_r1_vision.reasoners import ReasonerConfig, build_reasoner
from open_r1_vision.reasoners.facts import FactJudge
from open_r1_vision.rewards import visual_facts_reward
from open_r1_vision.trainers import CaptionGRPOConfig, VisionGRPOConfig, VisionGRPOTrainer
from open_r1_vision.trainers.judging import FactJudging

SECRET = "sk-0123456789abcdef"
NAMES = ["reasoner", "fact_judge", "description_judge"]


def server_block(url, **settings):
    return {"kind": "endpoint", "model": "m", "base_url": url, **settings}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("as_json", [False, True])
@pytest.mark.parametrize(
    "block",
    [
        {"kind": "endpoint", "api_key": SECRET},
        server_block("http://127.0.0.1:1/v1", api_key_env=SECRET),
        server_block(f"http://user:{SECRET}@127.0.0.1/v1"),
        server_block("http://127.0.0.1:1/v1", extra_body={"api_key": SECRET}),
    ],
)
def test_a_key_in_the_wrong_place_is_not_repeated(tmp_path, name, as_json, block):
    with pytest.raises(ValueError, match=f"`{name}`") as error:
        options(tmp_path, CaptionGRPOConfig, **{name: json.dumps(block) if as_json else block})
    assert SECRET not in str(error.value)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("block", "message"), [("{kind: local", "is no JSON"), ("[1]", "is a list")])
def test_a_block_that_is_none_is_refused(tmp_path, name, block, message):
    with pytest.raises(ValueError, match=f"`{name}` {message}"):
        options(tmp_path, CaptionGRPOConfig, **{name: block})


def test_waits_add_up_to_less_than_the_processes_bear(tmp_path):
    """Servers are asked at once, models in this process one after another: 1000 + 500 s at most."""
    blocks = {
        "reasoner": server_block("http://127.0.0.1:1/v1", batch_seconds=1000),
        "fact_judge": server_block("http://127.0.0.1:1/v1", batch_seconds=900),
        "description_judge": {"kind": "local", "model": "m", "batch_seconds": 500},
    }
    assert options(tmp_path, CaptionGRPOConfig, ddp_timeout=1501, **blocks).reasoners.keys() == set(NAMES)
    with pytest.raises(ValueError, match="may take 1500 s together"):
        options(tmp_path, CaptionGRPOConfig, ddp_timeout=1500, **blocks)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"reader_prompt": "no_such"}, "no prompt 'no_such'"),
        ({"reader_template": "caption_reader"}, "lacks {caption} and {problem}"),
        ({"fact_judge": {"kind": "policy"}, "fact_judge_prompt": "no_such"}, "no prompt 'no_such'"),
        ({"description_judge": {"kind": "policy"}, "description_prompt": "no_such"}, "no prompt 'no_such'"),
    ],
)
def test_prompts_are_looked_for_at_once(tmp_path, option, message):
    with pytest.raises(ValueError, match=message):
        options(tmp_path, CaptionGRPOConfig, **option)


def untouchable(**kwargs):
    raise AssertionError("the rows were loaded although the server is dead")


def test_a_dead_server_is_found_before_rows_and_model(tmp_path):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/v1"
    recipe = tmp_path / "recipe.yaml"
    settings = {
        "model_name_or_path": "nowhere",
        "dataset": f"{__name__}.untouchable",
        "output_dir": str(tmp_path / "run"),
        "report_to": "none",
        "reward_funcs": ["open_r1_vision.rewards.visual_facts_reward"],
        "fact_judge": server_block(url, start_seconds=0.5),
    }
    recipe.write_text(yaml.safe_dump(settings))
    with pytest.raises(ValueError, match=r"`fact_judge`: .*does not answer within start_seconds 0.5"):
        train.prepare(read_recipe(["--config", str(recipe)]))


@pytest.mark.parametrize("updates", [1, 2])
def test_several_updates_from_one_sampling(tiny_model, tmp_path, updates):
    args = options(
        tmp_path,
        VisionGRPOConfig,
        per_device_train_batch_size=VisionGRPOConfig.per_device_train_batch_size,  # follows from the next line
        prompts_per_step=2,
        max_completions_per_device=2,
        updates_per_sampling=updates,
        max_steps=4,
    )
    sampled = []

    class Counting(recording(VisionGRPOTrainer)):
        def _generate(self, prompts):
            sampled.append((self.state.global_step, len(prompts)))
            return super()._generate(prompts)

    make_trainer(Counting, tiny_model, args, rows(1, 1, 1, 1, 1, 1, 1, 1), [parity]).train()
    # 2 prompts with 2 completions each make a step
    assert sampled == [(step, 4 * updates) for step in range(0, 4, updates)]


def parity(completions, **columns):
    return [float(index % 2) for index in range(len(completions))]


def test_held_out_facts_are_judged_as_in_training():
    """A judge's verdicts count, not the rule's; where it fails there is no score."""

    def script(body, number):
        text = body["messages"][-1]["content"]
        if "broken" in text:
            return reply("I would say yes")
        stated = int("prose" in text)
        return reply(json.dumps({"verdicts": [{"fact": 1, "stated": stated}]}))

    table = [{"id": name, "visual_facts": ["AB = 3"], "problem": "How long?"} for name in "abc"]
    texts = ["in prose: three long", "AB = 3", "broken"]
    with ScriptedServer(script) as server:
        reasoner = build_reasoner(ReasonerConfig.from_mapping(server_block(server.url, retries=0)))
        judging = FactJudging(FactJudge(reasoner, "judge"))
        assert facts_scorer(visual_facts_reward, judging)(texts, table) == [1.0, 0.0, None]
        reasoner.close()
    assert facts_scorer(visual_facts_reward)(texts, table) == [0.0, 1.0, 0.0]
