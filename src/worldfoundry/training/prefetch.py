"""Decode the next batches while the present one trains, without losing or repeating one when a run is cut.

The state that is saved is the one after the batch that was handed out last; what lies ready is drawn again after a resume.
"""

import threading
from dataclasses import dataclass
from queue import Empty, Full, Queue
from typing import Any

from worldfoundry.training.method import BatchStream

POLL_S = 0.2  # how soon a waiting thread notices that it should end


@dataclass(frozen=True)
class _Drawn:
    """A batch and the stream's position after it, or the error that came instead."""

    batch: Any = None
    state: dict[str, Any] | None = None
    error: BaseException | None = None


class Prefetch:
    """A stream whose batches are drawn by a thread, up to `depth` ahead. The stream behind it must not be touched meanwhile."""

    def __init__(self, stream: BatchStream, depth: int = 2) -> None:
        self.stream, self.depth = stream, depth
        self._state = stream.state_dict()
        self._ready: Queue[_Drawn] = Queue(maxsize=depth)
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def next_batch(self) -> Any:
        """The next batch of the stream behind, in its order; an error that drawing it raised is raised here."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._draw, name="prefetch", daemon=True)
            self._thread.start()
        drawn = self._ready.get()
        if drawn.error is not None:
            self._end()
            raise drawn.error
        assert drawn.state is not None, "a batch comes with the position after it"
        self._state = drawn.state
        return drawn.batch

    def state_dict(self) -> dict[str, Any]:
        return self._state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there; what was drawn ahead is dropped."""
        self._end()
        self.stream.load_state_dict(state)
        self._state = self.stream.state_dict()

    def close(self) -> None:
        """End the thread and put the stream behind back to where this one is."""
        self.load_state_dict(self._state)

    def _draw(self) -> None:
        stop, ready = self._stop, self._ready
        while not stop.is_set():
            try:
                drawn = _Drawn(batch=self.stream.next_batch(), state=self.stream.state_dict())
            except BaseException as error:  # noqa: BLE001  # whatever it is, the training thread has to see it
                drawn = _Drawn(error=error)
            while not stop.is_set():
                try:
                    ready.put(drawn, timeout=POLL_S)
                    break
                except Full:
                    continue
            if drawn.error is not None:
                return

    def _end(self) -> None:
        if self._thread is None:
            return
        self._stop.set()
        try:
            while True:
                self._ready.get_nowait()
        except Empty:
            pass
        self._thread.join()
        self._thread, self._stop, self._ready = None, threading.Event(), Queue(maxsize=self.depth)
