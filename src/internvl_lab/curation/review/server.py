"""Serve the review page on 127.0.0.1, to one reviewer.

```
GET  /?token=LOGIN   sets the session's cookie ──> first open sample        (the address that the command prints)
GET  /sample/N       the page          GET /image/N/K   a picture, encoded anew
POST /decide         token, sample, decision ──> reviews.jsonl ──> next open sample
```
Other users of the machine do not know the login token. Other sites in the reviewer's browser cannot decide anything:
the cookie is SameSite=Strict, each decision carries a token that only the page holds, and a Host or Origin other than
ours is refused (DNS rebinding).
"""

from __future__ import annotations

import hmac
import secrets
import threading
from http.cookies import SimpleCookie
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

from internvl_lab.curation.review.flagged import FlaggedFile
from internvl_lab.curation.review.page import View, render_note, render_page
from internvl_lab.curation.review.reviews import KEEP, REJECT, ReviewLog

HOST = "127.0.0.1"
MAX_IMAGE_SIZE = 1600
MAX_FORM_BYTES = 4096


class ReviewServer(ThreadingHTTPServer):
    """Hold what is reviewed, by whom, and the session's secrets.

    Args:
        flagged: what to show; not empty.
        log: where decisions go.
        by: who decides.
        port: 0 takes a free one.
    """

    daemon_threads = True

    def __init__(self, flagged: FlaggedFile, log: ReviewLog, by: str, port: int = 0) -> None:
        super().__init__((HOST, port), _Handler)
        self.flagged, self.log, self.by = flagged, log, by
        self.guard = threading.Lock()
        self.login_token, self.form_token = secrets.token_urlsafe(24), secrets.token_urlsafe(24)
        self.cookie = f"review_{self.port}"  # cookies do not tell ports apart

    @property
    def port(self) -> int:
        """Return the port."""
        return int(self.server_address[1])

    @property
    def address(self) -> str:
        """Return the address to open; it holds the login token."""
        return f"http://{HOST}:{self.port}/?token={self.login_token}"

    @property
    def hosts(self) -> tuple[str, str]:
        """Return the Host headers that are ours."""
        return f"{HOST}:{self.port}", f"localhost:{self.port}"

    def next_open(self, position: int) -> int | None:
        """Return the first sample from a position on, and then from the start, that is not decided."""
        keys, decided = self.flagged.keys, self.log.decisions
        order = (*range(position, len(keys)), *range(position))
        return next((number for number in order if keys[number] not in decided), None)


class _Handler(BaseHTTPRequestHandler):
    server: ReviewServer
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "review", ""
    timeout = 30

    def do_GET(self) -> None:
        """Answer a page, a picture, or the login."""
        url = urlsplit(self.path)
        match url.path.strip("/").split("/"):
            case _ if not self._is_ours():
                self._say(403, "This address is not ours.")
            case [""] if _same(parse_qs(url.query).get("token", [""])[0], self.server.login_token):
                cookie = f"{self.server.cookie}={self.server.login_token}; Path=/; HttpOnly; SameSite=Strict"
                # No redirect: the cookie of an answer that another site caused would not come back with it.
                self._show(self.server.next_open(0) or 0, {"Set-Cookie": cookie})
            case _ if not self._is_logged_in():
                self._say(403, "Open the address that the command printed.")
            case [""]:
                self._show(self.server.next_open(0) or 0)
            case ["sample", number] if self._is_sample(number):
                self._show(int(number))
            case ["image", number, image] if self._is_sample(number) and image.isdecimal():
                self._show_image(int(number), int(image))
            case _:
                self._say(404, "There is no such page.")

    def do_POST(self) -> None:
        """Take a decision and go to the next open sample."""
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal() or int(length) > MAX_FORM_BYTES:
            self.close_connection = True
            self._say(413, "That is no decision.")
            return
        form = {
            name: values[0]
            for name, values in parse_qs(self.rfile.read(int(length)).decode("utf-8", "replace")).items()
        }
        number, decision = form.get("sample", ""), form.get("decision", "")
        if not (self._is_ours() and self._is_logged_in() and _same(form.get("token", ""), self.server.form_token)):
            self._say(403, "This decision does not come from the review page: reload it and decide again.")
        elif self.path != "/decide" or not self._is_sample(number) or decision not in (KEEP, REJECT):
            self._say(400, "That is no decision.")
        else:
            self._decide(int(number), decision)

    def _decide(self, position: int, decision: str) -> None:
        server = self.server
        sample = server.flagged[position]
        with server.guard:
            server.log.add(sample.key, decision, server.by, sample.rules)
            following = server.next_open(position)
        self._send(303, b"", "text/plain", {"Location": f"/sample/{position if following is None else following}"})

    def _show(self, position: int, headers: dict[str, str] | None = None) -> None:
        with self.server.guard:
            self.server.log.refresh()
            page = render_page(self.server.flagged, self.server.log, position, view := self._view())
        self._send(200, page.encode(), "text/html; charset=utf-8", headers, view.nonce)

    def _show_image(self, position: int, number: int) -> None:
        data = self.server.flagged.image(self.server.flagged[position], number, MAX_IMAGE_SIZE)
        if data is None:
            self._say(404, "This picture cannot be read.")
        else:
            self._send(200, data, "image/jpeg")

    def _say(self, status: int, text: str) -> None:
        view = self._view()
        self._send(status, render_note(text, view).encode(), "text/html; charset=utf-8", nonce=view.nonce)

    def _view(self) -> View:
        return View(self.server.by, self.server.form_token, secrets.token_urlsafe(12))

    def _is_ours(self) -> bool:
        """Tell whether Host, and Origin where there is one, name this server."""
        hosts, origin = self.server.hosts, self.headers.get("Origin")
        return self.headers.get("Host") in hosts and (origin is None or origin in [f"http://{host}" for host in hosts])

    def _is_logged_in(self) -> bool:
        morsel = SimpleCookie(self.headers.get("Cookie", "")).get(self.server.cookie)
        return morsel is not None and _same(morsel.value, self.server.login_token)

    def _is_sample(self, number: str) -> bool:
        return number.isdecimal() and len(number) < 12 and int(number) < len(self.server.flagged)

    def _send(
        self, status: int, body: bytes, kind: str, headers: dict[str, str] | None = None, nonce: str = "none"
    ) -> None:
        policy = (
            f"default-src 'none'; img-src 'self' data:; style-src 'nonce-{nonce}'; script-src 'nonce-{nonce}'; "
            "form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
        )
        always = {
            "Content-Type": kind,
            "Content-Length": str(len(body)),
            "Content-Security-Policy": policy,
            "Cache-Control": "no-store",
            "Referrer-Policy": "same-origin",
            "X-Content-Type-Options": "nosniff",
        }
        self.send_response(status)
        for name, value in {**always, **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        """Log nothing: the login token stands in an address."""


def _same(given: str, secret: str) -> bool:
    return hmac.compare_digest(given.encode(), secret.encode())
