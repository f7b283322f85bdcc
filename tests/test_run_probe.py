"""A probe from the command line's point of view: folders, files, resume, refusals."""

import csv
import json

import pytest

from internvl_lab.checkpoints import resolve_source
from internvl_lab.config.compose import compose_raw, plain, typed_config
from internvl_lab.errors import ConfigError, MissingWeightsError
from internvl_lab.run import Invocation, run

TINY = (
    "experiment=probe_classification",
    "trainer=cpu",
    "debug=tiny",
    "callbacks.progress_bar=false",
    "probe.data.miniworld={num_train: 40, num_test: 12, seed: 0}",
    "probe.classification.batch_size=16",
    "probe.classification.heads=[linear]",
)


def execute(tmp_path, *overrides):
    """Run in this process what `python train.py OVERRIDES` runs; returns (score, run folder)."""
    folders = (f"paths.output_dir={tmp_path}/outputs", f"paths.data_dir={tmp_path}/data")
    raw = compose_raw([*TINY, *overrides, *folders])
    return run(typed_config(raw), Invocation(plain(raw), tuple(overrides))), tmp_path / "outputs" / "latest"


def test_a_probe_leaves_its_tables_and_is_not_repeated(tmp_path, monkeypatch, capsys):
    weights = resolve_source("asset:internvit_300m") / "model.safetensors"
    before = weights.read_bytes()
    score, folder = execute(tmp_path, "probe.num_seeds=2", "probe.encoders=[a@asset:internvit_300m,asset:quickstart]")
    names = {path.name for path in folder.iterdir()}
    assert names >= {"probe.csv", "layerwise.csv", "layerwise.png", "report.md", "metrics.json", "finished.json"}
    assert json.loads((folder / "metrics.json").read_text())["score"] == score
    assert len(list((folder / "scores").iterdir())) == 4
    assert "Published" in (folder / "report.md").read_text()
    assert weights.read_bytes() == before
    monkeypatch.setattr("internvl_lab.run_probe.open_data", None)
    again, _ = execute(tmp_path, "probe.num_seeds=2", "probe.encoders=[a@asset:internvit_300m,asset:quickstart]")
    assert again == score
    assert "this probe is finished" in capsys.readouterr().out


def test_an_interrupted_probe_does_only_what_is_missing(tmp_path, monkeypatch):
    from internvl_lab.probing.classify import Classifier

    done = []
    train = Classifier.run

    def interrupted(self, seed):
        if len(done) == 1:
            raise KeyboardInterrupt
        done.append(seed)
        return train(self, seed)

    monkeypatch.setattr(Classifier, "run", interrupted)
    with pytest.raises(KeyboardInterrupt):
        execute(tmp_path, "probe.num_seeds=2")
    monkeypatch.setattr(Classifier, "run", lambda self, seed: (done.append(seed), train(self, seed))[1])
    execute(tmp_path, "probe.num_seeds=2")
    assert done == [42, 43]


def fake_run(root):
    for name in ("stage1", "stage1_5"):
        folder = root / "stages" / name
        folder.mkdir(parents=True)
        (folder / "weights").symlink_to(resolve_source("asset:internvit_300m"))
        (folder / "done.json").write_text("{}")
    return root


def test_a_run_s_stages_are_probed_by_one_setting(tmp_path):
    _, folder = execute(tmp_path, f"probe.run={fake_run(tmp_path / 'run')}")
    rows = json.loads((folder / "metrics.json").read_text())["rows"]
    assert list(dict.fromkeys(row["encoder"] for row in rows)) == ["stage1", "stage1_5"]
    assert len({row["average"] for row in rows if row["head"] == "linear"}) == 1  # the same weights, the same score


def test_runs_of_several_seeds_are_one_encoder_a_stage(tmp_path):
    runs = [str(fake_run(tmp_path / name)) for name in ("a", "b")]
    _, folder = execute(tmp_path, f"probe.runs=[{','.join(runs)}]")
    assert len(list((folder / "scores").iterdir())) == 4
    with (folder / "probe.csv").open() as file:
        found = dict.fromkeys((row["encoder"], row["run"]) for row in csv.DictReader(file))
    assert list(found) == [("stage1", "a"), ("stage1_5", "a"), ("stage1", "b"), ("stage1_5", "b")]
    with (folder / "layerwise.csv").open() as file:
        assert {(row["encoder"], row["seeds"]) for row in csv.DictReader(file)} == {("stage1", "2"), ("stage1_5", "2")}


@pytest.mark.parametrize(
    ("overrides", "error", "message"),
    [
        (["probe.encoder=nowhere"], MissingWeightsError, "nowhere"),
        (["probe.encoder=null"], ConfigError, "nothing to probe"),
        (["trainer.devices=2"], ConfigError, r"trainer\.devices=1"),
        (
            ["probe/data=pictures", "probe.data.miniworld=null", "probe.data.train.path=nowhere"],
            ConfigError,
            "no such folder",
        ),
    ],
)
def test_what_cannot_run_is_one_clear_error(tmp_path, overrides, error, message):
    with pytest.raises(error, match=message):
        execute(tmp_path, *overrides)


def test_segmentation_leaves_pictures_and_its_table(tmp_path):
    words = ("experiment=probe_segmentation", "trainer=cpu", "debug=tiny", "callbacks.progress_bar=false")
    more = ("probe.segmentation.channels=8", "probe.data.miniworld.num_test=3", "data.num_workers=0")
    folders = (f"paths.output_dir={tmp_path}/outputs", f"paths.data_dir={tmp_path}/data")
    raw = compose_raw([*words, *more, *folders])
    score = run(typed_config(raw), Invocation(plain(raw), words))
    folder = tmp_path / "outputs" / "latest"
    rows = json.loads((folder / "metrics.json").read_text())["rows"]
    assert [row["head"] for row in rows] == ["linear", "upernet", "full"]
    assert score == pytest.approx(max(float(row["mIoU"]) for row in rows) / 100)
    pictures = {f"pictures_internvit_300m_{head}.png" for head in ("linear", "upernet", "full")}
    assert {path.name for path in folder.iterdir()} >= {"probe.csv", "report.md", *pictures}
    assert all(name in (folder / "report.md").read_text() for name in pictures)


def test_a_plan_names_no_stages(tmp_path):
    score, _ = execute(tmp_path, "plan=true")
    assert score is None
    assert not (tmp_path / "outputs").exists()
