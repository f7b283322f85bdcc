from __future__ import annotations

import pytest
import torch

from internvl_lab.bench import peers
from internvl_lab.bench.samples import WORKLOADS, draw_samples
from internvl_lab.constants import IGNORE_INDEX
from internvl_lab.errors import InternVLLabError
from internvl_lab.models import InternVL

TINY = WORKLOADS["tiny"]
SAMPLES = draw_samples(TINY)


def text_only(sample: int) -> bool:
    return not len(SAMPLES[sample].tiles)


def test_peer_has_our_weights_its_own_attention_and_an_untied_head() -> None:
    model = InternVL(TINY.model, TINY.image_token_id)
    peer = peers.build_peer(model)
    assert peer.config.text_config._attn_implementation == "sdpa"
    assert peer.config.vision_config._attn_implementation == "sdpa"
    theirs = dict(peer.named_parameters())
    assert sum(p.numel() for p in theirs.values()) == sum(p.numel() for p in model.parameters())
    assert torch.equal(peer.lm_head.weight, model.lm_head.weight)
    assert peer.lm_head.weight is not peer.get_input_embeddings().weight
    assert all(theirs[peers.native_name(name)] is parameter for name, parameter in model.named_parameters())
    assert all(parameter.requires_grad for parameter in theirs.values())


def test_peer_has_our_dtype() -> None:
    workload = TINY.with_dtype("bfloat16")
    peer = peers.build_peer(InternVL(workload.model, workload.image_token_id))
    assert {p.dtype for p in peer.parameters()} == {torch.bfloat16}
    assert peer.model.language_model.rotary_emb.inv_freq.dtype == torch.float32


def test_a_peer_with_our_attention_keeps_samples_apart() -> None:
    model = InternVL(TINY.model, TINY.image_token_id)
    peer = peers.build_peer(model, our_attention=True).eval()
    assert peer.config.text_config._attn_implementation == peers.PACKED_ATTENTION
    inputs = peers.recipe_inputs(model.backend, torch.device("cpu"), SAMPLES[:3], torch.float32)
    logits = peer(**inputs, use_cache=False).logits
    changed = inputs | {"input_ids": inputs["input_ids"].clone()}
    first = len(SAMPLES[0].input_ids)
    changed["input_ids"][0, first - 1] = (changed["input_ids"][0, first - 1] + 1) % TINY.num_plain_ids
    moved = (peer(**changed, use_cache=False).logits != logits).any(-1)[0]
    assert moved[first - 1] and not moved[first:].any()


def test_recomputation_is_for_all_layers_or_none() -> None:
    peer = peers.build_peer(InternVL(TINY.model, TINY.image_token_id))
    for wanted in (True, False):
        peers.set_recompute(peer, wanted)
        assert peer.is_activation_checkpointing is wanted


def test_a_model_with_other_parameters_is_no_peer() -> None:
    model = InternVL(TINY.model, TINY.image_token_id)
    model.lm_head = torch.nn.Linear(16, 3, bias=False)
    with pytest.raises(InternVLLabError, match="differ from ours"):
        peers.build_peer(model)


def test_padded_batches_keep_arrival_order_or_sort() -> None:
    arrival = peers.padded_batches(SAMPLES, 2, sort=False)
    assert [s.key for batch in arrival for s in batch] == [s.key for s in SAMPLES]
    assert [len(batch) for batch in arrival] == [2, 2, 2, 2, 1]
    lengths = [len(s.input_ids) for batch in peers.padded_batches(SAMPLES, 2, sort=True) for s in batch]
    assert lengths == sorted(lengths, reverse=True)
    assert len(lengths) == len(SAMPLES)


def test_padding_share_counts_the_padding() -> None:
    batch = SAMPLES[:2]
    inputs = peers.padded_inputs(batch, torch.float32)
    assert peers.padding_share([batch]) == pytest.approx(1 - inputs["attention_mask"].float().mean().item())
    assert peers.padding_share([[s] for s in SAMPLES]) == 0


def test_padded_inputs_ignore_the_padding() -> None:
    inputs = peers.padded_inputs(SAMPLES[:3], torch.float32)
    padding = inputs["attention_mask"] == 0
    assert padding.any()
    assert (inputs["labels"][padding] == IGNORE_INDEX).all()
    assert int((inputs["labels"] != IGNORE_INDEX).sum()) == peers.num_targets(SAMPLES[:3])


def test_packed_inputs_let_no_sample_predict_the_next() -> None:
    inputs = peers.packed_inputs(SAMPLES[:3], torch.float32)
    starts = inputs["position_ids"][0] == 0
    assert int(starts.sum()) == 3
    assert (inputs["labels"][0, starts] == IGNORE_INDEX).all()
    assert "attention_mask" not in inputs


def test_unshifted_labels_name_the_token_in_their_own_place() -> None:
    for sample in SAMPLES:
        labels = peers.unshifted_labels(sample)
        supervised = labels != IGNORE_INDEX
        assert (labels[supervised] == sample.input_ids[supervised]).all()
        assert supervised.sum() == (sample.labels != IGNORE_INDEX).sum()


def test_tiles_arrive_normalised_as_ours_normalises_them() -> None:
    batch = [s for s in SAMPLES if len(s.tiles)]
    model = InternVL(TINY.model, TINY.image_token_id)
    given = peers.packed_inputs(batch, torch.float32)["pixel_values"]
    ours = model._normalise(torch.cat([torch.from_numpy(s.tiles) for s in batch]))
    torch.testing.assert_close(given, ours, atol=1e-5, rtol=0)


def test_a_batch_without_tiles_runs() -> None:
    batch = [SAMPLES[i] for i in range(len(SAMPLES)) if text_only(i)]
    assert batch
    peer = peers.build_peer(InternVL(TINY.model, TINY.image_token_id))
    inputs = peers.padded_inputs(batch, torch.float32)
    assert "pixel_values" not in inputs
    mean, halved = (peers.peer_loss(peer, inputs, count).item() for count in (10, 20))
    assert mean > 0
    assert halved == pytest.approx(mean / 2)
