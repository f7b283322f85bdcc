"""The guards of tests/conftest.py: a test that would reach out fails, and tests start from one state."""

from __future__ import annotations

import os
import random
import socket

import numpy as np
import pytest
import torch


def test_other_machines_are_out_of_reach() -> None:
    with socket.socket() as client, pytest.raises(RuntimeError, match="tests are offline"):
        client.connect(("192.0.2.1", 80))
    with pytest.raises(RuntimeError, match="tests are offline"):
        socket.create_connection(("example.invalid", 443), timeout=1)


def test_loopback_works() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(("localhost", server.getsockname()[1]), timeout=5),
    ):
        server.accept()[0].close()


def draw() -> tuple[float, float, float]:
    return random.random(), float(np.random.rand()), torch.rand(()).item()


def test_every_test_starts_from_the_same_seed() -> None:
    seed = 20241205
    drawn = draw()
    assert draw() != drawn
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    assert draw() == drawn


def test_one_thread_a_process_and_no_hub() -> None:
    assert torch.get_num_threads() == 1
    assert os.environ["OMP_NUM_THREADS"] == "1"
    assert os.environ["WANDB_MODE"] == "offline"
    assert os.environ["HF_HUB_OFFLINE"] == "1"
