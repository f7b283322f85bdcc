import io
import json
import tarfile

import pytest
from PIL import Image

from internvl_lab.curation.review.flagged import FlaggedFile
from internvl_lab.errors import ConfigError


def test_samples_are_read_by_position(folder):
    flagged = FlaggedFile(folder)
    assert [flagged[n].key for n in range(len(flagged))] == flagged.keys
    sample = flagged[2]
    assert (sample.source, sample.rules) == ("zh", ("loop",))
    assert [role for role, _ in sample.turns] == ["human", "gpt"]
    assert sample.turns[1][1].startswith("图中")


def test_one_rule_may_be_asked_for(folder):
    flagged = FlaggedFile(folder, "loop")
    assert flagged.keys == ["web:1", "zh:3"]
    assert flagged[1].key == "zh:3"
    assert flagged.rules == {"loop": 2, "zero_run": 1, "html": 1}
    with pytest.raises(ConfigError, match="no sample was flagged by 'lop'; there are: html, loop, zero_run"):
        FlaggedFile(folder, "lop")


def test_images_come_as_small_jpegs_from_the_folder_or_an_absolute_path(folder):
    flagged = FlaggedFile(folder)
    for position in (0, 2):
        data = flagged.image(flagged[position], 0, 100)
        with Image.open(io.BytesIO(data)) as picture:
            assert (picture.format, picture.size) == ("JPEG", (100, 67))


def test_images_may_lie_below_a_root_or_in_a_shard(folder, tmp_path):
    with tarfile.open(tmp_path / "shard.tar", "w") as shard:
        shard.add(folder / "images" / "scene.png", "a.0.png")
    entry = {"key": "a", "source": "s", "record": {}, "verdicts": []}
    lines = [
        entry | {"images": ["scene.png", "nowhere.png"], "root": str(folder / "images")},
        entry | {"images": ["a.0.png", "a.1.png"], "shard": str(tmp_path / "shard.tar")},
    ]
    (folder / "flagged.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    flagged = FlaggedFile(folder)
    for position in (0, 1):
        assert flagged.image(flagged[position], 0, 50)[:3] == b"\xff\xd8\xff"
        assert flagged.image(flagged[position], 1, 50) is None


def test_a_line_that_is_no_record_is_shown_too(folder):
    (folder / "flagged.jsonl").write_text(
        '{"key": "a", "source": "s", "record": null, "line": "{broken", "verdicts": [], "images": [], "root": "/x"}\n'
    )
    assert "{broken" in FlaggedFile(folder)[0].turns[0][1]


def test_what_is_no_picture_does_not_come_out(folder):
    flagged = FlaggedFile(folder)
    assert flagged.image(flagged[3], 0, 100) is None  # a file of the system
    assert flagged.image(flagged[0], 1, 100) is None  # no such number


def test_a_record_without_turns_is_shown_as_it_is(folder):
    path = folder / "flagged.jsonl"
    path.write_text('{"key": "a", "source": "s", "record": {"id": 7}, "verdicts": [], "images": []}\n')
    assert FlaggedFile(folder)[0].turns == [("record", '{\n "id": 7\n}')]


def test_rejected_records_serve_where_nothing_was_flagged_apart(folder):
    (folder / "flagged.jsonl").rename(folder / "rejected.jsonl")
    assert len(FlaggedFile(folder)) == 4


def test_what_is_no_output_folder_is_one_line(folder, tmp_path):
    with pytest.raises(ConfigError, match="must be the output folder of `curate`"):
        FlaggedFile(tmp_path / "nowhere")
    (folder / "flagged.jsonl").write_text('{"key": "a"}\n')
    with pytest.raises(ConfigError, match=r"flagged\.jsonl:1 is no flagged sample"):
        FlaggedFile(folder)
