# SPDX-License-Identifier: Apache-2.0
"""Predictions to and from VLMEvalKit and lmms-eval, through their files; neither has to be installed."""
