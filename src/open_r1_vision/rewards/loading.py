# SPDX-License-Identifier: Apache-2.0
"""From the reward names of a recipe to functions, and a check on what such functions return."""

import functools
import inspect
import math
import numbers
from collections.abc import Callable, Iterable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from open_r1_vision.importing import import_callable

#: What the trainer passes to a reward besides the columns of the data set.
RUNTIME_COLUMNS = frozenset(
    ("prompts", "completions", "completion_ids", "trainer_state", "log_extra", "log_metric", "environments")
    + ("caption", "caption_answer", "has_description", "fact_verdicts", "response_start", "hint_level")
)
#: The row schema.
ROW_COLUMNS = frozenset(
    ("id", "images", "problem", "solution", "problem_type", "reasoning_steps", "visual_facts", "key_words", "source")
)
_MAX_IDS_SHOWN = 8


def check_weights(weights: Sequence[float] | None, names: Sequence[str]) -> None:
    """Refuse weights that can't be those of the rewards.

    Args:
        weights: `reward_weights`; None weighs all alike.
        names: the rewards.

    Raises:
        ValueError: more or fewer weights than rewards.
    """
    if weights is not None and len(weights) != len(names):
        raise ValueError(
            f"reward_weights has {len(weights)} numbers, but there are {len(names)} reward_funcs: give one weight for "
            "each, in their order."
        )


def load_rewards(
    names: Sequence[str],
    kwargs: Mapping[str, Mapping[str, Any]] | None = None,
    columns: Iterable[str] = ROW_COLUMNS,
    defaults: Mapping[str, Any] | None = None,
) -> list[Callable[..., Any]]:
    """Import reward functions and bind their settings.

    Args:
        names: dotted paths, such as `open_r1_vision.rewards.accuracy_reward` or `my_module.my_reward`.
        kwargs: settings of rewards by dotted path, bound with `functools.partial`.
        columns: the columns of the data set. A setting of the same name would be overridden by the column, and is
            refused.
        defaults: settings of the whole recipe, for the rewards that take them and are not given others.

    Returns:
        The functions in the order of `names`.

    Raises:
        ValueError: a path that leads to nothing callable; two rewards of one name, which would share a log column;
            settings for a reward that is not in `names`, that it does not take, or that a column overrides.
    """
    settings = dict(kwargs or {})
    for path in settings:
        if path not in names:
            raise ValueError(
                f"There are settings for the reward {path!r}, which is not among the rewards {list(names)}"
                f"{_did_you_mean(path, names)}. Add it there, or remove its settings."
            )
    reserved = RUNTIME_COLUMNS.union(columns)
    rewards = [
        _bind(path, reward := import_callable(path), {**_taken(reward, defaults), **settings.get(path, {})}, reserved)
        for path in names
    ]
    paths_by_name: dict[str, str] = {}
    for path, reward in zip(names, rewards, strict=True):
        name = reward_name(reward)
        if name in paths_by_name:
            raise ValueError(
                f"The rewards {paths_by_name[name]!r} and {path!r} are both called {name!r} and would share one "
                "column in the logs. Name each reward once, or wrap one in a function of another name."
            )
        paths_by_name[name] = path
    return rewards


def reward_name(reward: Callable[..., Any]) -> str:
    """The name under which TRL logs a reward: of the function, of the function in a partial, or of the class."""
    while isinstance(reward, functools.partial):
        reward = reward.func
    return getattr(reward, "__name__", type(reward).__name__)


def required_columns(reward: Callable[..., Any]) -> list[str]:
    """The columns that the data set must have for a reward: its parameters without default, in order."""
    return [
        parameter.name
        for parameter in _parameters(reward)
        if parameter.default is inspect.Parameter.empty and parameter.name not in RUNTIME_COLUMNS
    ]


def columns_by_reward(rewards: Iterable[Callable[..., Any]]) -> dict[str, list[str]]:
    """Which columns each reward needs, by the reward's name."""
    return {reward_name(reward): required_columns(reward) for reward in rewards}


def check_settings(rewards: Iterable[Callable[..., Any]]) -> None:
    """Let rewards check their settings, and load what they name, before the first step.

    A reward does so in a function that it has as its attribute `check`, and that takes the same settings.

    Raises:
        ValueError: settings that can't work.
    """
    for reward in rewards:
        settings: dict[str, Any] = {}
        while isinstance(reward, functools.partial):
            settings = {**reward.keywords, **settings}
            reward = reward.func
        check = getattr(reward, "check", None)
        if check is not None:
            check(**settings)


def checked(reward: Callable[..., Any], role: str = "reward") -> Callable[..., Any]:
    """Wrap a reward, sync or async, so that what it does wrong is reported with its name and the rows.

    Args:
        reward: a reward, or another function that scores completions as a reward does.
        role: what messages call it.

    The wrapper has the reward's name and signature, is async if the reward is, and expects the batch's completions as
    the keyword `completions` or as first argument.

    Raises:
        RuntimeError: when called, if the reward raises.
        ValueError: when called, if it does not return a list with one finite number or None for each completion.
    """
    name = reward_name(reward)
    described = f"{role} {name!r}"

    async def call_async(*args: Any, **columns: Any) -> list[float | None]:
        try:
            rewards = await reward(*args, **columns)
        except Exception as error:
            raise RuntimeError(_failure(described, error, columns)) from error
        return _check(described, rewards, args, columns)

    def call(*args: Any, **columns: Any) -> list[float | None]:
        try:
            rewards = reward(*args, **columns)
        except Exception as error:
            raise RuntimeError(_failure(described, error, columns)) from error
        return _check(described, rewards, args, columns)

    wrapper = functools.wraps(reward)(call_async if _is_async(reward) else call)
    wrapper.__name__ = name
    return wrapper


def _taken(reward: Callable[..., Any], defaults: Mapping[str, Any] | None) -> dict[str, Any]:
    names = {parameter.name for parameter in _parameters(reward)} if defaults else set()
    return {name: value for name, value in (defaults or {}).items() if name in names}


def _bind(
    path: str, reward: Callable[..., Any], settings: Mapping[str, Any], reserved: frozenset[str]
) -> Callable[..., Any]:
    accepted = [parameter.name for parameter in _parameters(reward) if parameter.name not in reserved]
    for key in settings:
        if key in reserved:
            raise ValueError(
                f"The setting {key!r} of the reward {path!r} can't be used, because the trainer passes the column "
                f"{key!r}, which overrides it. Rename the parameter or the column."
            )
        if key not in accepted:
            raise ValueError(
                f"The reward {path!r} has no setting {key!r}{_did_you_mean(key, accepted)}. "
                f"It takes: {', '.join(accepted) or 'none'}."
            )
    return functools.partial(reward, **settings) if settings else reward


def _parameters(reward: Callable[..., Any]) -> list[inspect.Parameter]:
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return [parameter for parameter in inspect.signature(reward).parameters.values() if parameter.kind in named]


def _did_you_mean(name: str, names: Sequence[str]) -> str:
    matches = get_close_matches(name, names, n=1)
    return f" (did you mean {matches[0]!r}?)" if matches else ""


def _is_async(reward: Callable[..., Any]) -> bool:
    while isinstance(reward, functools.partial):
        reward = reward.func
    return inspect.iscoroutinefunction(reward) or inspect.iscoroutinefunction(type(reward).__call__)


def _check(name: str, rewards: Any, args: tuple, columns: Mapping[str, Any]) -> list[float | None]:
    if not isinstance(rewards, list):
        raise ValueError(
            f"The {name} returned a {type(rewards).__name__} for {_rows(columns)}. Return a list with one "
            "number or None for each completion."
        )
    batch = (
        columns["completions"] if "completions" in columns else args[0] if args else next(iter(columns.values()), [])
    )
    if len(rewards) != len(batch):
        raise ValueError(
            f"The {name} returned {len(rewards)} values for {len(batch)} completions, {_rows(columns)}. "
            "Return one number for each completion, and None for one that is not scored."
        )
    for index, value in enumerate(rewards):
        if value is not None and not (isinstance(value, numbers.Real) and math.isfinite(value)):
            raise ValueError(
                f"The {name} returned {value!r:.100} for {_row(columns, index)}. Return a finite number, or "
                "None if the completion is not scored."
            )
    return rewards


def _failure(name: str, error: Exception, columns: Mapping[str, Any]) -> str:
    return (
        f"The {name} raised {type(error).__name__} for {_rows(columns)}: {error}. Correct the function or "
        "the rows, or let it return None for a completion that it can't score."
    )


def _rows(columns: Mapping[str, Any]) -> str:
    ids = columns.get("id")
    if not ids:
        return "a batch without the column `id`"
    unique = list(dict.fromkeys(ids))
    shown = ", ".join(repr(row_id) for row_id in unique[:_MAX_IDS_SHOWN])
    return f"the rows with id {shown}" + (
        f" and {len(unique) - _MAX_IDS_SHOWN} more" if len(unique) > _MAX_IDS_SHOWN else ""
    )


def _row(columns: Mapping[str, Any], index: int) -> str:
    ids = columns.get("id")
    return f"the row with id {ids[index]!r} (completion {index})" if ids else f"completion {index}"
