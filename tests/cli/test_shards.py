import json
import logging
import shlex
import tarfile

import pytest
from PIL import Image

from internvl_lab.cli import main
from internvl_lab.config.compose import compose


def test_users_jsonl_becomes_shards_and_rejects_are_named(tmp_path):
    Image.new("RGB", (40, 30), "red").save(tmp_path / "a.jpg")
    turns = [{"from": "human", "value": "<image>\nWhat color?"}, {"from": "gpt", "value": "red"}]
    lines = [
        {"id": 1, "image": "a.jpg", "conversations": turns},
        {"id": 2, "image": "missing.jpg", "conversations": turns},
    ]
    (tmp_path / "data.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    meta = {"mine": {"root": str(tmp_path), "annotation": str(tmp_path / "data.jsonl"), "repeat_time": 1}}
    (tmp_path / "meta.json").write_text(json.dumps(meta))
    assert main(["shards", "--meta", str(tmp_path / "meta.json"), "--out", str(tmp_path / "out")]) == 0
    assert list((tmp_path / "out" / "mine").glob("*.tar"))
    rejected = [json.loads(line) for line in (tmp_path / "out" / "rejected.jsonl").read_text().splitlines()]
    assert len(rejected) == 1


@pytest.mark.parametrize(("options", "expected"), [([], 40), (["--stored-frames", "2", "--workers", "1"], 2)])
def test_frames_of_a_video_and_the_command_that_trains_on_it(tmp_path, caplog, options, expected):
    (tmp_path / "clip").mkdir()
    for i in range(40):
        Image.new("RGB", (8, 8), (i, 0, 0)).save(tmp_path / "clip" / f"{i}.png")
    turns = [{"from": "human", "value": "<video>\nWhat happens?"}, {"from": "gpt", "value": "nothing"}]
    (tmp_path / "data.jsonl").write_text(json.dumps({"video": "clip", "conversations": turns}))
    meta = {"my set": {"root": str(tmp_path), "annotation": str(tmp_path / "data.jsonl")}}
    (tmp_path / "meta.json").write_text(json.dumps(meta))
    out = tmp_path / "out"
    with caplog.at_level(logging.INFO, logger="internvl_lab"):
        assert main(["shards", "--meta", str(tmp_path / "meta.json"), "--out", str(out), *options]) == 0
    with tarfile.open(out / "my set" / "shard-000000.tar") as tar:
        assert sum(name.endswith(".png") for name in tar.getnames()) == expected
    command = caplog.messages[-1].removeprefix("train on them: ")
    python, script, *overrides = shlex.split(command)
    assert (python, script) == ("python", "train.py")
    sources = compose(overrides).data.mixtures["finetune"]
    assert {name: source.shards for name, source in sources.items()} == {"my_set": str(out / "my set")}
