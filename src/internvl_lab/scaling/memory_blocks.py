"""What each block of the model keeps for the backward pass, in bytes, written down operation by operation.

::

    pixels ─ vision embedding ─ L vision layers ─ projector ─ token embedding ─ L decoder layers ─ norm ─ head ─ loss

A row is a patch (or CLS) of a tile in the encoder, a visual token in the projector, a token in the language model.
What is kept follows from what our modules and torch's kernels save:

| operation | keeps                                                                                           |
|-----------|-------------------------------------------------------------------------------------------------|
| linear    | its input, if its weight trains; an autocast copy of its weight, if a gradient passes           |
| LayerNorm | its input, mean and deviation                                                                   |
| RMSNorm   | its input in fp32, the deviation, and the normalised rows, if its weight trains                 |
| attention | queries, keys, values, the output and a logsumexp a head; fp32 on a CPU, half precision on a GPU |
| GELU, SiLU, product of the gated MLP | what they are taken of                                               |
| layer scale | the branch it scales, if it trains                                                            |
| LoRA      | the dropped input of every adapted layer and the mask, and what lies between A and B            |
| softmax of the loss | fp32 log-probabilities                                                                |

A frozen part through which no gradient passes keeps nothing. Under gradient checkpointing a layer keeps its input.
Not modelled: attention written out (`eager`, `dense`), which keeps the scores, and torch.compile, which keeps less.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

from internvl_lab.config import LoraConfig, ModelConfig
from internvl_lab.constants import PARTS
from internvl_lab.scaling.memory_numerics import FP32, Numerics


@dataclass(frozen=True)
class PackUse:
    """Say what a pack holds."""

    tokens: float
    """T, visual tokens included."""
    sum_sq: float
    """Sum of the squared lengths of its samples."""
    tiles: float
    """N."""
    supervised_rows: float
    """Positions with a label."""


@dataclass(frozen=True)
class Block:
    """Hold the sizes of one block; all but the counts of parameters in bytes."""

    part: str
    """`vision`, `projector`, `language`, or `logits` for the loss."""
    parameters: int
    trained: int
    """Parameters that get a gradient, adapters included."""
    saved: float
    """Kept from the block's forward pass to its backward pass."""
    forward: float
    """Needed beside that while the forward pass is in the block."""
    backward: float
    """Needed beside that while the backward pass is in the block."""
    recomputed: float = 0.0
    """Made again by the backward pass under gradient checkpointing."""
    cached: float = 0.0
    """Autocast copies of weights that are kept to the end of the forward pass only."""
    is_layer: bool = False
    """Whether FSDP2 shards it as a unit of its own; the others form the root's unit."""

    @property
    def kind(self) -> str:
        """Say what its bytes count as: `logits` or `activations`."""
        return "logits" if self.part == "logits" else "activations"


@dataclass(frozen=True)
class Flow:
    """Say how gradients run through a part."""

    trains: bool
    reached: bool
    """Whether a gradient passes through the part."""
    recomputes: bool
    lora: LoraConfig = field(default_factory=LoraConfig)
    """Adapters of the part; none = without parts."""

    @property
    def adapted(self) -> bool:
        """Say whether the part has adapters."""
        return bool(self.lora.parts)


def flow_of(part: str, trainable: Collection[str], lora: LoraConfig, checkpointed: Collection[str]) -> Flow:
    """Say how gradients run through `part` in a stage that trains `trainable`."""
    up_to = PARTS[: PARTS.index(part) + 1]
    reached = any(name in trainable or name in lora.parts for name in up_to)
    return Flow(part in trainable, reached, part in checkpointed, lora if part in lora.parts else LoraConfig())


def model_blocks(
    config: ModelConfig,
    use: PackUse,
    n: Numerics,
    trainable: Collection[str],
    lora: LoraConfig,
    checkpointed: Collection[str],
) -> list[Block]:
    """List the blocks in the order of the forward pass.

    Args:
        config: sizes.
        use: the pack.
        n: bytes of numbers.
        trainable, lora, checkpointed: as the stage says.
    """
    vision, projector, language = (flow_of(part, trainable, lora, checkpointed) for part in PARTS)
    return [
        _vision_embedding(config, use, n, vision),
        *[_vision_layer(config, use, n, vision)] * config.vision.num_hidden_layers,
        _projector(config, use, n, projector),
        _token_embedding(config, use, n, language),
        *[_language_layer(config, use, n, language)] * config.language.num_hidden_layers,
        _final_norm(config, use, n, language),
        _head(config, use, n, language),
        _loss(config, use, n, language),
    ]


def _inputs(n: Numerics, flow: Flow, count: int, width: int, from_bytes: int) -> float:
    """Return the bytes a row that `count` linear layers keep of one shared input of `width` numbers."""
    casts = from_bytes != n.compute
    if flow.trains:
        return n.compute * width * (count if casts else 1)
    if not flow.adapted:
        return 0.0
    between = count * n.compute * flow.lora.rank
    if flow.lora.dropout == 0:
        return between + n.compute * width * (count if casts else 1)
    mask = n.weight if n.on_cpu else 1  # a CPU draws factors in the adapter's type, a GPU booleans
    return between + count * width * (n.compute + mask)


def _rms_norm(flow: Flow, width: int, stream: int) -> float:
    """Return the bytes a row that an RMSNorm keeps: fp32 input, deviation, normalised row."""
    return FP32 * (width + 1) + (stream * width if flow.trains else 0)


def _layer(block: Block, flow: Flow, entry: float, shares_entry: bool) -> Block:
    """Apply gradient checkpointing, and drop what is kept where no gradient passes.

    Args:
        block: with everything that a layer keeps and needs.
        flow: how gradients run.
        entry: bytes of the layer's input.
        shares_entry: whether the input is among what the layer keeps anyway.
    """
    values = dict(vars(block), is_layer=True)
    if not flow.reached:
        return Block(**values | {"saved": 0.0, "backward": 0.0})
    if not flow.recomputes:  # autocast's copies are among what is kept, and most of what the forward pass needs too
        return Block(**values | {"forward": entry, "cached": 0.0})
    recomputed = block.saved - (entry if shares_entry else 0)
    return Block(**values | {"saved": entry, "recomputed": recomputed})


def _vision_embedding(config: ModelConfig, use: PackUse, n: Numerics, flow: Flow) -> Block:
    """Keep the normalised pixels, the input of the convolution."""
    vision = config.vision
    width, pixels = vision.hidden_size, 3 * vision.image_size**2
    patches = (vision.image_size // vision.patch_size) ** 2
    parameters = width * (patches + 2) + width * (3 * vision.patch_size**2 + 1)
    rows = use.tiles * (patches + 1)
    kept = use.tiles * pixels * n.compute if flow.trains else 0.0
    return Block(
        "vision",
        parameters,
        parameters if flow.trains else 0,
        saved=kept,
        forward=use.tiles * pixels * (FP32 + n.compute) + 2 * rows * width * n.stream,
        backward=2 * rows * width * n.stream if flow.trains else 0.0,
    )


def _vision_layer(config: ModelConfig, use: PackUse, n: Numerics, flow: Flow) -> Block:
    """Keep two norms, the shared input of q, k and v, (their norms), q, k, v, out, the MLP, two scaled branches.

    The forward pass is fullest inside the MLP (three widths of the stream, both sides of GELU), the backward pass too.
    """
    vision = config.vision
    width, wide = vision.hidden_size, vision.intermediate_size
    rows = use.tiles * ((vision.image_size // vision.patch_size) ** 2 + 1)
    rms = vision.norm_type == "rms_norm"
    normed = n.stream if rms else n.layer_norm
    norm = _rms_norm(flow, width, n.stream) if rms else n.layer_norm * width + 2 * FP32
    between_heads = 2 * _rms_norm(flow, width, n.compute) if vision.use_qk_norm else 0.0
    branch = (n.compute if n.on_cpu else n.stream) * width if flow.trains else 0.0
    copied = n.attention != n.compute or not flow.trains
    attention: float = 4 * n.attention * width + FP32 * vision.num_attention_heads
    attention += _inputs(n, flow, 1, width, n.compute) if copied else 0.0
    mlp = _inputs(n, flow, 1, width, normed) + n.compute * wide + _inputs(n, flow, 1, wide, n.compute)
    kept = 2 * norm + _inputs(n, flow, 3, width, normed) + between_heads + attention + mlp + 2 * branch

    matrices = 4 * width**2 + 2 * width * wide
    vectors = width * (3 * vision.attention_bias + 2 + 2 * (1 if rms else 2) + 2 * vision.use_qk_norm + 2) + wide
    adapters = flow.lora.rank * (8 * width + 2 * (width + wide)) if flow.adapted else 0
    trained = matrices + vectors if flow.trains else adapters
    copies = matrices * n.weight_copy if flow.reached else 0
    pixels = use.tiles * 3 * vision.image_size**2 * n.weight * (not flow.trains)
    inner = rows * (3 * width * n.stream + 2 * wide * n.compute) + matrices * n.weight_copy
    block = Block(
        "vision",
        matrices + vectors + adapters,
        trained,
        saved=rows * kept + copies,
        forward=inner + pixels,
        backward=rows * (wide * n.compute * (1 if flow.trains else 2) + 2 * width * n.stream)
        + (width * wide * n.weight if flow.trains else 0),
        cached=copies if flow.trains else 0.0,
    )
    return _layer(block, flow, rows * width * n.stream, n.stream == (FP32 if rms else n.layer_norm))


def _projector(config: ModelConfig, use: PackUse, n: Numerics, flow: Flow) -> Block:
    """Keep LayerNorm's input, and what its two linear layers and GELU take."""
    rows = use.tiles * config.num_visual_tokens
    wide = round(config.vision.hidden_size / config.projector.downsample_ratio**2)
    width = config.language.hidden_size
    matrices = wide * width + width**2
    parameters = matrices + 2 * wide + 2 * width
    kept = n.layer_norm * wide + 2 * FP32 + _inputs(n, flow, 1, wide, n.layer_norm)
    kept += n.compute * width + _inputs(n, flow, 1, width, n.compute)
    return Block(
        "projector",
        parameters,
        parameters if flow.trains else 0,
        saved=rows * kept + matrices * n.weight_copy if flow.reached else 0.0,
        forward=rows * (wide * n.stream + 2 * width * n.compute),
        backward=rows * (2 * wide * n.stream + width * n.compute) if flow.reached else 0.0,
    )


def _token_embedding(config: ModelConfig, use: PackUse, n: Numerics, flow: Flow) -> Block:
    """Keep the rotary tables that all layers share; text and visual rows are joined in a copy."""
    language = config.language
    parameters = language.vocab_size * language.hidden_size
    states = use.tokens * language.hidden_size * n.stream
    rotary = 2 * use.tokens * (language.hidden_size // language.num_attention_heads) * n.stream
    return Block(
        "language",
        parameters,
        parameters if flow.trains else 0,
        saved=rotary,
        forward=2 * states,
        backward=2 * states if flow.reached else 0.0,
    )


def _language_layer(config: ModelConfig, use: PackUse, n: Numerics, flow: Flow) -> Block:
    """Keep two norms, the shared input of q, k and v, q, k, v, out, the shared input, gate, SiLU, up and their product.

    The forward pass is fullest at that product, the backward pass where its three gradients are there.
    """
    language = config.language
    width, wide, heads = language.hidden_size, language.intermediate_size, language.num_attention_heads
    key_width = width // heads * language.num_key_value_heads
    # without a kernel there is one SDPA a sample, whose outputs are joined in a copy
    by_sample = n.attention == FP32 or config.attention == "sdpa_docs"
    attention: float = n.attention * (2 * width + 2 * key_width) + FP32 * heads
    attention += _inputs(n, flow, 1, width, n.compute) if by_sample or not flow.trains else 0.0
    mlp = _inputs(n, flow, 2, width, n.stream) + 3 * n.compute * wide + _inputs(n, flow, 1, wide, n.compute)
    kept = 2 * _rms_norm(flow, width, n.stream) + _inputs(n, flow, 3, width, n.stream) + attention + mlp

    matrices = 2 * width**2 + 2 * width * key_width + 3 * width * wide
    vectors = 2 * width + (width + 2 * key_width) * (language.model_type == "qwen2")
    adapters = flow.lora.rank * (4 * width + 2 * (width + key_width) + 3 * (width + wide)) if flow.adapted else 0
    trained = matrices + vectors if flow.trains else adapters
    copies = matrices * n.weight_copy if flow.reached else 0
    tokens = use.tokens
    block = Block(
        "language",
        matrices + vectors + adapters,
        trained,
        saved=tokens * kept + copies,
        forward=tokens * (3 * width * n.stream + 3 * wide * n.compute) + matrices * n.weight_copy,
        backward=tokens * (wide * n.compute * (2 if flow.trains else 3) + 2 * width * n.stream)
        + (width * wide * n.weight if flow.trains else 0),
        cached=copies if flow.trains else 0.0,
    )
    return _layer(block, flow, tokens * width * n.stream, n.stream == FP32)


def _final_norm(config: ModelConfig, use: PackUse, n: Numerics, flow: Flow) -> Block:
    width = config.language.hidden_size
    kept = use.tokens * _rms_norm(flow, width, n.stream) if flow.reached else 0.0
    states = use.tokens * width * n.stream
    return Block("language", width, width if flow.trains else 0, kept, states, 2 * states)


def chunk_rows(config: ModelConfig, supervised_rows: float) -> float:
    """Return how many supervised rows the head takes at once; fewer than there are = it works in chunks."""
    return min(supervised_rows, max(1, config.logits_byte_budget // (config.language.vocab_size * FP32)))


def _head(config: ModelConfig, use: PackUse, n: Numerics, flow: Flow) -> Block:
    """Keep the supervised rows; in chunks, the weight's gradient is summed up from one chunk to the next."""
    language = config.language
    rows, width = use.supervised_rows, language.hidden_size
    chunk = chunk_rows(config, rows)
    parameters = language.vocab_size * width
    kept = rows * width * (n.compute if flow.trains else 0)
    second_gradient = parameters * n.weight if flow.trains and chunk < rows else 0
    return Block(
        "language",
        parameters,
        parameters if flow.trains else 0,
        saved=kept + parameters * n.weight_copy,
        forward=rows * width * n.stream,
        backward=chunk * language.vocab_size * n.compute + use.tokens * width * n.stream + second_gradient,
    )


def _loss(config: ModelConfig, use: PackUse, n: Numerics, flow: Flow) -> Block:
    """Keep fp32 log-probabilities, made in the logits' place as is their gradient; hidden states are still there."""
    chunk = chunk_rows(config, use.supervised_rows)
    logits = chunk * config.language.vocab_size * FP32
    rounded = logits * n.compute / FP32 if n.compute < FP32 else 0.0
    hidden = use.tokens * config.language.hidden_size * n.stream
    in_chunks = chunk < use.supervised_rows
    earlier = config.language.vocab_size * config.language.hidden_size * n.weight if in_chunks and flow.trains else 0
    return Block(
        "logits",
        0,
        0,
        saved=0.0 if in_chunks else logits,
        forward=hidden + logits + rounded,
        backward=rounded + earlier,
        recomputed=logits if in_chunks else 0.0,
    )
