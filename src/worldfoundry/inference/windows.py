"""Long video: which latent frames each pass of the network makes, and which of them it is given by the pass before.

A network makes as many latent frames at a time as it was trained on. A longer video is a row of such windows, each of which
begins with the last frames of the one before (arXiv 2501.03575 extends its videos so).
"""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Window:
    """Latent frames `start` … `start + length` of the clip, of which the first `overlap` are there already.

    What a window makes from the first new frame of the next one on is dropped.
    """

    start: int
    length: int
    overlap: int

    @property
    def first_new(self) -> int:
        """The first frame of the clip that this window adds."""
        return self.start + self.overlap


def plan_windows(latent_frames: int, trained: int, overlap: int, *, given: int = 0, end: int = 0) -> list[Window]:
    """The windows of a clip of `latent_frames`, each of `trained` frames and sharing `overlap` with the one before.

    One window is as long as the clip. Of several the last may reach past the clip's end, and what it makes there is dropped.
    Where the clip's last `end` frames are given (and maybe its first ones, `given`), the last window stops with the clip and is
    given no more of what was made without knowing the end than any other window: the one before is cut. Of a long end it is
    given less, so that something is left to make.
    """
    if latent_frames <= trained:
        return [Window(start=0, length=latent_frames, overlap=0)]
    overlap = max(0, min(overlap, trained - 1))
    start = latent_frames - trained
    shared = max(min(overlap, max(trained - end - 1, 1)), given - start)
    last = Window(start=start, length=trained, overlap=shared)
    windows = [Window(start=0, length=trained, overlap=0)]
    while (done := windows[-1].start + trained) < (last.first_new if end else latent_frames):
        windows.append(Window(start=done - overlap, length=trained, overlap=overlap))
    return [*windows, last] if end else windows


def prompt_at(window: Window, prompts: int, latent_frames: int) -> int:
    """Which of `prompts` that share a clip out evenly holds where a window's first new frame lies."""
    return min(window.first_new * prompts // latent_frames, prompts - 1)
