# SPDX-License-Identifier: Apache-2.0
"""Run folders as training leaves them, made by hand: tables of completions, images, logs."""

import json
from io import BytesIO

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

#: Texts that would run or break a page that does not escape them.
HOSTILE = {
    "script": "<script>window.hacked = 1</script>",
    "end of script": "</script><script>window.hacked = 2</script><img src=x onerror='window.hacked = 3'>",
    "end of data": '"}]}</script><svg onload="window.hacked = 4">',
    "comment": "<!-- <script> --> <!--",
    "entities": "&lt;b&gt;bold&lt;/b&gt; &amp; &#60;script&#62;",
    "line separators": "one\u2028two\u2029three",
    "template marks": "{{data}} {{script}} ${window.hacked = 5} `",
    "backslashes": '\\u003c \\" \\n \\',
    "controls": "a\x00b\x1b[31mc\r\nd\te\x7f\ufeff",
    "other scripts": "\u202eright to left\u202c 请 \U0001d54f \u0301",
    "link": '<a href="javascript:window.hacked = 6">x</a> https://example.org/ <style>*{display:none}</style>',
    "tags": "<info><think></info><answer onclick=window.hacked=7><answer>",
}


def messages(text, role="assistant"):
    return [{"role": role, "content": text}]


def chat(problem, system="be short", num_images=1):
    parts = [{"type": "image", "text": None}] * num_images + [{"type": "text", "text": problem}]
    return [
        {"role": "system", "content": [{"type": "text", "text": system}]},
        {"role": "user", "content": parts},
    ]


def write_table(folder, step, rows):
    """TRL's table of a step. `rows`: dictionaries with `completion` as text; what is left out is filled in."""
    filled = []
    for place, row in enumerate(rows):
        row = {"group": 0, "id": "row-0", "source": "here", "solution": "4", "prompt": "How many?", **row}
        text = row.pop("completion", f"completion {place}")
        prompt = row.pop("prompt")
        advantage = row.pop("advantage", 0.0)
        rewards = row.pop("rewards", {"accuracy_reward": 0.0})
        whole = {"step": step, "prompt": chat(prompt) if isinstance(prompt, str) else prompt}
        filled.append({**whole, "completion": messages(text), **rewards, **row, "advantage": advantage})
    path = folder / "completions" / f"completions_{step:05d}.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(filled), path)
    return path


def group(number, accuracies, step=1, **columns):
    """The rows of a group, one for each accuracy; advantages are the distances from their mean."""
    scored = [value for value in accuracies if value is not None]
    mean = sum(scored) / max(len(scored), 1)
    return [
        {
            "group": number,
            "id": f"row-{step}-{number}",
            "prompt": f"Question {number} of step {step}?",
            "completion": f"<think>try {place}</think> <answer>{place}</answer>",
            "rewards": {"accuracy_reward": value, "format_reward": 1.0},
            "advantage": 0.0 if value is None else value - mean,
            **columns,
        }
        for place, value in enumerate(accuracies)
    ]


def webp(width, height, colour="red"):
    content = BytesIO()
    Image.new("RGB", (width, height), colour).save(content, "WEBP")
    return content.getvalue()


def write_images(folder, images, number=0):
    """The thumbnails that training kept, `{key: file}`."""
    path = folder / "rollout_images" / f"images_{number:05d}.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"key": list(images), "image": pa.array(images.values(), pa.binary())}), path)


def write_settings(folder, **settings):
    folder.mkdir(parents=True, exist_ok=True)
    defaults = {
        "trainer": "open_r1_vision.trainers.CaptionGRPOTrainer",
        "model_name_or_path": "models/tiny",
        "reward_funcs": ["open_r1_vision.rewards.accuracy_reward", "open_r1_vision.rewards.format_reward"],
        "reward_weights": [1.0, 0.5],
        "num_generations": 2,
    }
    (folder / "run.json").write_text(json.dumps({**defaults, **settings}))


def write_log(folder, entries):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "log.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in entries))


def logged(step, accuracy, **more):
    return {"step": step, "rewards/accuracy_reward/mean": accuracy, "rewards/format_reward/mean": 1.0, **more}
