"""The assembled model: isolation to the bit, packed = single, strict scatter, cached decoding."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import DynamicCache

from internvl_lab.config import ModelConfig
from internvl_lab.constants import IMAGENET_MEAN, IMAGENET_STD
from internvl_lab.errors import ConfigError, TokenMismatchError
from internvl_lab.models import BACKENDS, InternVL, part_of

SAMPLES = [(9, 1), (6, 0), (12, 2), (3, 0)]
EVERYWHERE = [name for name, backend in BACKENDS.items() if not backend.needs_kernel]
"""Kernels know half precision only: what follows compares fp32; their tests are in `attention/test_kernels.py`."""
Build = Callable[[ModelConfig], InternVL]
PackOf = Callable[..., Any]


def losses_of(model: InternVL, pack: Any) -> Tensor:
    return model.token_losses(model(**pack.inputs), pack.labels).losses


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("backend", EVERYWHERE)
def test_perturbing_a_sample_moves_no_bit_of_another(
    backend: str, training: bool, checkpointing: bool, config: ModelConfig, build_model: Build, pack_of: PackOf
) -> None:
    model = build_model(replace(config, attention=backend)).train(training)
    if checkpointing:
        model.set_gradient_checkpointing(("vision", "language"))
    pack = pack_of(SAMPLES)
    start, end = pack.lengths[0], pack.lengths[0] + pack.lengths[1]
    plain = model.lm_head(model(**pack.inputs))
    pack.inputs["input_ids"][0, start:end] = (pack.inputs["input_ids"][0, start:end] + 7) % 50
    pack.inputs["position_ids"][0, start:end] += 1
    moved = model.lm_head(model(**pack.inputs))
    others = [i for i in range(plain.shape[1]) if not start <= i < end]
    assert torch.equal(plain[:, others], moved[:, others])
    assert not torch.equal(plain[:, start:end], moved[:, start:end])


@pytest.mark.parametrize("backend", EVERYWHERE)
def test_perturbing_a_tile_moves_its_own_sample_only(
    backend: str, config: ModelConfig, build_model: Build, pack_of: PackOf
) -> None:
    model = build_model(replace(config, attention=backend)).eval()
    pack = pack_of(SAMPLES)
    plain = model(**pack.inputs)
    pack.inputs["pixel_values"][0] = 255 - pack.inputs["pixel_values"][0]
    moved = model(**pack.inputs)
    end = pack.lengths[0]
    assert torch.equal(plain[:, end:], moved[:, end:])
    assert not torch.equal(plain[:, :end], moved[:, :end])


@pytest.mark.parametrize("backend", EVERYWHERE)
def test_packed_losses_and_gradients_equal_single_ones(
    backend: str, config: ModelConfig, build_model: Build, pack_of: PackOf
) -> None:
    model = build_model(replace(config, attention=backend)).train()
    pack = pack_of(SAMPLES)
    packed = losses_of(model, pack)
    packed.square().sum().backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()

    singles, starts, tiles = [], pack.inputs["cu_seqlens"].tolist(), 0
    for (_, num_tiles), start, end in zip(SAMPLES, starts, starts[1:], strict=False):
        inputs = {
            "input_ids": pack.inputs["input_ids"][:, start:end],
            "position_ids": pack.inputs["position_ids"][:, start:end],
            "cu_seqlens": torch.tensor([0, end - start], dtype=torch.int32),
            "max_seqlen": end - start,
            "pixel_values": pack.inputs["pixel_values"][tiles : tiles + num_tiles],
        }
        losses = model.token_losses(model(**inputs), pack.labels[:, start:end]).losses
        losses.square().sum().backward()
        singles.append(losses)
        tiles += num_tiles
    torch.testing.assert_close(packed, torch.cat(singles), rtol=1e-5, atol=1e-5)
    for name, parameter in model.named_parameters():
        scale = gradients[name].abs().max()
        assert (parameter.grad - gradients[name]).abs().max() <= 1e-5 * scale + 1e-6, name


def test_gradient_checkpointing_changes_no_gradient(config: ModelConfig, build_model: Build, pack_of: PackOf) -> None:
    model, pack = build_model(config).train(), pack_of(SAMPLES)
    model.set_drop_path(0.3)
    gradients = []
    for parts in ((), ("vision", "language")):
        model.set_gradient_checkpointing(parts)
        assert model.vision_tower.encoder.layer[0].gradient_checkpointing == ("vision" in parts)
        assert model.language_model.layers[0].gradient_checkpointing == ("language" in parts)
        model.zero_grad()
        torch.manual_seed(1)
        losses_of(model, pack).sum().backward()
        gradients.append([p.grad.clone() for p in model.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


def test_checkpointing_of_a_part_without_layers_is_refused(small_config: ModelConfig, build_model: Build) -> None:
    with pytest.raises(ConfigError, match="'projector' must be one of vision, language"):
        build_model(small_config).set_gradient_checkpointing(("projector",))


def test_backends_agree(config: ModelConfig, build_model: Build, pack_of: PackOf) -> None:
    pack = pack_of(SAMPLES)
    first, *others = (build_model(replace(config, attention=name))(**pack.inputs) for name in EVERYWHERE)
    for other in others:
        torch.testing.assert_close(first, other, rtol=1e-5, atol=1e-5)


def test_uint8_tiles_are_normalised_as_floats_would_be(small_config: ModelConfig, build_model: Build) -> None:
    model = build_model(small_config)
    tiles = torch.randint(0, 256, (2, 3, 56, 56), dtype=torch.uint8)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    by_hand = (tiles.double() / 255 - mean) / std
    torch.testing.assert_close(model.encode_tiles(tiles), model.encode_tiles(by_hand.float()), rtol=1e-5, atol=1e-5)
    assert model.encode_tiles(tiles).shape == (2, 4, 32)


def test_visual_tokens_replace_the_context_tokens_in_order(small_config: ModelConfig, build_model: Build) -> None:
    model = build_model(small_config)
    ids = torch.tensor([[1, 57, 57, 57, 57, 2, 57, 57, 57, 57]])
    visual = torch.randn(2, 4, 32)
    embedded = model.embed(ids, visual)
    assert torch.equal(embedded[0, 1:5], visual[0])
    assert torch.equal(embedded[0, 6:], visual[1])
    assert torch.equal(embedded[0, 5], model.language_model.embed_tokens.weight[2])


@pytest.mark.parametrize(("num_context", "num_tiles"), [(3, 1), (5, 1), (4, 2), (0, 1), (4, 0)])
def test_a_mismatch_of_tokens_and_tiles_names_both_counts(
    num_context: int, num_tiles: int, small_config: ModelConfig, build_model: Build
) -> None:
    model = build_model(small_config)
    ids = torch.tensor([[1, *[57] * num_context, 2]])
    with pytest.raises(
        TokenMismatchError, match=rf"holds {num_context} <IMG.*{num_tiles} x 4 = {4 * num_tiles} visual"
    ):
        model.embed(ids, torch.randn(num_tiles, 4, 32) if num_tiles else None)


def test_a_pack_without_tiles_is_exact_and_gives_every_part_a_gradient(
    config: ModelConfig, build_model: Build, pack_of: PackOf
) -> None:
    model, pack = build_model(config).train(), pack_of([(9, 0), (4, 0)])
    hidden = model(**pack.inputs)
    embeddings = model.language_model.embed_tokens(pack.inputs["input_ids"])
    layout = model.backend.lay_out(pack.inputs["cu_seqlens"], 9)
    text_only = model.language_model(
        inputs_embeds=embeddings, position_ids=pack.inputs["position_ids"], use_cache=False, **layout
    )
    assert torch.equal(hidden, text_only.last_hidden_state)
    model.token_losses(hidden, pack.labels).losses.sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        if part_of(name) != "language":
            assert not parameter.grad.any(), name


@pytest.mark.parametrize("backend", EVERYWHERE)
def test_cached_decoding_equals_the_packed_forward(
    backend: str, config: ModelConfig, build_model: Build, pack_of: PackOf
) -> None:
    """Two prompts, left-padded, decoded token by token with a cache, against the same two as a pack."""
    model, pack = build_model(replace(config, attention=backend)).eval(), pack_of([(9, 1), (6, 0)])
    expected = model.lm_head(model(**pack.inputs))[0].split(pack.lengths)
    with torch.inference_mode():
        flat = model.embed(pack.inputs["input_ids"], model.encode_tiles(pack.inputs["pixel_values"]))[0]
        rows, prefill = max(pack.lengths), 8
        embeds = torch.zeros(2, rows, 32)
        for row, sample in enumerate(flat.split(pack.lengths)):
            embeds[row, rows - len(sample) :] = sample
        valid = torch.arange(rows)[None] >= rows - torch.tensor(pack.lengths)[:, None]
        positions = (valid.cumsum(1) - 1).clamp_min(0)
        causal = torch.ones(rows, rows, dtype=torch.bool).tril()
        mask = (valid[:, None, None, :] & causal) | torch.eye(rows, dtype=torch.bool)
        cache, outputs, start = DynamicCache(), [], 0
        for end in [prefill, *range(prefill + 1, rows + 1)]:
            outputs.append(
                model.language_model(
                    inputs_embeds=embeds[:, start:end],
                    attention_mask=mask[:, :, start:end, :end],
                    position_ids=positions[:, start:end],
                    past_key_values=cache,
                    use_cache=True,
                ).last_hidden_state
            )
            start = end
        logits = model.lm_head(torch.cat(outputs, dim=1))
    for row, wanted in enumerate(expected):
        torch.testing.assert_close(logits[row, rows - len(wanted) :], wanted, rtol=1e-4, atol=1e-4)


def test_bf16_keeps_rotary_tables_in_fp32_and_stays_close(
    small_config: ModelConfig, build_model: Build, pack_of: PackOf
) -> None:
    model = build_model(replace(small_config, dtype="bfloat16")).eval()
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    assert model.language_model.rotary_emb.inv_freq.dtype == torch.float32
    assert torch.get_default_dtype() == torch.float32
    exact = InternVL(small_config, 57)
    exact.load_state_dict(model.state_dict())
    pack = pack_of(SAMPLES)
    similarity = torch.cosine_similarity(model(**pack.inputs).float(), exact(**pack.inputs), dim=-1)
    assert similarity.min() > 0.99
    assert losses_of(model, pack).dtype == torch.float32


def test_bf16_autocast_trains_every_parameter(small_config: ModelConfig, build_model: Build, pack_of: PackOf) -> None:
    model, pack = build_model(small_config).train(), pack_of(SAMPLES)
    with torch.autocast("cpu", torch.bfloat16):
        losses = losses_of(model, pack)
    losses.sum().backward()
    assert losses.dtype == torch.float32
    torch.testing.assert_close(losses, losses_of(model, pack), rtol=0.1, atol=0.1)
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in model.parameters())


def test_parts_cover_every_parameter_once(config: ModelConfig, build_model: Build) -> None:
    model = build_model(config)
    by_part = {name: {id(p) for p in part.parameters()} for name, part in model.parts().items()}
    assert list(by_part) == ["vision", "projector", "language"]
    for name, parameter in model.named_parameters():
        assert [part for part, ids in by_part.items() if id(parameter) in ids] == [part_of(name)]
        assert part_of(f"model.{name}") == part_of(name)
    assert model.lm_head.weight is not model.language_model.embed_tokens.weight
    with pytest.raises(ConfigError, match=r"'vision_model\.x' belongs to no part"):
        part_of("vision_model.x")


def test_unknown_settings_are_refused(small_config: ModelConfig) -> None:
    with pytest.raises(ConfigError, match=r"model\.dtype='float64'"):
        InternVL(replace(small_config, dtype="float64"), 57)
    with pytest.raises(ConfigError, match=r"model\.attention"):
        InternVL(replace(small_config, attention="none"), 57)


def test_the_logits_budget_comes_from_the_configuration(
    small_config: ModelConfig, build_model: Build, pack_of: PackOf
) -> None:
    model = build_model(replace(small_config, logits_byte_budget=3 * 64 * 4))
    seen: list[int] = []
    model.lm_head.register_forward_hook(lambda _module, inputs, _output: seen.append(len(inputs[0])))
    losses_of(model, pack_of(SAMPLES))
    assert max(seen) == 3


def test_device_and_dtype_are_those_of_the_parameters(small_config: ModelConfig, build_model: Build) -> None:
    model = build_model(small_config)
    assert (model.device.type, model.dtype) == ("cpu", torch.float32)
