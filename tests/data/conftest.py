"""A few shards of every kind of sample, small enough that each test can afford them."""

from __future__ import annotations

import io
import json
import tarfile
import threading
from collections.abc import Callable, Iterable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from internvl_lab.config import JpegConfig, PackingConfig, SourceConfig, TilingConfig
from internvl_lab.data.encoding import SampleEncoder
from internvl_lab.data.index import build_index
from internvl_lab.data.loader import PackDataset
from internvl_lab.data.mixture import Mixture
from internvl_lab.data.plan import Cost, Plan
from internvl_lab.data.shards import RawSample, write_shards
from internvl_lab.text import ChatTemplate, train_tokenizer

TILING = TilingConfig(tile_size=28, num_visual_tokens=4, max_tiles=6)
PACKING = PackingConfig(max_tokens=400, max_tiles=24, packs_per_step=4, block_size=40, group_window=2)
COST = Cost(1.0, 0.01, 20.0)


def picture(width: int = 60, height: int = 40, seed: int = 0, kind: str = "PNG") -> bytes:
    """Paint noise."""
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


def talk(question: str = "what is it?", answer: str = "a red square") -> list[dict[str, str]]:
    """Write a conversation of two turns."""
    return [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]


def sample(i: int) -> RawSample:
    """Make sample i: text, one image, two images, or a video, of varied size."""
    key, kind = f"s{i:05d}", i % 4
    answer = "a red square " * (1 + i % 5)
    if kind == 0:
        return RawSample(key, {"id": i, "task": "text_only", "conversations": talk(answer=answer)}, ())
    if kind == 1:
        image = (("png", picture(30 + i % 50, 40, i)),)
        return RawSample(
            key, {"id": i, "task": "one", "image": f"{i}.png", "conversations": talk(answer=answer)}, image
        )
    images = tuple(("jpg", picture(40, 30, i + n, "JPEG")) for n in range(kind))
    if kind == 2:
        record = {"image": ["a.jpg", "b.jpg"], "conversations": talk("<image> or <image>?", answer)}
        return RawSample(key, {"id": i, "task": "two", **record}, images)
    return RawSample(key, {"id": i, "task": "video", "video": "v.gif", "conversations": talk(answer=answer)}, images)


def write_tar(path: Path, members: Iterable[tuple[str, bytes]]) -> Path:
    """Write a tar with arbitrary members."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def record_bytes(**fields: object) -> bytes:
    """Write a JSON member."""
    return json.dumps({"conversations": talk(), **fields}).encode()


class PlainHandler(BaseHTTPRequestHandler):
    """Serve files as the simplest servers do: no sizes, no parts, no HEAD; `server.cuts` answers end half-way."""

    server: PlainServer

    def do_GET(self) -> None:
        path = self.server.folder / self.path.partition("?")[0].lstrip("/")
        if not path.is_file():
            self.send_error(404)
            return
        data, cut = path.read_bytes(), self.server.cuts > 0
        self.server.cuts -= cut
        self.send_response(200)
        if cut:  # only with a length can a client know
            self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data[: len(data) // 2] if cut else data)

    def do_HEAD(self) -> None:
        self.send_error(501)

    def log_message(self, *_: object) -> None:
        """Keep quiet."""


class PlainServer(ThreadingHTTPServer):
    """Serve `folder` through `PlainHandler`."""

    folder = Path()
    cuts = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


@pytest.fixture
def plain_server(shards_dir: Path) -> Iterator[PlainServer]:
    """Serve `shards_dir`."""
    server = PlainServer(("127.0.0.1", 0), PlainHandler)
    server.folder = shards_dir
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(scope="session")
def template() -> ChatTemplate:
    return ChatTemplate(train_tokenizer(["what is it? a red square"], 300), "")


@pytest.fixture(scope="session")
def kit(template: ChatTemplate) -> SimpleNamespace:
    """Hand out the helpers above and the settings that the fixtures use."""
    return SimpleNamespace(
        picture=picture, talk=talk, sample=sample, write_tar=write_tar, record_bytes=record_bytes,
        tiling=TILING, packing=PACKING, cost=COST,
        encoder=SampleEncoder(template, TILING, JpegConfig(), "square", "sample"),
    )  # fmt: skip


@pytest.fixture(scope="session")
def shards_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """100 samples in 4 shards; read only."""
    folder = tmp_path_factory.mktemp("shards")
    write_shards((sample(i) for i in range(100)), folder, 25)
    return folder


@pytest.fixture(scope="session")
def mixture(shards_dir: Path, template: ChatTemplate) -> Mixture:
    return Mixture({"all": (SourceConfig(), build_index(shards_dir, template))}, TILING, PACKING)


@pytest.fixture
def make_plan(mixture: Mixture) -> Callable[..., Plan]:
    """Build a fresh plan (nothing remembered) over the 100 samples."""

    def make(seed: int = 1, packing: PackingConfig = PACKING, packs_per_step: int = 4, cost: Cost = COST) -> Plan:
        return Plan(mixture, packing, seed, cost, packs_per_step)

    return make


@pytest.fixture
def dataset(make_plan: Callable[..., Plan], kit: SimpleNamespace) -> PackDataset:
    return PackDataset(make_plan(), kit.encoder, seed=1)
