"""What the GPUs of this field can do at most: dense bf16 products a second, and memory.

Peaks are the vendors' data sheets, without sparsity, accumulated in fp32; memory is what torch reports as a device's
total (`torch.cuda.mem_get_info`), rounded down to whole GiB, because the sheets' round figures are never all there.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

GIB = 1 << 30


@dataclass(frozen=True)
class Device:
    """Describe one kind of GPU."""

    peak_bf16_flops: float
    """Dense bf16 operations a second; a multiplication and an addition are two."""
    memory_bytes: int


DEVICES = {
    "b200": Device(2250e12, 178 * GIB),
    "h200": Device(989e12, 139 * GIB),
    "h200 nvl": Device(836e12, 139 * GIB),
    "h100": Device(989e12, 79 * GIB),
    "h100 nvl": Device(835e12, 93 * GIB),
    "h100 pcie": Device(756e12, 79 * GIB),
    "h20": Device(148e12, 95 * GIB),
    "a100": Device(312e12, 79 * GIB),
    "a100 40gb": Device(312e12, 39 * GIB),
    "a800": Device(312e12, 79 * GIB),
    "l40s": Device(362e12, 44 * GIB),
    "l4": Device(121e12, 22 * GIB),
}
"""Words of the device's name to what it can do; of two that fit a name, the one with more words counts."""
_PARTIAL = frozenset({"mig", "laptop"})
"""Words of devices that are only a part, or a slower edition, of the one that their name holds."""


def find_device(name: str) -> Device | None:
    """Look a device up by its key, or by the name that the driver gives it; None where the table has none.

    Args:
        name: `h100`, `NVIDIA H100 80GB HBM3`, `NVIDIA A100-SXM4-40GB`, ...; a MIG slice is no device of the table.
    """
    words = frozenset(re.findall(r"[a-z0-9]+", name.lower()))
    fitting = [key for key in DEVICES if words.issuperset(key.split()) and not words & _PARTIAL]
    return DEVICES[max(fitting, key=len)] if fitting else None
