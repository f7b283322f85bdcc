"""Load a sharded model on one of several gloo processes, and compare it with a plain one.

Run by `test_materialise.py`: `python sharded_load.py RANK WORLD_SIZE RENDEZVOUS_FILE WEIGHTS [--lora]`; rank 0 prints
one line of JSON.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from torch import distributed
from torch.distributed.device_mesh import init_device_mesh

from internvl_lab.bench.timing import CpuClock
from internvl_lab.checkpoints import initialise, read_config
from internvl_lab.config import InitConfig, LoraConfig, StageConfig
from internvl_lab.constants import PARTS
from internvl_lab.models import InternVL, build_on_meta, gather_weights, is_adapter, whole
from internvl_lab.training.freezing import apply_stage
from internvl_lab.training.materialise import is_empty, materialise
from internvl_lab.training.sharding import shard

SEED = 5
CPU = torch.device("cpu")


def main() -> None:
    """Load, compare, print."""
    rank, world_size, rendezvous, folder = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4]
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", f"file://{rendezvous}", rank=rank, world_size=world_size)
    lora = LoraConfig(parts=("language",), dropout=0.0) if "--lora" in sys.argv else LoraConfig()
    stage = StageConfig(name="stage", trainable=("projector",) if lora.parts else PARTS, lora=lora)
    init = InitConfig(vision=folder, language=folder)  # the projector is drawn
    config, image_token_id = read_config(Path(folder))
    model = build_on_meta(config, image_token_id)
    apply_stage(model, stage)
    shard(model, init_device_mesh("cpu", (world_size,)), "32-true")
    assert is_empty(model)
    reading = CpuClock().measure(lambda: float(len(materialise(model, CPU, init, SEED))))
    assert not is_empty(model) and not any(buffer.is_meta for buffer in model.buffers())
    adapters = {name: whole(p) for name, p in model.named_parameters() if is_adapter(name)}
    weights = gather_weights(model, keep=rank == 0)
    if rank == 0:
        torch.manual_seed(SEED)
        plain = InternVL(config, image_token_id)
        initialise(plain, init)
        print(json.dumps(compare(plain, model, weights, adapters) | {"extra_peak_mib": reading.extra_peak_mib}))
    distributed.barrier()
    distributed.destroy_process_group()


def compare(plain: InternVL, model: InternVL, weights: dict, adapters: dict) -> dict[str, object]:  # type: ignore[type-arg]
    """Compare a gathered model with a plain one, and say how large it is."""
    theirs = plain.state_dict()
    buffers = zip(plain.named_buffers(), model.named_buffers(), strict=True)
    return {
        "equal": weights.keys() == theirs.keys() and all(torch.equal(weights[n], theirs[n]) for n in theirs),
        "equal_buffers": all(a[0] == b[0] and torch.equal(a[1], b[1]) for a, b in buffers),
        "whole_mib": sum(tensor.nbytes for tensor in theirs.values()) / 2**20,
        "adapters": len(adapters),
        "random_a": all(tensor.std() > 0 for name, tensor in adapters.items() if "lora_A" in name),
        "zero_b": not any(tensor.any() for name, tensor in adapters.items() if "lora_B" in name),
    }


if __name__ == "__main__":
    main()
