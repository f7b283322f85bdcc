"""torch.compile by region: each layer of the encoder and of the language model on its own.

The layers of a part are alike, so that one graph serves them all; embeddings, projector and head stay as they are.
"""

from __future__ import annotations

from internvl_lab.models.internvl import InternVL


def compile_layers(model: InternVL, backend: str = "inductor") -> None:
    """Compile every layer in place, at its first call; names of parameters stay what they are.

    Args:
        model: with adapters in place, not sharded yet.
        backend: of torch.compile; `inductor` needs a C++ compiler, and triton on a GPU.
    """
    for layer in [*model.vision_tower.encoder.layer, *model.language_model.layers]:
        layer.compile(backend=backend, dynamic=True)  # packs differ in length and number of tiles
