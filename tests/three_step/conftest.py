# SPDX-License-Identifier: Apache-2.0
"""The reasoners' scripted server and tiny text model serve here too."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "reasoners"))
