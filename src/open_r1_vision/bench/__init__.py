# SPDX-License-Identifier: Apache-2.0
"""How fast the trainers are beside stock TRL: `python -m open_r1_vision.bench update --help`."""
