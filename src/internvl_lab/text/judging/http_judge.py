"""Ask any server that speaks OpenAI's `/v1/chat/completions`: vLLM, SGLang, LMDeploy, llama.cpp, Ollama, hosted ones.

The standard library suffices: a judge answers in seconds, so threads and a fresh connection a call cost nothing that
matters. Redirects are refused, because they would carry the API key to another address.
"""

from __future__ import annotations

import email.utils
import http.client
import json
import os
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from email.message import Message
from typing import IO, Any
from urllib.parse import urlsplit

from internvl_lab.config.asking import AskingConfig
from internvl_lab.errors import JudgeError
from internvl_lab.text.judging.judge import Question, Reply, TransientError, Unanswered

MAX_BODY_BYTES = 4 * 1024 * 1024
FRAME_TOKENS = 64
"""Room for what a chat template puts around two messages (Qwen2.5: 11)."""
IMAGE_TOKENS = 4096
"""Room for a picture; hosted judges count at most some 1,500 tokens, open ones of this family 3,328 (13 tiles)."""
_MAX_DETAIL_CHARS = 300
_ONE_RECORD = (400, 413, 422)
"""Statuses that speak of this request alone, for example of a text that is too long."""


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Turn redirects into errors."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str
    ) -> None:
        """Follow nothing."""


class ChatJudge:
    """Send one question a request; see `Judge`.

    Args:
        config: address, model, limits.
    Raises:
        JudgeError: the variable that should hold the API key is not set.
    """

    batch_size = 1

    def __init__(self, config: AskingConfig) -> None:
        self._config, self.concurrency = config, config.concurrency
        base = config.url.rstrip("/")
        self._url = base if base.endswith("/chat/completions") else base + "/chat/completions"
        self._key = _api_key(config)
        settings = {"max_tokens": config.max_answer_tokens, "temperature": 0} | config.request
        self._settings = {name: value for name, value in settings.items() if value is not None}
        self.identity = json.dumps([config.model, self._settings], sort_keys=True)
        handlers: list[urllib.request.BaseHandler] = [_NoRedirects()]
        if urlsplit(self._url).hostname in ("127.0.0.1", "localhost", "::1"):
            handlers.append(urllib.request.ProxyHandler({}))  # a proxy has another idea of localhost
        self._opener = urllib.request.build_opener(*handlers)

    def most_tokens(self, question: Question) -> tuple[int, int]:
        """Bound the tokens from above; see `Judge`."""
        words = len((question.system + question.text).encode())
        return words + FRAME_TOKENS + IMAGE_TOKENS * len(question.images), self._config.max_answer_tokens

    def ask(self, questions: Sequence[Question]) -> list[Reply | Unanswered]:
        """Answer one question; see `Judge`."""
        (question,) = questions
        try:
            body = self._send(question)
        except urllib.error.HTTPError as error:
            return [self._refusal(error)]
        except urllib.error.URLError as error:
            if isinstance(error.reason, ssl.SSLCertVerificationError):
                raise JudgeError(f"the judge at {self._url} has no valid certificate: {error.reason}") from error
            # A time-out while connecting or sending: no answer can have been made.
            raise TransientError(f"{self._url}: {error.reason}") from error
        except (OSError, http.client.HTTPException) as error:
            raise TransientError(f"{self._url}: {type(error).__name__} {error}", may_be_paid=True) from error
        return [_read_reply(body, self.most_tokens(question))]

    def _send(self, question: Question) -> bytes:
        """Send one request and return the whole body of its answer."""
        data = json.dumps({"model": self._config.model, "messages": _messages(question), **self._settings}).encode()
        request = urllib.request.Request(self._url, data, {"Content-Type": "application/json"}, method="POST")
        if self._key:
            request.add_unredirected_header("Authorization", f"Bearer {self._key}")
        limit = self._config.timeout_s
        deadline = time.monotonic() + limit
        parts: list[bytes] = []
        with self._opener.open(request, timeout=limit) as response:
            while part := response.read1(65536):
                parts.append(part)
                if time.monotonic() > deadline:
                    raise TimeoutError(f"no whole answer within {limit:g} s")
                if sum(map(len, parts)) > MAX_BODY_BYTES:
                    raise http.client.HTTPException(f"an answer of more than {MAX_BODY_BYTES} bytes")
        return b"".join(parts)

    def _refusal(self, error: urllib.error.HTTPError) -> Unanswered:
        """Tell apart what another attempt may change, what concerns one record, and what a person must change."""
        line = self._without_key(f"HTTP {error.code} {_error_text(error)}")
        if error.code in (408, 409, 425, 429) or error.code >= 500:
            raise TransientError(line, retry_after_s(error.headers)) from error
        if error.code in _ONE_RECORD:
            return Unanswered(line)
        prefix = self._config.prefix
        raise JudgeError(f"the judge at {self._url} refuses requests ({line}); check {prefix}.url, .model and the key")

    def _without_key(self, text: str) -> str:
        """Remove the key from a server's words; some repeat it."""
        return text.replace(self._key, "***") if self._key else text


def _messages(question: Question) -> list[dict[str, Any]]:
    """Return the messages of a request; pictures follow the text."""
    content: Any = question.text
    if question.images:
        pictures = [{"type": "image_url", "image_url": {"url": url}} for url in question.images]
        content = [{"type": "text", "text": question.text}, *pictures]
    system = [{"role": "system", "content": question.system}] if question.system else []
    return [*system, {"role": "user", "content": content}]


def retry_after_s(headers: Message, now: float | None = None) -> float | None:
    """Return the seconds that a Retry-After header asks for, given as seconds or as a date; None without one."""
    value = (headers.get("Retry-After") or "").strip()
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        moment = email.utils.parsedate_to_datetime(value).timestamp()
    except ValueError:
        return None
    return max(0.0, moment - (time.time() if now is None else now))


def _api_key(config: AskingConfig) -> str:
    name = config.api_key_variable
    key = os.environ.get(name, "").strip() if name else ""
    if name and not key:
        raise JudgeError(f"environment variable {name} ({config.prefix}.api_key_variable) is not set")
    return key


def _error_text(error: urllib.error.HTTPError) -> str:
    """Return what a server says about its refusal, on one line."""
    try:
        text = error.read(65536).decode("utf-8", "replace")
    except (OSError, http.client.HTTPException):
        text = ""
    return " ".join((text or str(error.reason)).split())[:_MAX_DETAIL_CHARS]


def _read_reply(body: bytes, most_tokens: tuple[int, int]) -> Reply:
    """Read a chat completion; a server that tells no usage is charged the most that it can be.

    Raises:
        TransientError: it is none: garbage, cut off, or of another form. It may be charged all the same.
    """
    try:
        answer = json.loads(body)
        choice = answer["choices"][0]
        text = choice["message"].get("content") or ""
        usage = answer.get("usage") or {}
        asked = int(usage.get("prompt_tokens", most_tokens[0]))
        said = int(usage.get("completion_tokens", most_tokens[1]))
        if not isinstance(text, str):
            raise TypeError("`content` is no text")
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        start = body[:80].decode("utf-8", "replace")
        raise TransientError(f"no chat completion ({type(error).__name__}): {start!r}", may_be_paid=True) from error
    return Reply(text, asked, said, choice.get("finish_reason") != "length")
