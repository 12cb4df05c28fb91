# SPDX-License-Identifier: Apache-2.0
"""Benchmarks of the field: items, answers, scores and official metrics, in files that other tools read too."""
