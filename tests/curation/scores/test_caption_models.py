"""A captioner that answers rubbish, late, with an error or not at all costs a caption, never a run; a local model is really read."""

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from worldfoundry.core.errors import DownloadError
from worldfoundry.core.video_io import write_video
from worldfoundry.curation.api import curate
from worldfoundry.curation.rows import SourceError
from worldfoundry.curation.scores.captions import ServerCaptioner, TransformersCaptioner, caption_windows, plan_windows
from worldfoundry.curation.scores.config import ScoreConfig
from worldfoundry.curation.scores.stages import score_stages
from worldfoundry.curation.tables import read_table
from worldfoundry.data.clips import ClipDataset
from worldfoundry.data.shards import read_index

FRAMES = list(np.random.default_rng(0).integers(0, 256, (8, 24, 40, 3), dtype=np.uint8))
GOOD = {"choices": [{"message": {"content": "A car\n turns."}}], "usage": {"completion_tokens": 4}}
Answer = tuple[int, bytes] | None


def said(value: Any, status: int = 200) -> Answer:
    return status, json.dumps(value).encode()


class Server:
    """Answers the n-th question as the n-th of `answers` says, and the rest as the last; None is no answer at all."""

    def __init__(self, answers: list[Answer]) -> None:
        self.answers, self.asked, self.over = answers, 0, threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                answer = outer.answers[min(outer.asked, len(outer.answers) - 1)]
                outer.asked += 1
                if answer is None:
                    outer.over.wait()
                    return
                self.send_response(answer[0])
                self.send_header("Content-Length", str(len(answer[1])))
                self.end_headers()
                self.wfile.write(answer[1])

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}/v1#vlm"
        self.thread = threading.Thread(target=self.http.serve_forever, args=(0.01,))
        self.thread.start()

    def close(self) -> None:
        self.over.set()
        self.http.shutdown()
        self.thread.join()
        self.http.server_close()


@pytest.fixture
def serve() -> Iterator[Callable[[list[Answer]], Server]]:
    servers: list[Server] = []

    def start(answers: list[Answer]) -> Server:
        servers.append(Server(answers))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


def ask(server: Server, timeout_s: float = 60.0) -> list[Any]:
    captioner = ServerCaptioner(server.url, timeout_s=timeout_s, wait_s=0.0)
    return caption_windows(plan_windows(8, 4.0, window_s=1.0, shown=2), dict(enumerate(FRAMES)), {}, captioner)


@pytest.mark.parametrize(
    ("rubbish", "reason"),
    [
        ((200, b"<html>not JSON"), "something that is not JSON"),
        (said({"choices": []}), "answered without a message"),
        (said(["a list"]), "answered without a message"),
        (said({"choices": [{"message": {"content": " \n"}}]}), "It said nothing."),
        (said({"error": "too many pictures"}, 400), "HTTP 400"),
    ],
)
def test_rubbish_leaves_one_window_without_words(serve: Any, rubbish: Answer, reason: str) -> None:
    first, second = ask(serve([rubbish, said(GOOD)]))
    assert (first.text, second.text, second.tokens, second.error) == (None, "A car turns.", 4, "")
    assert reason in first.error


def test_a_busy_server_is_asked_again(serve: Any) -> None:
    server = serve([said({}, 500), said({}, 503), said(GOOD)])
    assert [caption.text for caption in ask(server)] == ["A car turns."] * 2
    assert server.asked == 4


@pytest.mark.parametrize(
    ("answer", "reason", "asked"),
    [(said({}, 500), "HTTP 500", 3), (said({}, 401), "HTTP 401", 1), (None, "did not answer: timed out", 1)],
)
def test_a_server_that_fails_is_given_up(serve: Any, answer: Answer, reason: str, asked: int) -> None:
    server = serve([answer])
    with pytest.raises(DownloadError, match=reason):
        ask(server, timeout_s=0.3 if answer is None else 60.0)
    assert server.asked == asked


def test_what_a_server_does_not_answer_is_made_up_for_on_the_next_run(serve: Any, zoo: Any) -> None:
    write_video(zoo.folder / "a.mp4", zoo.frames(36), 12.0)
    server = serve([said({}, 401)])
    options = {"isolate": False, "scores": {"measure": False, "captions": server.url, "window_s": 1.5, "embed_captions": "off"}}
    first = curate(zoo.folder, zoo.folder.parent / "out", **options)
    assert (first.clips, first.rejected) == (0, {"CAPTIONS_FAILED": 1})
    (lost,) = read_table(zoo.folder.parent / "out" / "tables", "quarantine")
    assert (lost["code"], lost["stage"]) == ("CAPTIONS_FAILED", "captions")
    server.answers = [said(GOOD), said({"choices": []})]
    server.asked = 0
    assert curate(zoo.folder, zoo.folder.parent / "out", **options).clips == 1
    (clip,) = read_table(zoo.folder.parent / "out" / "tables", "clips")
    assert (clip["caption"], clip["caption_source"]) == ("A car turns.", server.url)
    assert [(w["first"], w["last"], w["text"], w["tokens"]) for w in clip["caption_windows"]] == [
        (0, 18, "A car turns.", 4),
        (18, 36, None, 0),
    ]
    assert "without a message" in clip["caption_error"] == clip["caption_windows"][1]["error"]
    (record,) = ClipDataset(zoo.folder.parent / "out").records
    (tar,) = (zoo.folder.parent / "out").glob("shards/*/*.tar")
    sample = json.loads(read_index(tar).read(record.key, "json"))
    assert sample["caption_windows"] == clip["caption_windows"]
    assert sample["caption"] == "A car turns."


def test_an_image_is_captioned_too(serve: Any, zoo: Any) -> None:
    server = serve([said(GOOD)])
    (stage,) = score_stages(ScoreConfig(measure=False, captions=server.url, embed_captions="off"))
    from worldfoundry.curation.plan import plan_image

    plan, row = plan_image("s"), {"path": str(zoo.image("a.png")), "image": True, "frames": None, "staging": ""}
    made = stage.added({**row, "plan": plan, "plans": [plan]})
    assert (made["caption_text"], made["caption_error"]) == ("A car turns.", None)
    assert [(window["first"], window["last"]) for window in made["caption_windows"]] == [(0, 1)]
    server.answers = [said({}, 404)]
    with pytest.raises(SourceError, match="HTTP 404") as caught:
        stage.added({**row, "plan": plan, "plans": [plan]})
    assert caught.value.code == "CAPTIONS_FAILED"


# --- a model on this machine -------------------------------------------------------------------------------------------

WORDS = ("<unk>", "<s>", "</s>", "<pad>", "<image>", "a", "car", "turns", "left", "and", "stops")
TEMPLATE = (
    "{% for turn in messages %}{% for part in turn['content'] %}"
    "{% if part['type'] == 'image' %}<image> {% else %}{{ part['text'] }}{% endif %}{% endfor %}{% endfor %}"
)


@pytest.fixture(scope="module")
def llava(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LLaVA of random weights, as transformers would save a trained one: two layers that look, one that speaks."""
    transformers = pytest.importorskip("transformers")
    import torch

    from tokenizers import Tokenizer, models, pre_tokenizers

    words = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    special = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"}
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=words, additional_special_tokens=["<image>"], **special)
    small = {"hidden_size": 16, "intermediate_size": 16, "num_attention_heads": 2}
    vision = transformers.CLIPVisionConfig(image_size=16, patch_size=8, num_hidden_layers=2, projection_dim=8, **small)
    text = transformers.LlamaConfig(
        vocab_size=len(WORDS), num_hidden_layers=1, num_key_value_heads=2, eos_token_id=2, pad_token_id=3, **small
    )
    config = transformers.LlavaConfig(
        vision_config=vision, text_config=text, image_token_id=4, image_seq_length=4, vision_feature_layer=-1
    )
    torch.manual_seed(0)
    network = transformers.LlavaForConditionalGeneration(config)
    processor = transformers.LlavaProcessor(
        image_processor=transformers.CLIPImageProcessor(size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16}),
        tokenizer=tokenizer,
        patch_size=8,
        vision_feature_select_strategy="default",
        chat_template=TEMPLATE,
        num_additional_image_tokens=1,
    )
    folder = tmp_path_factory.mktemp("vlm") / "tiny-llava"
    network.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def test_a_local_model_reads_frames_and_answers_in_its_own_words(llava: Path) -> None:
    captioner = TransformersCaptioner(llava)
    text, tokens = captioner(FRAMES[:3], {})
    assert 0 < tokens <= 200
    assert text, "its words, without the question and the pictures' places"
    assert set(text.split()) <= set(WORDS) - {"<image>", "<s>", "</s>", "<pad>"}
    assert captioner(FRAMES[:3], {}) == (text, tokens), "greedy: the same frames, the same words"
    assert captioner.name == "tiny-llava"


def test_a_local_model_that_lacks_tensors_says_so(llava: Path, tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    from worldfoundry.core.errors import CheckpointError

    for file in llava.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    tensors = load_file(llava / "model.safetensors")
    del tensors[sorted(tensors)[0]]
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match="lacks 1 tensors"):
        TransformersCaptioner(tmp_path)(FRAMES[:1], {})
