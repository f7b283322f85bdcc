"""A stand-in for a judge's server on 127.0.0.1, which misbehaves as it is told and counts what it was paid for.

A request's faults come from its text: `[500 2]` in it gives two answers 500 before the right one. The answer's score is
the number after `worth` in the text, so it depends on the text alone.

faults: `429 N` (with Retry-After 0), `500 N`, `slow N` (no answer within the client's patience), `garbage N`,
`cut N` (half a body), `shape N` (JSON of another form), `hangup N` (connection closed without a word),
`400 N`, `vague N` (a whole answer without a score: the fault of `Reply`, not of the transport).
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

_FAULT = re.compile(r"\[(\w+) (\d+)\]")
PATIENCE_S = 0.5
"""A `slow` answer comes after this."""


class JudgeServer(ThreadingHTTPServer):
    """Hold the counts; `paid` counts whole answers that were sent, by (prompt, text)."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, delay_s: float = 0.0) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.delay_s = delay_s
        self.guard = threading.Lock()
        self.faults_given: Counter[tuple[str, str]] = Counter()
        self.paid: Counter[tuple[str, str]] = Counter()
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.in_flight = self.most_in_flight = 0
        self.reply: Callable[[str, dict[str, Any]], str] | None = None
        """What to say, from the text and the whole request, instead of a score by `worth`."""

    @property
    def url(self) -> str:
        """Give the base URL."""
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    def next_fault(self, text: str) -> str | None:
        """Say how the next answer to this text fails."""
        for kind, number in _FAULT.findall(text):
            if self.faults_given[text, kind] < int(number):
                self.faults_given[text, kind] += 1
                return str(kind)
        return None


class _Handler(BaseHTTPRequestHandler):
    server: JudgeServer
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        server = self.server
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        *before, (_, content) = ((message["role"], message["content"]) for message in request["messages"])
        system = before[0][1] if before else ""
        text = content if isinstance(content, str) else content[0]["text"]
        with server.guard:
            server.requests.append(request)
            server.headers.append(dict(self.headers))
            server.in_flight += 1
            server.most_in_flight = max(server.most_in_flight, server.in_flight)
            fault = server.next_fault(text)
        try:
            time.sleep(server.delay_s)
            words = server.reply(text, request) if server.reply else self.words(text, fault, system)
            self.answer((system, text), fault, words)
        finally:
            with server.guard:
                server.in_flight -= 1

    def words(self, text: str, fault: str | None, system: str) -> str:
        if fault == "vague":
            return "It is quite good, perhaps an 8."
        if "exactly one of these four words" in system:
            return "general"
        worth = re.search(r"worth (\d+)", text)
        return f"A reason of {hashlib.sha256(text.encode()).hexdigest()[:8]}.\nScore: {worth[1] if worth else 5}"

    def answer(self, question: tuple[str, str], fault: str | None, words: str) -> None:
        usage = {"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 120}
        choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": words}}
        body = json.dumps({"object": "chat.completion", "choices": [choice], "usage": usage}).encode()
        if fault in ("429", "500", "400", "401", "503"):
            self.send(int(fault), b'{"error": {"message": "refused"}}', {"Retry-After": "0"} if fault == "429" else {})
        elif fault == "slow":
            time.sleep(PATIENCE_S * 2)
            self.close_connection = True
        elif fault == "garbage":
            self.send(200, b"<html>gateway</html>")
        elif fault == "shape":
            self.send(200, b'{"result": "Score: 9"}')
        elif fault == "cut":
            self.send(200, body[: len(body) // 2], {"Content-Length": str(len(body))})
            self.close_connection = True
        elif fault == "hangup":
            self.close_connection = True
        else:
            with self.server.guard:
                self.server.paid[question] += 1
            self.send(200, body)

    def send(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        try:
            self.send_response(status)
            for name, value in ({"Content-Length": str(len(body))} | (headers or {})).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)
        except (BrokenPipeError, ConnectionResetError):
            pass  # the client was killed

    def log_message(self, *args: object) -> None:
        """Say nothing."""


@contextmanager
def running(delay_s: float = 0.0) -> Iterator[JudgeServer]:
    """Serve until the block ends."""
    server = JudgeServer(delay_s)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
