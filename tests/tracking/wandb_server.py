"""A stand-in for the W&B service on this machine: answers the GraphQL queries of the real `wandb.Api` client.

It holds finished runs as wandb's own reader of offline files prints them, so what the client reads can be compared with
what was logged.
"""

from __future__ import annotations

import contextlib
import gzip
import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

ENTITY, PROJECT = "lab", "internvl"
VIEWER = {
    "id": "1",
    "flags": "{}",
    "email": "e",
    "entity": ENTITY,
    "username": "u",
    "teams": {"edges": []},
}


@dataclass
class Service:
    """Hold the runs of one project."""

    runs: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    url: str = ""
    queries: list[str] = field(default_factory=list)

    def add(self, records: Sequence[tuple[str, Mapping[str, Any]]]) -> None:
        """Take over an offline run: (type, content) of its records in order."""
        run = next(content for kind, content in records if kind == "run")
        summary: dict[str, Any] = {}
        for kind, content in records:
            summary |= content.get("update", {}) if kind == "summary" else {}
        rows = [content["item"] for kind, content in records if kind == "history"]
        self.runs[run["run_id"]] = {"run": run, "summary": summary, "rows": rows}

    def answer(self, query: str, variables: Mapping[str, Any]) -> dict[str, Any]:
        """Answer one query."""
        self.queries.append(query)
        if "viewer" in query:
            return {"viewer": VIEWER}
        if "query Runs(" in query:
            found = [{"node": node(held), "cursor": name} for name, held in self.runs.items()]
            page = {"endCursor": "", "hasNextPage": False}
            project = {"internalId": 1, "runCount": len(found), "readOnly": False}
            known = variables["project"] == PROJECT
            return {"project": project | {"runs": {"edges": found, "pageInfo": page}} if known else None}
        name = next((variables[key] for key in ("name", "runName", "run") if key in variables), "")
        held = self.runs.get(name)
        return {"project": {"run": None if held is None else part(held, query, variables)}}


def part(held: Mapping[str, Any], query: str, variables: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a query about one run asks for."""
    if "parquetHistory" in query:
        return {"parquetHistory": {"parquetUrls": [], "liveData": [{"_step": row["_step"]} for row in held["rows"]]}}
    if "historyKeys" in query and "RunFragment" not in query:
        return {"historyKeys": keys(held)}
    if "history(" in query:
        first, after = variables["minStep"], variables["maxStep"]
        return {"history": [json.dumps(row) for row in held["rows"] if first <= row["_step"] < after]}
    return node(held)


def keys(held: Mapping[str, Any]) -> dict[str, Any]:
    """Describe the history."""
    return {"lastStep": held["rows"][-1]["_step"] if held["rows"] else -1, "keys": {}, "sets": []}


def node(held: Mapping[str, Any]) -> dict[str, Any]:
    """Describe one run as the service does."""
    run = held["run"]
    config = {key: {"value": value} for key, value in run["config"]["update"].items()}
    return {
        "projectId": "1",
        "id": "UnVu",
        "tags": run.get("tags", []),
        "name": run["run_id"],
        "displayName": run["display_name"],
        "sweepName": None,
        "state": "finished",
        "config": json.dumps(config),
        "group": run.get("run_group"),
        "jobType": run.get("job_type"),
        "commit": None,
        "readOnly": False,
        "createdAt": "2026-01-01T00:00:00",
        "heartbeatAt": "2026-01-01T00:00:00",
        "description": "",
        "notes": "",
        "systemMetrics": "{}",
        "summaryMetrics": json.dumps(held["summary"]),
        "historyLineCount": len(held["rows"]),
        "user": {"name": "u", "username": "u"},
        "historyKeys": keys(held),
    }


class _Handler(BaseHTTPRequestHandler):
    """Answer GraphQL; refuse everything else."""

    service: Service

    def log_message(self, *args: Any) -> None:
        """Stay silent."""

    def do_POST(self) -> None:
        """Answer one query."""
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        asked = json.loads(body)
        text = json.dumps({"data": self.service.answer(asked["query"], asked.get("variables") or {})}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)


@contextlib.contextmanager
def running() -> Iterator[Service]:
    """Serve on a free port of this machine until the end of the block."""
    service = Service()
    handler = type("Handler", (_Handler,), {"service": service})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    service.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield service
    finally:
        server.shutdown()
        server.server_close()
