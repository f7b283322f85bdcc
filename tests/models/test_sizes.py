from __future__ import annotations

from internvl_lab.config.compose import compose
from internvl_lab.models import build_on_meta, count_parameters


def test_counting_needs_no_memory() -> None:
    model = build_on_meta(compose(["model=internvl2_5_78b"]).model)
    assert all(parameter.is_meta for parameter in model.parameters())
    assert count_parameters(model)["total"] == 78_408_318_336
