# SPDX-License-Identifier: Apache-2.0
"""The key of a server: read from the environment where it is used, and taken out of whatever a server says."""

import os

#: Sent where no key is set: the client wants one, a local server does not look at it. Never OPENAI_API_KEY, which
#: belongs to somebody else's server.
NO_KEY = "EMPTY"
#: Shorter ones are no secrets, and would be found in ordinary words.
_SHORTEST_SECRET = 8


def read_key(variable: str | None) -> str:
    """The key in an environment variable.

    Args:
        variable: its name; None where the server needs no key.

    Raises:
        ValueError: the variable is not set or empty.
    """
    if variable is None:
        return NO_KEY
    key = os.environ.get(variable, "").strip()
    if not key:
        raise ValueError(
            f"api_key_env names {variable}, but this environment variable is empty or not set: export it before the "
            "run, or leave api_key_env out if the server needs no key."
        )
    return key


class Redactor:
    """Takes the key out of texts that a server or a library wrote."""

    __slots__ = ("_key",)

    def __init__(self, key: str) -> None:
        self._key = key

    def __call__(self, text: str) -> str:
        """The text with `[key]` where the key was."""
        return text.replace(self._key, "[key]") if len(self._key) >= _SHORTEST_SECRET else text
