# SPDX-License-Identifier: Apache-2.0
"""What vLLM needs on a machine without a GPU. On any other platform nothing here does anything.

`register` is the entry point `open_r1_vision` of the group `vllm.general_plugins`: where the package is installed,
vLLM calls it in each of its processes. The trainer calls `prepare_engine`, which also does for a package that is only
on PYTHONPATH.
"""

import os
from typing import Any

from open_r1_vision.torchvision_ops import declare_missing_ops

#: Environment of vLLM on CPU, where it is not set otherwise.
ENVIRONMENT = {
    # GiB; without it vLLM takes its share of the memory that the trainer needs too
    "VLLM_CPU_KVCACHE_SPACE": "1",
    # bound threads would tie the trainer's to the same cores
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_NO_USAGE_STATS": "1",
}


def register() -> None:
    """Set the environment's defaults, and let torchvision be imported."""
    from vllm.platforms import current_platform

    if current_platform.is_cpu():
        declare_missing_ops()
        for name, value in ENVIRONMENT.items():
            os.environ.setdefault(name, value)


def prepare_engine() -> None:
    """Prepare this process for an engine whose weights change.

    - vLLM packs the weights of linear layers for oneDNN, leaves an empty parameter behind, and can't load a step's
      weights into it: they stay as they are.
    - Sleep does nothing on a CPU, and vLLM refuses an engine that is asked for it: it is let through.
    - Engines of several processes would meet in shared memory under one name for the whole machine, which outlives
      them, so that the next run fails: they meet through torch.distributed.
    - vLLM looks at a model's class in a process of its own, in which torchvision's operators are missing unless the
      package is installed: it is looked at here.
    """
    from vllm.distributed.device_communicators.cpu_communicator import CpuCommunicator
    from vllm.model_executor.layers import utils
    from vllm.model_executor.models import registry
    from vllm.platforms import current_platform

    register()
    if current_platform.is_cpu():
        utils.dispatch_cpu_unquantized_gemm = _use_plain_linear
        type(current_platform).is_sleep_mode_available = lambda platform: True
        CpuCommunicator._all_group_ranks_share_shm_group_name = lambda communicator: False
        if declare_missing_ops():
            registry._run_in_subprocess = lambda look: look()


def _use_plain_linear(layer: Any, remove_weight: bool) -> None:
    from torch.nn.functional import linear

    layer.cpu_linear = linear
