# SPDX-License-Identifier: Apache-2.0
import math
import sys

import pytest

from open_r1_vision.importing import describe_error, import_callable, is_dotted_path


@pytest.mark.parametrize("name", ["a.b", "open_r1_vision.starter.model.policy", "_a._b1", "a.b.C"])
def test_dotted_paths(name):
    assert is_dotted_path(name)


@pytest.mark.parametrize(
    "name", ["", "a", "a.", ".a", "a..b", "a/b.c", "./a.b", "Qwen/Qwen2.5-VL-3B-Instruct", "a.1b", "a.b ", "a.b\n"]
)
def test_other_names(name):
    assert not is_dotted_path(name)
    with pytest.raises(ValueError, match=r"is not a dotted path of the form `package\.module\.function`"):
        import_callable(name)


def test_functions_classes_and_nested_modules():
    from open_r1_vision.rewards.accuracy import accuracy_reward

    assert import_callable("math.sqrt") is math.sqrt
    assert import_callable("open_r1_vision.rewards.accuracy_reward") is accuracy_reward
    assert import_callable("collections.Counter")("aab")["a"] == 2


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("no_such_package.f", "there is no module 'no_such_package'. Check the spelling, or install the package"),
        ("open_r1_vision.no_such.f", "there is no module 'open_r1_vision.no_such'"),
        ("math.sqroot", "module 'math' has no 'sqroot'. Did you mean 'sqrt'?"),
        ("math.zzzz", "module 'math' has no 'zzzz'. It has: .*sqrt"),
        ("math.pi", "'math.pi' is a float, but something callable is needed"),
    ],
)
def test_what_cannot_be_imported(path, message):
    with pytest.raises(ValueError, match=message):
        import_callable(path)


@pytest.fixture
def module(tmp_path, monkeypatch):
    """`module(code)` makes the module `users_own` of it."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "users_own", raising=False)

    def write(code):
        (tmp_path / "users_own.py").write_text(code)
        return "users_own.reward"

    return write


def test_a_module_of_the_users_own(module):
    assert import_callable(module("def reward():\n    return 3"))() == 3


def test_an_import_that_fails_inside_the_module_is_not_hidden(module):
    with pytest.raises(ModuleNotFoundError, match="no_such_package"):
        import_callable(module("import no_such_package"))


def test_a_missing_module_whose_name_begins_alike_is_not_hidden(module):
    """`users` is missing inside of `users_own`, which is there."""
    with pytest.raises(ModuleNotFoundError, match="users"):
        import_callable(module("import users"))


def caught(call):
    try:
        call()
    except (Exception, SystemExit) as error:  # noqa: BLE001
        return describe_error(error)


def test_messages_of_this_library_stand_for_themselves():
    assert caught(lambda: None) is None
    try:
        import_callable("a")
    except ValueError as error:
        # without the frame of this file, which is no part of the library
        error.__traceback__ = error.__traceback__.tb_next
        assert describe_error(error) == "'a' is not a dotted path of the form `package.module.function`."


def test_errors_of_other_code_have_type_and_place(tmp_path, monkeypatch):
    (tmp_path / "theirs.py").write_text(
        "def key():\n    return {}['a']\n\n\ndef number():\n    return int('x')\n\n\ndef wrapped():\n"
        "    try:\n        key()\n    except KeyError as error:\n        raise RuntimeError('no rows') from error\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    key, number, wrapped = (import_callable(f"theirs.{name}") for name in ("key", "number", "wrapped"))
    assert caught(key) == "KeyError: 'a' (theirs.py, line 2)"
    assert caught(number) == "ValueError: invalid literal for int() with base 10: 'x' (theirs.py, line 6)"
    # why it failed, not that it did
    assert caught(wrapped) == "KeyError: 'a' (theirs.py, line 2)"
