import http.client
import re
import threading
from urllib.parse import urlencode, urlsplit

import pytest

from internvl_lab.curation.review.flagged import FlaggedFile
from internvl_lab.curation.review.reviews import ReviewLog
from internvl_lab.curation.review.server import ReviewServer


@pytest.fixture
def server(folder):
    server = ReviewServer(FlaggedFile(folder), ReviewLog(folder / "reviews.jsonl"), "anna")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def call(server, method, path, body=None, **headers):
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    headers = {"Host": server.hosts[0]} | {name.replace("_", "-"): value for name, value in headers.items()}
    if body is not None:
        body = urlencode(body)
    connection.request(method, path, body, headers)
    response = connection.getresponse()
    data = response.read()
    connection.close()
    return response, data


def cookie(server):
    return f"{server.cookie}={server.login_token}"


def decide(server, sample=0, decision="keep", token=None, **headers):
    body = {"token": server.form_token if token is None else token, "sample": sample, "decision": decision}
    response, _ = call(server, "POST", "/decide", body, **{"Cookie": cookie(server)} | headers)
    return response


def test_it_listens_on_loopback_alone(server):
    assert server.server_address[0] == "127.0.0.1"
    assert urlsplit(server.address).hostname == "127.0.0.1"


def test_the_address_logs_in_and_shows_the_first_sample(server):
    response, page = call(server, "GET", "/?" + urlsplit(server.address).query)
    assert response.status == 200
    assert response.headers["Set-Cookie"] == f"{cookie(server)}; Path=/; HttpOnly; SameSite=Strict"
    assert b"sample 1 of 4" in page
    assert call(server, "GET", "/sample/2", Cookie=cookie(server))[0].status == 200


@pytest.mark.parametrize("path", ["/", "/?token=wrong", "/sample/0", "/image/0/0", "/%00"])
def test_without_the_token_nothing_is_shown(server, path):
    response, page = call(server, "GET", path)
    assert response.status == 403
    assert b"web:1" not in page


def test_decisions_are_taken_and_lead_to_the_next_open_sample(server, folder):
    for sample, decision, following in ((0, "keep", 1), (2, "reject", 3), (3, "keep", 1), (1, "keep", 1)):
        response = decide(server, sample, decision)
        assert (response.status, response.headers["Location"]) == (303, f"/sample/{following}")
    decisions = ReviewLog(folder / "reviews.jsonl").decisions
    assert {key: taken.decision for key, taken in decisions.items() if key in ("web:1", "zh:3")} == {
        "web:1": "keep",
        "zh:3": "reject",
    }
    assert {taken.by for taken in decisions.values()} == {"anna"}


@pytest.mark.parametrize(
    "change",
    [
        {"token": ""},
        {"token": "guess"},
        {"Cookie": "review=guess"},
        {"Host": "evil.example"},
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
    ],
)
def test_nobody_else_can_decide(server, folder, change):
    assert decide(server, **change).status == 403
    assert not (folder / "reviews.jsonl").exists()


def test_the_login_token_is_no_form_token(server):
    assert decide(server, token=server.login_token).status == 403


@pytest.mark.parametrize("change", [{"sample": 4}, {"sample": "-1"}, {"sample": "x"}, {"decision": "maybe"}])
def test_a_decision_about_nothing_is_refused(server, folder, change):
    assert decide(server, **change).status == 400
    assert not (folder / "reviews.jsonl").exists()


def test_a_form_too_large_is_refused(server):
    assert decide(server, decision="k" * 5000).status == 413


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/sample/4", 404),
        ("/sample/-1", 404),
        ("/sample/../0", 404),
        ("/image/0/1", 404),
        ("/image/3/0", 404),
        ("/x", 404),
    ],
)
def test_what_is_not_there_is_404(server, path, status):
    assert call(server, "GET", path, Cookie=cookie(server))[0].status == status


def test_pictures_are_jpegs_and_every_answer_is_locked_down(server):
    response, data = call(server, "GET", "/image/0/0", Cookie=cookie(server))
    assert (response.headers["Content-Type"], data[:3]) == ("image/jpeg", b"\xff\xd8\xff")
    response, page = call(server, "GET", "/sample/0", Cookie=cookie(server))
    policy = response.headers["Content-Security-Policy"]
    nonce = re.search(r"script-src 'nonce-([\w-]+)'", policy)[1]
    assert f'<script nonce="{nonce}">'.encode() in page
    assert "default-src 'none'" in policy
    assert response.headers["X-Content-Type-Options"] == "nosniff"


def test_decisions_of_others_are_seen_on_the_next_page(server, folder):
    ReviewLog(folder / "reviews.jsonl").add("web:1", "reject", "ben", ())
    _, page = call(server, "GET", "/sample/0", Cookie=cookie(server))
    assert b"reject by ben" in page
