"""Load the vision encoder alone, from anything that holds one, and look at it after every layer.

    asset, folder (ours, transformers', the authors'), run, stage checkpoint ──load_encoder──> Encoder
    uint8 pictures (N, 3, S, S) ──hidden_states──> (N, 1+P, C) at depth 0 (embeddings) ... L

The language model beside it is never built: probing the encoder of a 78B model needs the encoder's memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor, nn

from internvl_lab.checkpoints import resolve_source
from internvl_lab.checkpoints.sources import open_source
from internvl_lab.checkpoints.tensors import check_fit, recorded_sha256, sha256_of
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
    run: str = ""
    """Name of the run it comes from, where several runs are compared as one."""

    @property
    def name(self) -> str:
        """Name it apart from all others: `stage1`, or `stage1 of 41d9fb592f`."""
        return f"{self.label} of {self.run}" if self.run else self.label

    @cached_property
    def fingerprint(self) -> str:
        """Return the hash of the weights' content; recorded with them, or taken of all their bytes."""
        return recorded_sha256(self.folder) or sha256_of(self.folder)


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
        ConfigError: none named, two ways at once, one label twice, or runs of different stages.
        MissingWeightsError, CheckpointError: a source without weights, see `resolve_source`.
    """
    if sum(map(bool, (config.encoders, config.run, config.runs))) > 1:
        raise ConfigError("name what to probe with one of probe.encoders=[...], probe.run=DIR and probe.runs=[...]")
    if config.run:
        return _of_run(Path(config.run).expanduser())
    if config.runs:
        return _of_runs([Path(run).expanduser() for run in config.runs])
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


def _of_runs(runs: Sequence[Path]) -> list[EncoderSource]:
    """List the weights of several runs of the same stages, run by run, in the first one's order."""
    found = {run.resolve().name: {source.label: source for source in _of_run(run)} for run in runs}
    if len(found) < len(runs):
        raise ConfigError(f"probe.runs={[str(run) for run in runs]} names one run, or one folder's name, twice")
    stages = list(next(iter(found.values())))
    for run, sources in found.items():
        if set(sources) != set(stages):
            raise ConfigError(f"probe.runs: {run} finished {list(sources)}, but {next(iter(found))} {stages}")
    return [replace(sources[stage], run=run) for run, sources in found.items() for stage in stages]


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
