import io

from rich.console import Console

from internvl_lab.config.compose import compose
from internvl_lab.run_plan import print_plan


def plan_text(*overrides):
    console = Console(file=io.StringIO(), width=200)
    print_plan(compose(overrides), console)
    return console.file.getvalue()


def test_full_scale_plan_needs_no_weights_and_counts_exactly():
    text = plan_text("experiment=scaling_6b_vit")
    assert "5,536,496,000" in text
    assert "629,697,920" in text
    assert "(missing)" in text
    assert "model/vision=full/internvit_300m" in text
    assert "model/vision=full/internvit_6b" in text


def test_mini_plan_lists_stages_in_order():
    text = plan_text()
    assert text.index("stage1 ") < text.index("stage1_5") < text.index("stage2")
    assert "asset:internvit_300m" in text
