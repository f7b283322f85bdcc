"""Load the vision encoder alone, from anything that holds one, and look at it after every layer.

    asset, folder (ours, transformers', the authors'), run, stage checkpoint ──load_encoder──> Encoder
    uint8 pictures (N, 3, S, S) ──hidden_states──> (N, 1+P, C) at depth 0 (embeddings) ... L

The language model beside it is never built: probing the encoder of a 78B model needs the encoder's memory.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from internvl_lab.checkpoints import resolve_source
from internvl_lab.checkpoints.sources import open_source
from internvl_lab.checkpoints.tensors import PROVENANCE_FILE, check_fit, sha256_of
from internvl_lab.config import ProbeConfig, VisionConfig
from internvl_lab.errors import CheckpointError, ConfigError
from internvl_lab.models import build_vision
from internvl_lab.models.pixels import normalise
from internvl_lab.models.vision import VisionTower

_PREFIX = "model.vision_tower."
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class EncoderSource:
    """Name one encoder of a comparison."""

    label: str
    folder: Path
    """Where its weights lie."""

    @property
    def fingerprint(self) -> str:
        """Return the hash of the weights' content; recorded with them, or taken of all their bytes."""
        record = self.folder / PROVENANCE_FILE
        recorded = json.loads(record.read_text(encoding="utf-8")).get("weights_sha256") if record.is_file() else None
        return str(recorded or sha256_of(self.folder))


@dataclass
class Encoder:
    """Hold one frozen encoder."""

    label: str
    fingerprint: str
    config: VisionConfig
    tower: VisionTower = field(repr=False)

    def move_to(self, device: torch.device) -> None:
        """Move the weights to a device."""
        nn.Module.to(self.tower, device)

    @property
    def num_layers(self) -> int:
        """Count the layers: depths run from 0 (the embeddings) to this."""
        return self.config.num_hidden_layers

    def hidden_states(self, pixel_values: Tensor) -> Iterator[Tensor]:
        """Yield the tokens (N, 1+P, C) after the embeddings and after every layer of uint8 pictures (N, 3, S, S)."""
        hidden = self.tower.embeddings(normalise(pixel_values, self.tower.dtype))
        yield hidden
        for layer in self.tower.encoder.layer:
            hidden = layer(hidden)
            yield hidden

    def resolve_depths(self, depths: tuple[int, ...]) -> tuple[int, ...]:
        """Turn depths of the configuration (negative = from the top, none = all) into 0..L, in order.

        Raises:
            ConfigError: a depth the encoder does not have.
        """
        if not depths:
            return tuple(range(self.num_layers + 1))
        absolute = {depth if depth >= 0 else self.num_layers + 1 + depth for depth in depths}
        if min(absolute) < 0 or max(absolute) > self.num_layers:
            raise ConfigError(f"depths {list(depths)}: encoder {self.label} has depths 0..{self.num_layers}")
        return tuple(sorted(absolute))


def list_encoders(config: ProbeConfig) -> list[EncoderSource]:
    """List the encoders a configuration names, in order.

    Raises:
        ConfigError: none named, two ways at once, or one label twice.
        MissingWeightsError, CheckpointError: a source without weights, see `resolve_source`.
    """
    if config.run and config.encoders:
        raise ConfigError("name what to probe with either probe.encoders=[...] or probe.run=DIR, not both")
    if config.run:
        return _of_run(Path(config.run).expanduser())
    words = config.encoders or ((config.encoder,) if config.encoder else ())
    if not words:
        raise ConfigError("nothing to probe: name an encoder with probe.encoder=SOURCE, or a run with probe.run=DIR")
    named = [_parse(word) for word in words]
    if len({source.label for source in named}) < len(named):
        raise ConfigError(f"probe.encoders: write LABEL@SOURCE, {[s.label for s in named]} are not all different")
    return named


def _parse(word: str) -> EncoderSource:
    """Split LABEL@SOURCE (Hydra's lists allow no `=`); without a label the source's own name serves."""
    label, mark, source = word.partition("@")
    if not mark or Path(word).expanduser().exists():
        source, label = word, Path(word.removeprefix("asset:").rstrip("/").removesuffix("/weights")).name
    return EncoderSource(label, resolve_source(source, "vision"))


def _of_run(run: Path) -> list[EncoderSource]:
    """List the weights of a run's finished stages, oldest first."""
    done = sorted(run.glob("stages/*/done.json"), key=lambda path: path.stat().st_mtime)
    if not done:
        raise CheckpointError(f"probe.run={run} holds no finished stage")
    return [EncoderSource(path.parent.name, resolve_source(str(path.parent / "weights"), "vision")) for path in done]


def load_encoder(source: EncoderSource, dtype: str = "float32", attention: str = "auto") -> Encoder:
    """Load an encoder, frozen and in eval mode.

    Args:
        source: where it lies.
        dtype: `float32` or `bfloat16`.
        attention: backend, see `build_vision`.
    Raises:
        CheckpointError: no encoder there, no settings that describe it, or tensors that do not fit (all listed).
    """
    opened = open_source(source.folder)
    config = opened.settings.vision
    if config is None:
        raise CheckpointError(f"{source.folder} does not say how its encoder is built: config.json is missing")
    tower = build_vision(replace(config, weights=None), attention)
    nn.Module.to(tower, _DTYPES[dtype])
    targets = {f"{_PREFIX}{name}": tensor for name, tensor in tower.state_dict().items()}
    shapes = {key: tensor for key, tensor in opened.shapes(("vision",)).items() if key.startswith(_PREFIX)}
    check_fit(shapes.items(), targets, f"vision from {source.folder}")
    with torch.no_grad():
        for key in shapes:
            targets[key].copy_(opened.read(key))
    tower.requires_grad_(False).train(False)
    return Encoder(source.label, source.fingerprint, config, tower)
