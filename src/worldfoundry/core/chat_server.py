"""A language model behind a server with OpenAI's chat interface, asked with nothing but the standard library."""

import http.client
import json
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from worldfoundry.core.errors import DownloadError, UsageError


class UnusableAnswer(DownloadError):
    """The server is there, but what it says to this question is of no use; asking again would not change that."""


class ChatServer:
    """`http://127.0.0.1:8000/v1` asks the first model that the server lists, `…/v1#NAME` that one.

    `what` is what errors call it, `hint` what they advise. A server that is too busy or fails inside (HTTP 429, 5xx) is asked
    `attempts` times, `wait_s` seconds after the first answer and twice as long after each further one.
    """

    def __init__(
        self, url: str, *, what: str, hint: str, timeout_s: float = 60.0, attempts: int = 1, wait_s: float = 1.0
    ) -> None:
        """Raises UsageError for an address without a host."""
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise UsageError(f"{url!r} is no address of a server.", "It looks like http://127.0.0.1:8000/v1")
        self.url, self.what, self.hint, self.timeout_s, self._chosen = url, what, hint, timeout_s, parts.fragment
        self.attempts, self.wait_s = attempts, wait_s
        self._base = parts._replace(fragment="", query="").geturl().rstrip("/")
        here = parts.hostname == "localhost" or parts.hostname == "::1" or parts.hostname.startswith("127.")
        # A proxy, which the surroundings may name, knows nothing of this machine's own servers.
        self._opener = urllib.request.build_opener(*([urllib.request.ProxyHandler({})] if here else []))

    def complete(self, messages: Sequence[Mapping[str, Any]], **options: Any) -> tuple[str, int]:
        """What the model says, and how many tokens that took (0 if the server does not tell). `options` go along.

        Raises DownloadError if the server does not answer, and its subclass UnusableAnswer if it refuses this question or
        answers something else.
        """
        said = self._ask("/chat/completions", {"model": self.model(), "messages": list(messages), **options})
        try:
            text = said["choices"][0]["message"]["content"]
        except (KeyError, IndexError, TypeError):
            text = None
        if not isinstance(text, str):
            raise self._error(f"answered without a message: {json.dumps(said)[:100]}", UnusableAnswer)
        usage = said.get("usage") if isinstance(said, dict) else None
        return text, int((usage or {}).get("completion_tokens") or 0)

    def post(self, path: str, body: Mapping[str, Any]) -> Any:
        """The JSON that the server answers to another of its interfaces (`/moderations`). Raises as `complete` does."""
        return self._ask(path, body)

    def model(self) -> str:
        """The model that is asked."""
        if self._chosen:
            return self._chosen
        try:
            return str(self._ask("/models")["data"][0]["id"])
        except (KeyError, IndexError, TypeError) as error:
            raise self._error("lists no model") from error

    def _ask(self, path: str, body: Mapping[str, Any] | None = None) -> Any:
        for attempt in range(self.attempts - 1):
            try:
                return self._ask_once(path, body)
            except _Busy:
                time.sleep(self.wait_s * 2**attempt)
        return self._ask_once(path, body)

    def _ask_once(self, path: str, body: Mapping[str, Any] | None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self._base + path, data, {"Content-Type": "application/json"})
        try:
            with self._opener.open(request, timeout=self.timeout_s) as reply:
                return json.loads(reply.read())
        except urllib.error.HTTPError as error:
            said = f"answered {path} with HTTP {error.code} {error.reason}"
            raise self._error(said, _kind(error.code)) from error
        except (OSError, http.client.HTTPException) as error:  # URLError and a timeout are OSErrors
            reason = getattr(error, "reason", None) or error
            raise self._error(f"did not answer: {' '.join(str(reason).split())[:100]}") from error
        except ValueError as error:  # no JSON, or no text at all
            raise self._error(f"answered {path} with something that is not JSON", UnusableAnswer) from error

    def _error(self, what: str, kind: type[DownloadError] = DownloadError) -> DownloadError:
        return kind(f"The {self.what} {self.url!r} {what}.", self.hint)


class _Busy(DownloadError):
    """Asking again may help."""


def _kind(status: int) -> type[DownloadError]:
    """What an HTTP status says about asking again: the key and the address are wrong for all questions alike."""
    if status == 429 or status >= 500:
        return _Busy
    return DownloadError if status in (401, 403, 404) else UnusableAnswer
