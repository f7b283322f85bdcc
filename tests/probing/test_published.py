"""The report's tables, checked against themselves: their averages, gains and readings."""

import pytest

from internvl_lab.probing.published import CLASSIFICATION, CLASSIFICATION_TESTS, SEGMENTATION, SEGMENTATION_TESTS


def rows(table):
    return [(encoder, head, values) for encoder, heads in table.items() for head, values in heads.items()]


@pytest.mark.parametrize(
    ("table", "tests", "heads"),
    [
        (CLASSIFICATION, CLASSIFICATION_TESTS, ["linear", "attention"]),
        (SEGMENTATION, SEGMENTATION_TESTS, ["linear", "upernet", "full"]),
    ],
)
def test_every_row_has_every_column(table, tests, heads):
    assert all(list(found) == heads for found in table.values())
    for encoder, head, values in rows(table):
        assert len(values) == len(tests) + 1, (encoder, head)
        assert values[-1] is not None
        assert all(value is None or 0 < value < 100 for value in values)


@pytest.mark.parametrize(("table", "tolerance"), [(CLASSIFICATION, 0.06), (SEGMENTATION, 0.11)])
def test_averages_are_those_of_their_rows(table, tolerance):
    """0.05 is the rounding of one decimal; the report itself rounds (39.4 + 35.6) / 2 and others in either way."""
    for encoder, head, (*values, average) in rows(table):
        if None not in values:
            assert sum(values) / len(values) == pytest.approx(average, abs=tolerance), (encoder, head)


@pytest.mark.parametrize(
    ("encoder", "gain"),
    [
        ("InternViT-6B-448px-V2.5", 6.7),
        ("InternViT-6B-448px-V1.5", 7.2),
        ("InternViT-6B-448px-V1.2", 6.4),
        ("InternViT-6B-448px-V1.0", 5.3),
        ("InternViT-6B-224px at 448", 3.5),
        ("InternViT-6B-224px at 224", 3.0),
    ],
)
def test_the_gains_of_attention_pooling_are_the_report_s(encoder, gain):
    heads = CLASSIFICATION[encoder]
    assert heads["attention"][-1] - heads["linear"][-1] == pytest.approx(gain, abs=0.05)


@pytest.mark.parametrize(
    ("encoder", "head_tuning", "full_tuning"),
    [
        ("InternViT-6B-448px-V2.5", 15.1, 17.7),
        ("InternViT-6B-448px-V1.5", 13.4, 16.6),
        ("InternViT-6B-448px-V1.2", 13.6, 16.8),
        ("InternViT-6B-448px-V1.0", 11.3, 13.9),
        ("InternViT-6B-224px", 6.9, 10.2),
    ],
)
def test_the_gains_of_tuning_are_the_report_s(encoder, head_tuning, full_tuning):
    """The report takes them before rounding: 0.1 is what three rounded numbers can be off."""
    linear, upernet, full = (values[-1] for values in SEGMENTATION[encoder].values())
    assert (upernet - linear, full - linear) == (
        pytest.approx(head_tuning, abs=0.11),
        pytest.approx(full_tuning, abs=0.11),
    )


def test_linear_separability_falls_and_the_rest_holds():
    """From the contrastive encoder to V2.5: the finding that the figure of the stages is to be held against."""
    first, last = (CLASSIFICATION[name] for name in ("InternViT-6B-224px at 224", "InternViT-6B-448px-V2.5"))
    assert first["linear"][-1] - last["linear"][-1] > 3
    assert abs(first["attention"][-1] - last["attention"][-1]) < 1
