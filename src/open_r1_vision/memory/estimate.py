# SPDX-License-Identifier: Apache-2.0
r"""Bytes on each GPU, part by part. Worst case: the longest prompts and completions that a recipe lets through.

P are all parameters, T those that are trained (P, or an adapter's), N processes, b bytes of a weight (2 in bfloat16),
h the decoder's width, L its layers, V the vocabulary.

| part | bytes | |
|---|---|---|
| weights | b P; ZeRO-3: b P / N, offloaded: 0 | |
| gathered weights | ZeRO-3: b min(P, 10^9), the `stage3_max_live_parameters` of its configuration | |
| gradients | b T; ZeRO-2 and 3: b T / N, offloaded: 0 | DDP keeps a second copy in its buckets |
| reduction buckets | ZeRO-2: 2 bytes x `reduce_bucket_size`, at most T | |
| optimizer | ZeRO: 12 T / N (float32 weights, Adam's moments), offloaded: 0; else 2 b T | 1910.02054, section 3 |
| reference | b P without an adapter where beta is not 0; ZeRO-3: b P / N | an adapter is switched off instead |
| checkpoints | b h for each token and layer, those of the image encoder for each patch | 1604.06174 |
| one layer | what one block keeps for its backward pass, see `shapes` | that of one block lives at a time |
| output layer | 4 h for each completion token + 4 V h if it is trained + a tile of 4096 x 32768 | TRL's fused head |
| step | float32 gradients while Adam runs: 4 T / N, ZeRO-3: at most of 10^9 parameters at a time | |
| keys and values | 4 L x key width for each token sampled at once, where transformers samples | |
| vLLM | its share of the GPU, all it takes; with sleep mode not during the update | |
| context | 2 GiB for CUDA, NCCL and fragments | an allowance, not computed |

Updates, the optimizer's step and sampling come one after another, so that the peak is the largest of the three. Tokens
of a micro-batch: where prompts are shared, each distinct prompt once, see :mod:`open_r1_vision.shared_prefix`.
Sources: ZeRO, arXiv 1910.02054; gradient checkpointing, arXiv 1604.06174; DeepSpeed's and TRL's code. Weights,
gradients and Adam's moments agree with the bytes of a real step, and activations with the peaks of PyTorch's
MemTracker; whole estimates have not been compared with a GPU.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

from open_r1_vision.memory.shapes import ModelShape

GIB = 2**30
#: For CUDA's context, communication and what allocators can't use.
CONTEXT_BYTES = 2 * GIB
_TILE_BYTES = 4096 * 32768 * 2
_LIVE_PARAMETERS = 10**9


@dataclass(frozen=True)
class Setup:
    """How a model is trained. Counts of completions and tokens are of one GPU.

    Attributes:
        trained: parameters that get gradients.
        gpus: processes.
        zero_stage: 0 without DeepSpeed, else 2 or 3.
        offload_optimizer: float32 weights, moments and gradients are in the host's memory.
        offload_parameters: the sharded weights too.
        reduce_bucket: numbers in a reduction bucket of ZeRO-2.
        weight_bytes: 2 for bfloat16, 4 for float32.
        has_reference: a second copy of the model gives the KL term.
        completions: of a micro-batch.
        num_generations: completions of a prompt.
        prompt_tokens: of the longest prompt, images included.
        image_tokens: of these.
        completion_tokens: of the longest completion.
        shares_prompts: each distinct prompt goes through an update once.
        has_checkpoints: gradient checkpointing.
        sampled: completions that are sampled at once.
        with_vllm: colocated vLLM samples, else transformers.
        vllm_share: vLLM's share of the GPU.
        vllm_sleeps: it gives the memory back for the update.
        gpu_bytes: memory of a GPU.
    """

    trained: int
    gpus: int = 1
    zero_stage: int = 0
    offload_optimizer: bool = False
    offload_parameters: bool = False
    reduce_bucket: int = 500_000_000
    weight_bytes: int = 2
    has_reference: bool = False
    completions: int = 1
    num_generations: int = 1
    prompt_tokens: int = 0
    image_tokens: int = 0
    completion_tokens: int = 0
    shares_prompts: bool = True
    has_checkpoints: bool = True
    sampled: int = 1
    with_vllm: bool = False
    vllm_share: float = 0.3
    vllm_sleeps: bool = False
    gpu_bytes: int = 80 * GIB


@dataclass(frozen=True)
class Part:
    """Bytes of one thing on each GPU, and the arithmetic that they come from."""

    name: str
    bytes: int
    arithmetic: str = ""


@dataclass(frozen=True)
class Estimate:
    """What a run needs on each GPU, and on the machine.

    Attributes:
        resident: there all the time.
        update: on top of that in a forward and backward pass.
        step: on top of that in the optimizer's step.
        sampling: on top of that while completions are sampled.
        host_bytes: what is offloaded, of all processes together.
        checkpoint_bytes: one checkpoint on disk, of all processes together.
        final_bytes: the trained model on disk.
        vllm_tokens: tokens that fit into vLLM's cache on each GPU, None without it.
    """

    resident: list[Part]
    update: list[Part]
    step: list[Part]
    sampling: list[Part]
    host_bytes: int = 0
    checkpoint_bytes: int = 0
    final_bytes: int = 0
    vllm_tokens: int | None = None
    phases: dict[str, int] = field(init=False)

    def __post_init__(self) -> None:
        resident = _total(self.resident)
        phases = {name: resident + _total(getattr(self, name)) for name in ("update", "step", "sampling")}
        object.__setattr__(self, "phases", phases)

    @property
    def peak_bytes(self) -> int:
        """Of the phase that needs most."""
        return max(self.phases.values())

    @property
    def peak_phase(self) -> str:
        """Its name."""
        return max(self.phases, key=lambda name: self.phases[name])

    def table(self) -> str:
        """Every part with its arithmetic, a line each, in GiB."""
        lines = []
        for name, parts in (
            ("always", self.resident),
            ("update", self.update),
            ("optimizer's step", self.step),
            ("sampling", self.sampling),
        ):
            lines += [f"{name:17} {part.name:19} {part.bytes / GIB:7.2f}  {part.arithmetic}" for part in parts]
        lines += [f"{'peak: ' + self.peak_phase:37} {self.peak_bytes / GIB:7.2f}  GiB on each GPU"]
        return "\n".join(lines)


def estimate(shape: ModelShape, setup: Setup) -> Estimate:
    """Add up what a model needs in a setup."""
    vllm_tokens = None
    if setup.with_vllm:
        room = setup.vllm_share * setup.gpu_bytes - 2 * shape.parameters - CONTEXT_BYTES
        vllm_tokens = max(0, int(room / shape.key_value_bytes))
    state = 12 if setup.zero_stage else 2 * _trained_bytes(shape, setup)
    # sharded float32 states and, of ZeRO-2, the weights again beside those that from_pretrained reads
    saved = (1 + (setup.zero_stage == 2)) * setup.weight_bytes * setup.trained
    return Estimate(
        resident=list(_drop_empty(_resident(shape, setup))),
        update=list(_drop_empty(_update(shape, setup))),
        step=list(_drop_empty(_step(setup))),
        sampling=list(_drop_empty(_sampling(shape, setup))),
        host_bytes=setup.offload_optimizer * 16 * setup.trained
        + setup.offload_parameters * setup.weight_bytes * shape.parameters,
        checkpoint_bytes=state * setup.trained + saved,
        final_bytes=setup.weight_bytes * shape.parameters,
        vllm_tokens=vllm_tokens,
    )


def _resident(shape: ModelShape, setup: Setup) -> Iterable[Part]:
    size, gpus = setup.weight_bytes, setup.gpus
    share = f" / {gpus}" if gpus > 1 else ""
    sharded = setup.zero_stage == 3
    all_, trained = _billions(shape.parameters), _billions(setup.trained)
    if setup.offload_parameters:
        yield Part("weights", 0, "in the host's memory")
    else:
        count = shape.parameters / gpus if sharded else shape.parameters
        yield Part("weights", int(size * count), f"{size} B x {all_}{share if sharded else ''}")
    if setup.trained != shape.parameters:
        own, count = _trained_bytes(shape, setup), setup.trained / (gpus if sharded else 1)
        yield Part("adapter", int(own * count), f"{own} B x {trained}{share if sharded else ''}")
    if sharded:
        live = min(shape.parameters, _LIVE_PARAMETERS)
        yield Part("gathered weights", size * live, f"{size} B x {_billions(live)}, as they are used")
    if setup.offload_optimizer:
        yield Part("gradients, Adam", 0, "in the host's memory")
    elif setup.zero_stage:
        yield Part("gradients", int(size * setup.trained / gpus), f"{size} B x {trained}{share}")
        yield Part("optimizer", int(12 * setup.trained / gpus), f"(4 + 4 + 4) B x {trained}{share}")
    else:
        copies, own = (2 if gpus > 1 else 1), _trained_bytes(shape, setup)
        buckets = ", and in buckets" if copies == 2 else ""
        yield Part("gradients", copies * own * setup.trained, f"{copies} x {own} B x {trained}{buckets}")
        yield Part("optimizer", 2 * own * setup.trained, f"2 x {own} B x {trained}")
    if setup.zero_stage == 2:
        bucket = min(setup.reduce_bucket, setup.trained)
        yield Part("reduction bucket", 2 * bucket, f"2 B x {_billions(bucket)}")
    if setup.has_reference:
        count = shape.parameters / gpus if sharded else shape.parameters
        yield Part("reference model", int(size * count), f"{size} B x {all_}{share if sharded else ''}")
    if setup.with_vllm and not setup.vllm_sleeps:
        yield _vllm(setup)
    yield Part("context", CONTEXT_BYTES, "CUDA, NCCL, fragments: an allowance")


def _update(shape: ModelShape, setup: Setup) -> Iterable[Part]:
    prompts = math.ceil(setup.completions / setup.num_generations) if setup.shares_prompts else setup.completions
    tokens = prompts * setup.prompt_tokens + setup.completions * setup.completion_tokens
    patches = prompts * setup.image_tokens * shape.patches_per_token
    said = f"{prompts} x {setup.prompt_tokens} + {setup.completions} x {setup.completion_tokens} tokens"
    images = f"{patches} patches"
    size = setup.weight_bytes
    # blocks are counted in bfloat16
    blocks = shape.block_bytes * size // 2, shape.vision_block_bytes * size // 2
    if setup.has_checkpoints:
        per_token, per_patch = size * shape.layers * shape.hidden, size * shape.vision_layers * shape.vision_hidden
        yield Part("checkpoints", tokens * per_token, f"({said}) x {shape.layers} layers x {shape.hidden} x {size} B")
        yield Part(
            "image checkpoints",
            patches * per_patch,
            f"{images} x {shape.vision_layers} layers x {shape.vision_hidden} x {size} B",
        )
        candidates = [
            Part("one layer", tokens * blocks[0], f"{tokens} tokens x {blocks[0]} B"),
            Part("one image layer", patches * blocks[1], f"{images} x {blocks[1]} B"),
        ]
    else:
        # their gradients live in one block at a time, but what is kept dominates
        yield Part("layers", tokens * blocks[0] * shape.layers, f"{tokens} tokens x {blocks[0]} B x {shape.layers}")
        yield Part(
            "image layers",
            patches * blocks[1] * shape.vision_layers,
            f"{images} x {blocks[1]} B x {shape.vision_layers}",
        )
        candidates = []
    trains_all = setup.trained == shape.parameters
    scored = setup.completions * setup.completion_tokens
    head = 4 * scored * shape.hidden + trains_all * 4 * shape.vocabulary * shape.hidden + _TILE_BYTES
    weight = f"4 B x {shape.vocabulary} x {shape.hidden} + " if trains_all else ""
    candidates.append(Part("output layer", head, f"4 B x {scored} x {shape.hidden} + {weight}0.25 GiB"))
    yield max(candidates, key=lambda part: part.bytes)


def _step(setup: Setup) -> Iterable[Part]:
    if setup.zero_stage and not setup.offload_optimizer:
        count = setup.trained / setup.gpus
        if setup.zero_stage == 3:
            count = min(count, _LIVE_PARAMETERS)
        yield Part("float32 gradients", int(4 * count), f"4 B x {_billions(int(count))}")


def _sampling(shape: ModelShape, setup: Setup) -> Iterable[Part]:
    if setup.with_vllm:
        if setup.vllm_sleeps:
            yield _vllm(setup)
        return
    tokens = setup.sampled * (setup.prompt_tokens + setup.completion_tokens)
    yield Part(
        "keys and values",
        tokens * shape.key_value_bytes,
        f"{setup.sampled} x ({setup.prompt_tokens} + {setup.completion_tokens}) tokens x {shape.key_value_bytes} B",
    )
    # logits of one token, in float32, with a sorted copy of them and its probabilities
    yield Part("logits", 12 * setup.sampled * shape.vocabulary, f"3 x 4 B x {setup.sampled} x {shape.vocabulary}")
    prompts = math.ceil(setup.sampled / setup.num_generations) * setup.prompt_tokens
    width = 4 * shape.hidden + 2 * shape.queries + 6 * shape.mlp
    yield Part("prompts", prompts * width, f"{prompts} tokens x {width} B, one layer without gradients")
    if setup.zero_stage == 3:
        live = min(shape.parameters, _LIVE_PARAMETERS)
        rest = shape.parameters - live
        yield Part(
            "all weights", setup.weight_bytes * rest, f"{setup.weight_bytes} B x {_billions(rest)}: gathered to sample"
        )


def _trained_bytes(shape: ModelShape, setup: Setup) -> int:
    """Of a trained weight: PEFT keeps adapters in float32 unless DeepSpeed has its own such copies."""
    return 4 if setup.trained != shape.parameters and not setup.zero_stage else setup.weight_bytes


def _vllm(setup: Setup) -> Part:
    return Part(
        "vLLM", int(setup.vllm_share * setup.gpu_bytes), f"{setup.vllm_share:g} x {setup.gpu_bytes / GIB:g} GiB"
    )


def _drop_empty(parts: Iterable[Part]) -> Iterable[Part]:
    return (part for part in parts if part.bytes or "host" in part.arithmetic)


def _total(parts: Iterable[Part]) -> int:
    return sum(part.bytes for part in parts)


def _billions(count: int) -> str:
    return f"{count / 1e9:.2f}e9" if count >= 10**7 else str(count)
