import json

from PIL import Image

from internvl_lab.cli import main


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
