import json
import socket
import threading
from email.message import Message

import pytest

from internvl_lab.errors import JudgeError
from internvl_lab.text.judging.http_judge import ChatJudge, retry_after_s
from internvl_lab.text.judging.judge import Question, TransientError, Unanswered

KEY = "sk-very-secret-1234"


def ask(config, text):
    return ChatJudge(config).ask([Question("Be a judge.", text)])[0]


def test_one_question_is_one_chat_completion(server, make_config):
    reply = ask(make_config(request={"seed": 1}), "worth 8")
    assert reply.text.endswith("\nScore: 8")
    assert (reply.prompt_tokens, reply.answer_tokens, reply.is_complete) == (100, 20, True)
    (request,) = server.requests
    assert request == {
        "model": "stand-in",
        "messages": [{"role": "system", "content": "Be a judge."}, {"role": "user", "content": "worth 8"}],
        "max_tokens": 256,
        "temperature": 0,
        "seed": 1,
    }


def test_a_null_takes_a_field_out_of_the_request_and_changes_the_cache_key(server, make_config):
    config = make_config(request={"max_tokens": None, "max_completion_tokens": 99})
    ask(config, "x")
    assert "max_tokens" not in server.requests[0]
    assert server.requests[0]["max_completion_tokens"] == 99
    assert ChatJudge(config).identity != ChatJudge(make_config()).identity


@pytest.mark.parametrize(
    ("fault", "may_be_paid"),
    [
        ("500", False),
        ("503", False),
        ("429", False),
        ("garbage", True),
        ("shape", True),
        ("cut", True),
        ("hangup", True),
    ],
)
def test_faults_of_the_transport_are_transient(make_config, fault, may_be_paid):
    with pytest.raises(TransientError) as caught:
        ask(make_config(), f"[{fault} 1]")
    assert caught.value.may_be_paid is may_be_paid
    assert caught.value.retry_after_s == (0.0 if fault == "429" else None)


def test_a_slow_answer_is_given_up(make_config):
    with pytest.raises(TransientError, match="timed out") as caught:
        ask(make_config(timeout_s=0.3), "[slow 1]")
    assert caught.value.may_be_paid


def test_an_answer_that_trickles_is_given_up_as_well(make_config):
    listener = socket.create_server(("127.0.0.1", 0))

    def trickle():
        connection, _ = listener.accept()
        with connection:
            connection.recv(65536)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 10000\r\n\r\n")
            for _ in range(100):
                try:
                    connection.sendall(b" ")
                except OSError:
                    return
                threading.Event().wait(0.05)

    thread = threading.Thread(target=trickle, daemon=True)
    thread.start()
    url = f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
    with pytest.raises(TransientError, match=r"no whole answer within 0\.3 s"):
        ask(make_config(url=url, timeout_s=0.3), "x")
    thread.join(10)
    listener.close()


def test_a_server_that_is_not_there_is_transient_and_not_paid(make_config):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with pytest.raises(TransientError, match="refused") as caught:
        ask(make_config(url=f"http://127.0.0.1:{port}/v1"), "x")
    assert not caught.value.may_be_paid


def test_a_text_that_the_server_refuses_is_unanswered(make_config):
    assert ask(make_config(), "[400 1]") == Unanswered('HTTP 400 {"error": {"message": "refused"}}')


def test_the_key_comes_from_the_environment_and_is_never_said(server, make_config, monkeypatch, caplog):
    monkeypatch.setenv("MY_KEY", KEY)
    config = make_config(api_key_variable="MY_KEY")
    judge = ChatJudge(config)
    with caplog.at_level("DEBUG"):
        judge.ask([Question("s", "x")])
        with pytest.raises(JudgeError, match="HTTP 401") as caught:
            judge.ask([Question("s", "[401 1]")])
    assert server.headers[0]["Authorization"] == f"Bearer {KEY}"
    assert judge._without_key(f"wrong key {KEY}") == "wrong key ***"
    for text in (str(caught.value), judge.identity, repr(config), caplog.text):
        assert KEY not in text


def test_a_missing_key_names_its_variable(make_config, monkeypatch):
    monkeypatch.delenv("MY_KEY", raising=False)
    with pytest.raises(JudgeError, match="environment variable MY_KEY"):
        ChatJudge(make_config(api_key_variable="MY_KEY"))


def test_a_redirect_is_not_followed(make_config, judge_server):
    with judge_server.running() as other:

        class Redirecting(judge_server.JudgeServer):
            pass

        handler = other.RequestHandlerClass
        original = handler.do_POST
        try:
            handler.do_POST = lambda self: (
                self.rfile.read(int(self.headers["Content-Length"])),
                self.send(307, b"", {"Location": "http://127.0.0.1:1/v1/chat/completions"}),
            )
            with pytest.raises(JudgeError, match="HTTP 307"):
                ask(make_config(url=other.url), "x")
        finally:
            handler.do_POST = original


def test_without_usage_the_highest_price_is_charged(make_config, server, monkeypatch):
    handler = server.RequestHandlerClass
    body = json.dumps({"choices": [{"message": {"content": "Score: 3"}, "finish_reason": "length"}]}).encode()
    monkeypatch.setattr(handler, "answer", lambda self, *_: self.send(200, body))
    reply = ask(make_config(max_answer_tokens=77), "x")
    assert (reply.prompt_tokens, reply.answer_tokens) == (len("Be a judge.x") + 64, 77)
    assert not reply.is_complete


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("7", 7.0),
        ("0.5", 0.5),
        ("-3", 0.0),
        ("Thu, 05 Dec 2024 00:01:00 GMT", 60.0),
        ("Wed, 04 Dec 2024 00:00:00 GMT", 0.0),
        ("soon", None),
        (None, None),
    ],
)
def test_retry_after_is_seconds_or_a_date(value, seconds):
    headers = Message()
    if value is not None:
        headers["Retry-After"] = value
    assert retry_after_s(headers, now=1733356800.0) == seconds
