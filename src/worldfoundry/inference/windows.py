"""Long video: which latent frames each pass of the network makes, and which of them it is given by the pass before.

A network makes as many latent frames at a time as it was trained on. A longer video is a row of such windows, each of which
begins with the last frames of the one before (arXiv 2501.03575 extends its videos so).
"""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Window:
    """Latent frames `start` … `start + length` of the clip, of which the first `overlap` are there already."""

    start: int
    length: int
    overlap: int


def plan_windows(latent_frames: int, trained: int, overlap: int, *, ends_exactly: bool = False) -> list[Window]:
    """The windows of a clip of `latent_frames`, each of `trained` frames and sharing `overlap` with the one before.

    One window is as long as the clip. Of several the last may reach past the clip's end, and what it makes there is dropped;
    with `ends_exactly` (frames are given at the end) it begins earlier instead and shares more.
    """
    if latent_frames <= trained:
        return [Window(start=0, length=latent_frames, overlap=0)]
    overlap = max(0, min(overlap, trained - 1))
    windows = [Window(start=0, length=trained, overlap=0)]
    while (done := windows[-1].start + trained) < latent_frames:
        start = done - overlap
        if ends_exactly:
            start = min(start, latent_frames - trained)
        windows.append(Window(start=start, length=trained, overlap=done - start))
    return windows


def prompt_at(window: Window, prompts: int, latent_frames: int) -> int:
    """Which of `prompts` that share a clip out evenly holds where a window's first new frame lies."""
    return min((window.start + window.overlap) * prompts // latent_frames, prompts - 1)
