"""A language model behind a server with OpenAI's chat interface, asked with nothing but the standard library."""

import http.client
import json
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from worldfoundry.core.errors import DownloadError, UsageError


class ChatServer:
    """`http://127.0.0.1:8000/v1` asks the first model that the server lists, `…/v1#NAME` that one.

    `what` is what errors call it, `hint` what they advise.
    """

    def __init__(self, url: str, *, what: str, hint: str, timeout_s: float = 60.0) -> None:
        """Raises UsageError for an address without a host."""
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise UsageError(f"{url!r} is no address of a server.", "It looks like http://127.0.0.1:8000/v1")
        self.url, self.what, self.hint, self.timeout_s, self._chosen = url, what, hint, timeout_s, parts.fragment
        self._base = parts._replace(fragment="", query="").geturl().rstrip("/")
        here = parts.hostname == "localhost" or parts.hostname == "::1" or parts.hostname.startswith("127.")
        # A proxy, which the surroundings may name, knows nothing of this machine's own servers.
        self._opener = urllib.request.build_opener(*([urllib.request.ProxyHandler({})] if here else []))

    def complete(self, messages: Sequence[Mapping[str, Any]], **options: Any) -> tuple[str, int]:
        """What the model says, and how many tokens that took (0 if the server does not tell). `options` go along.

        Raises DownloadError if the server does not answer, refuses, or answers something else.
        """
        said = self._ask("/chat/completions", {"model": self.model(), "messages": list(messages), **options})
        try:
            text = said["choices"][0]["message"]["content"]
        except (KeyError, IndexError, TypeError):
            text = None
        if not isinstance(text, str):
            raise self._error(f"answered without a message: {json.dumps(said)[:100]}")
        usage = said.get("usage") if isinstance(said, dict) else None
        return text, int((usage or {}).get("completion_tokens") or 0)

    def model(self) -> str:
        """The model that is asked."""
        if self._chosen:
            return self._chosen
        try:
            return str(self._ask("/models")["data"][0]["id"])
        except (KeyError, IndexError, TypeError) as error:
            raise self._error("lists no model") from error

    def _ask(self, path: str, body: Mapping[str, Any] | None = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self._base + path, data, {"Content-Type": "application/json"})
        try:
            with self._opener.open(request, timeout=self.timeout_s) as reply:
                return json.loads(reply.read())
        except urllib.error.HTTPError as error:
            raise self._error(f"answered {path} with HTTP {error.code} {error.reason}") from error
        except (OSError, http.client.HTTPException) as error:  # URLError and a timeout are OSErrors
            reason = getattr(error, "reason", None) or error
            raise self._error(f"did not answer: {' '.join(str(reason).split())[:100]}") from error
        except ValueError as error:  # no JSON, or no text at all
            raise self._error(f"answered {path} with something that is not JSON") from error

    def _error(self, what: str) -> DownloadError:
        return DownloadError(f"The {self.what} {self.url!r} {what}.", self.hint)
