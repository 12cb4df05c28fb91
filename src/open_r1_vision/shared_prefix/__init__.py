# SPDX-License-Identifier: Apache-2.0
"""One pass over a prompt and all of its completions, with the log-probabilities of separate passes.

The idea for text is Prefix Grouper (arXiv 2506.05433). A model's forward pass gets one row

    [prefix of group 1 | segment | segment | ... | prefix of group 2 | segment | ...]

in which a prefix is a prompt without its last token, and a segment that last token and a completion without *its* last
token: so the tokens of a segment are those whose next tokens are scored, and no token stands twice in what a
completion attends to. Nothing is padded but inside the attention call.

- :mod:`.packing` finds what is shared and builds the row;
- :mod:`.attention` lets prefixes attend to themselves and segments to their prefix and themselves;
- :mod:`.support` says which models can do it.
"""

from open_r1_vision.shared_prefix.attention import prepare
from open_r1_vision.shared_prefix.packing import Layout, Packed, pack
from open_r1_vision.shared_prefix.support import reason_against

__all__ = ["Layout", "Packed", "pack", "prepare", "reason_against"]
