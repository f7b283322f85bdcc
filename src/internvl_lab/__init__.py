"""internvl-lab: train, ablate and evaluate InternVL 2.5 (arXiv 2412.05271).

The public API for notebooks; everything else is imported from its room:

    model, processor = internvl_lab.load("outputs/latest")
    config = internvl_lab.compose(["experiment=quickstart"])
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from internvl_lab.api import compose, load

__version__ = "0.1.0"
__all__ = ["__version__", "compose", "load"]


def __getattr__(name: str) -> object:
    """Import the public API on first use, so that `import internvl_lab` costs no torch."""
    if name in ("compose", "load"):
        from internvl_lab import api

        return getattr(api, name)
    raise AttributeError(f"module 'internvl_lab' has no attribute {name!r}")
