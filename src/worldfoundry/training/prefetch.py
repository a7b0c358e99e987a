"""Decode the next batches while the present one trains, without losing or repeating one when a run is cut.

The state that is saved is the one after the batch that was handed out last; what lies ready is drawn again after a resume.
"""

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from worldfoundry.training.method import BatchStream


class Prefetch:
    """A stream whose batches are drawn by a thread, up to `depth` ahead. The stream behind it must not be touched meanwhile."""

    def __init__(self, stream: BatchStream, depth: int = 2) -> None:
        self.stream, self.depth = stream, depth
        self._state = stream.state_dict()
        self._ahead: deque[Future[tuple[Any, dict[str, Any]]]] = deque()
        self._thread: ThreadPoolExecutor | None = None

    def next_batch(self) -> Any:
        """The next batch of the stream behind, in its order; an error that drawing it raised is raised here."""
        self._thread = self._thread or ThreadPoolExecutor(1, thread_name_prefix="prefetch")
        while len(self._ahead) <= self.depth:
            self._ahead.append(self._thread.submit(self._draw))
        batch, self._state = self._ahead.popleft().result()
        return batch

    def state_dict(self) -> dict[str, Any]:
        return self._state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there; what was drawn ahead is dropped."""
        if self._thread is not None:
            self._thread.shutdown(cancel_futures=True)
        self._ahead, self._thread = deque(), None
        self.stream.load_state_dict(state)
        self._state = self.stream.state_dict()

    def close(self) -> None:
        """End the thread and put the stream behind back to where this one is."""
        self.load_state_dict(self._state)

    def _draw(self) -> tuple[Any, dict[str, Any]]:
        return self.stream.next_batch(), self.stream.state_dict()
