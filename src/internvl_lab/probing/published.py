"""Rows of the report's own tables, to stand beside ours; never to be mixed with numbers on miniworld.

Source: InternVL 2.5, tables 14 and 15; spec section 11.3.
"""

from __future__ import annotations

CLASSIFICATION_TESTS = ("IN-1K", "IN-ReaL", "IN-V2", "IN-A", "IN-R", "IN-Sketch")
CLASSIFICATION: dict[str, dict[str, tuple[float | None, ...]]] = {
    "InternViT-6B-448px-V2.5": {
        "linear": (86.6, 90.1, 77.8, 73.7, 82.7, 60.0, 78.5),
        "attention": (88.3, 91.2, 81.3, 86.9, 92.4, 70.8, 85.2),
    },
    "InternViT-6B-448px-V1.5": {"linear": (*(None,) * 6, 77.9), "attention": (*(None,) * 6, 85.1)},
    "InternViT-6B-448px-V1.2": {"linear": (*(None,) * 6, 79.4), "attention": (*(None,) * 6, 85.8)},
    "InternViT-6B-448px-V1.0": {"linear": (*(None,) * 6, 80.6), "attention": (*(None,) * 6, 85.9)},
    "InternViT-6B-224px at 448": {
        "linear": (87.8, *(None,) * 5, 81.3),
        "attention": (88.8, *(None,) * 5, 84.8),
    },
    "InternViT-6B-224px at 224": {
        "linear": (88.2, *(None,) * 5, 82.5),
        "attention": (89.2, *(None,) * 5, 85.5),
    },
}
"""Encoder to head to top-1 accuracy (%) on each test, the average last; None = not in our copy of the table."""

SEGMENTATION_TESTS = ("ADE20K", "COCO-Stuff-164K")
SEGMENTATION: dict[str, dict[str, tuple[float | None, ...]]] = {
    "InternViT-6B-448px-V2.5": {
        "linear": (39.4, 35.6, 37.5),
        "upernet": (55.4, 49.7, 52.6),
        "full": (58.6, 51.8, 55.2),
    },
    "InternViT-6B-448px-V1.5": {
        "linear": (40.9, 36.3, 38.6),
        "upernet": (55.0, 49.1, 52.0),
        "full": (58.8, 51.5, 55.2),
    },
    "InternViT-6B-448px-V1.2": {
        "linear": (40.7, 36.1, 38.4),
        "upernet": (55.2, 48.8, 52.0),
        "full": (58.8, 51.7, 55.2),
    },
    "InternViT-6B-448px-V1.0": {
        "linear": (43.6, 38.5, 41.0),
        "upernet": (55.4, 49.4, 52.4),
        "full": (58.1, 51.7, 54.9),
    },
    "InternViT-6B-224px": {"linear": (47.2, 42.8, 45.0), "upernet": (54.9, 48.9, 51.9), "full": (58.9, 51.6, 55.3)},
}
"""Encoder to head to mIoU (%) on each test, the average last."""
