import pytest
import torch

from internvl_lab.config.compose import compose
from internvl_lab.data.batch import Batch
from internvl_lab.models import step_flops
from internvl_lab.prepare import world_size_of
from internvl_lab.run_stage import count_flops


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"devices": 1}, 1),
        ({"devices": 2, "num_nodes": 3}, 6),
        ({"devices": [0, 1, 3]}, 3),
        ({"devices": "auto", "accelerator": "cpu"}, 1),
        ({}, 1),
    ],
)
def test_processes_are_counted_as_lightning_will_start_them(options, expected):
    assert world_size_of(options) == expected


def test_flops_of_a_pack_count_what_it_holds():
    config = compose()
    stage = config.stages["stage2"]
    weights = torch.zeros(1, 10)
    weights[0, 3:5] = 1.0
    batch = Batch(
        input_ids=torch.zeros(1, 10, dtype=torch.long),
        labels=torch.zeros(1, 10, dtype=torch.long),
        position_ids=torch.zeros(1, 10, dtype=torch.long),
        cu_seqlens=torch.tensor([0, 4, 10], dtype=torch.int32),
        max_seqlen=6,
        loss_weights=weights,
        pixel_values=torch.zeros(2, 3, 112, 112, dtype=torch.uint8),
        tiles_per_sample=torch.tensor([1, 1]),
        source_ids=torch.tensor([0, 0]),
        sample_keys=["a", "b"],
    )
    expected = step_flops(
        config.model, tokens=10, sum_sq=16 + 36, tiles=2, supervised_rows=2, trainable=stage.trainable
    )
    assert count_flops(config, stage)(batch) == expected
