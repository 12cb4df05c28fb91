# SPDX-License-Identifier: Apache-2.0
"""Whether a recipe would start here, or on another machine: `python -m open_r1_vision.doctor --config RECIPE`."""
