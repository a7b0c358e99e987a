"""Windows tile a clip, a server is asked with pictures, and without a model only what was measured is said."""

import base64
import io
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from worldfoundry.core.errors import CheckpointError, DownloadError, UsageError
from worldfoundry.core.model_store import is_fetched
from worldfoundry.curation.scores.captions import (
    TransformersCaptioner,
    caption_embedder,
    caption_windows,
    captioner,
    describe_measured,
    plan_windows,
    small,
)

FRAMES = list(np.random.default_rng(0).integers(0, 256, (8, 24, 40, 3), dtype=np.uint8))


@pytest.mark.parametrize(
    ("num_frames", "fps", "count"), [(300, 30.0, 2), (60, 30.0, 1), (1, 0.0, 1), (780, 24.0, 6), (5, 24.0, 1)]
)
def test_windows_tile_the_clip(num_frames: int, fps: float, count: int) -> None:
    windows = plan_windows(num_frames, fps)
    assert len(windows) == count
    assert [w.first for w in windows] == [0, *(w.last for w in windows[:-1])]
    assert windows[-1].last == num_frames
    for window in windows:
        assert len(window.shown) == min(8, window.last - window.first) == len(set(window.shown))
        assert all(window.first <= t < window.last for t in window.shown)


def test_the_default_says_what_was_measured_and_that_it_was() -> None:
    scores = {"duration_s": 3.25, "camera_motion": "pan", "camera_pan": -0.2, "motion_objects": 0.001, "luma_mean": 30.0}
    assert describe_measured(scores) == (
        "A clip of 3.2 s: the camera pans left, nothing else moves, dark. (Measured, not seen by a language model.)"
    )
    assert describe_measured({}) == "A picture. (Measured, not seen by a language model.)"
    told = describe_measured({"duration_s": 2.0, "camera_motion": "static", "text_persistent": 0.01, "video_type": "kitchen"})
    assert "of type kitchen: the camera stands still, with text that stays" in told


class Server:
    """A server with OpenAI's interface that counts the pictures that it is shown."""

    def __init__(self) -> None:
        self.asked: list[Any] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.reply({"data": [{"id": "vlm"}]})

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                outer.asked.append(body)
                count = sum(part["type"] == "image_url" for part in body["messages"][0]["content"])
                text = {"content": f"I see\n {count} pictures."}
                self.reply({"choices": [{"message": text}], "usage": {"completion_tokens": 5}})

            def reply(self, value: Any) -> None:
                content = json.dumps(value).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self.http = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}/v1"


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    thread = threading.Thread(target=server.http.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.http.shutdown()
    thread.join()
    server.http.server_close()


def test_a_server_is_shown_the_frames_of_each_window(server: Server) -> None:
    windows = plan_windows(8, 4.0, window_s=1.0, shown=3)
    captions = caption_windows(windows, dict(enumerate(FRAMES)), {}, captioner(server.url))
    assert [(c.first, c.last, c.text, c.tokens) for c in captions] == [
        (0, 4, "I see 3 pictures.", 5),
        (4, 8, "I see 3 pictures.", 5),
    ]
    assert server.asked[0]["model"] == "vlm"
    address = server.asked[0]["messages"][0]["content"][0]["image_url"]["url"]
    picture = Image.open(io.BytesIO(base64.b64decode(address.partition(",")[2])))
    assert np.abs(np.asarray(picture).astype(int) - FRAMES[windows[0].shown[0]]).mean() < 60
    assert picture.size == (40, 24)


def test_places_that_cannot_caption_say_so(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no vision-language model"):
        captioner(str(tmp_path))
    with pytest.raises(UsageError, match="no address of a server"):
        captioner("http:///v1")
    with pytest.raises(DownloadError, match=r"The captioner 'http://127\.0\.0\.1:9/v1' did not answer"):
        captioner("http://127.0.0.1:9/v1")(FRAMES[:1], {})


def test_large_frames_are_scaled_down_before_they_are_sent() -> None:
    assert small(np.zeros((1080, 1920, 3), np.uint8)).shape == (288, 512, 3)
    assert small(FRAMES[0]).shape == FRAMES[0].shape


@pytest.mark.skipif(not is_fetched("minilm"), reason="the weights are not in the cache")
def test_captions_of_one_meaning_are_near() -> None:
    embed = caption_embedder(download=False)
    car, vehicle, soup = (embed(text) for text in ("a car on a road", "a vehicle drives along a street", "a bowl of soup"))
    assert np.linalg.norm(car) == pytest.approx(1, abs=1e-5)
    assert car @ vehicle > car @ soup + 0.2


class StubModel:
    """Stands for a processor and a network of transformers: repeats how many pictures it was given."""

    def apply_chat_template(self, talk: list[Any], add_generation_prompt: bool) -> str:
        return "".join("<image>" if part["type"] == "image" else part["text"] for part in talk[0]["content"])

    def __call__(self, text: list[str], images: list[list[Image.Image]], return_tensors: str) -> dict[str, Any]:
        assert text[0].count("<image>") == len(images[0])
        self.count = len(images[0])
        return {"input_ids": torch.zeros(1, 7, dtype=torch.long)}

    def generate(self, input_ids: torch.Tensor, **options: Any) -> torch.Tensor:
        assert not options["do_sample"]
        return torch.cat([input_ids, torch.full((1, 2), self.count)], 1)

    def decode(self, ids: torch.Tensor, skip_special_tokens: bool) -> str:
        return " ".join(str(i) for i in ids.tolist())


def test_a_local_model_is_asked_greedily_and_its_prompt_is_cut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "config.json").write_text("{}")
    model = TransformersCaptioner(tmp_path)
    monkeypatch.setattr(model, "_loaded", (stub := StubModel(), stub))
    assert model(FRAMES[:3], {}) == ("3 3", 2)
