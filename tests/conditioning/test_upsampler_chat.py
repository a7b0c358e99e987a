"""Language models outside the package: a folder written by transformers, and a server on the loopback."""

import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
import torch

from worldfoundry.conditioning.upsampler_chat import ServerChat, TransformersChat
from worldfoundry.conditioning.upsampler_style import talk
from worldfoundry.core.errors import CheckpointError, DownloadError, UsageError

TEMPLATE = "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}{% endfor %}<|assistant|>"


def write_model(folder, template):
    transformers = pytest.importorskip("transformers")
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    pieces = Tokenizer(models.BPE(vocab={piece: i for i, piece in enumerate([*alphabet, "<end>"])}, merges=[]))
    pieces.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    pieces.decoder = decoders.ByteLevel()
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=pieces, eos_token="<end>")
    tokenizer.chat_template = template
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=257, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=1,
        eos_token_id=256, max_position_embeddings=8192, tie_word_embeddings=False,
    )  # fmt: skip
    transformers.LlamaForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("template", [TEMPLATE, None])
def test_a_folder_answers_the_same_for_the_same_seed(tmp_path, template):
    model = TransformersChat(write_model(tmp_path, template), max_tokens=12)
    state = torch.get_rng_state()
    texts = [model.answer("a cube", seed=seed) for seed in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2]
    assert texts[0]
    assert torch.equal(torch.get_rng_state(), state)


def test_a_folder_without_weights_or_model_is_one_line(tmp_path):
    with pytest.raises(CheckpointError, match="holds no language model"):
        TransformersChat(tmp_path)
    folder = write_model(tmp_path / "model", TEMPLATE)
    (folder / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="cannot be read"):
        TransformersChat(folder).answer("a cube", seed=0)


def test_a_folder_that_lacks_tensors_is_not_filled_with_noise(tmp_path):
    from safetensors.torch import load_file, save_file

    folder = write_model(tmp_path, TEMPLATE)
    state = load_file(folder / "model.safetensors")
    del state["lm_head.weight"]
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"lacks 1 tensors, for example 'lm_head.weight'"):
        TransformersChat(folder).answer("a cube", seed=0)


@contextmanager
def server(chat, models=({"id": "toy"},)):
    """A loopback server; `chat` is (status, bytes). Yields its address and the requests that came."""
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def reply(self, status, data):
            self.send_response(status)
            self.end_headers()
            self.wfile.write(data)

        def do_GET(self):
            asked.append((self.path, None))
            self.reply(200, json.dumps({"data": list(models)}).encode())

        def do_POST(self):
            asked.append((self.path, json.loads(self.rfile.read(int(self.headers["Content-Length"])))))
            self.reply(*chat)

        def log_message(self, *_):
            pass

    listener = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.server_port}/v1", asked
    finally:
        listener.shutdown()
        thread.join()
        listener.server_close()


def said(text):
    return 200, json.dumps({"choices": [{"message": {"role": "assistant", "content": text}}]}).encode()


def test_a_server_is_asked_in_openais_words(monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")  # nobody listens there
    with server(said("A long caption.")) as (url, asked):
        assert ServerChat(f"{url}/").answer("a cube", seed=7) == "A long caption."
        ServerChat(f"{url}#other").answer("a cube", seed=7)
    paths = [path for path, _ in asked]
    assert paths == ["/v1/models", "/v1/chat/completions", "/v1/chat/completions"]
    body = asked[1][1]
    assert (body["model"], body["seed"], body["messages"]) == ("toy", 7, talk("a cube"))
    assert body["temperature"] < 0.5
    assert asked[2][1]["model"] == "other"


@pytest.mark.parametrize(
    ("chat", "models", "message"),
    [
        ((500, b"{}"), ({"id": "toy"},), "answered /chat/completions with HTTP 500"),
        ((200, b"<html>"), ({"id": "toy"},), "something that is not JSON"),
        ((200, b"\xff"), ({"id": "toy"},), "something that is not JSON"),
        ((200, b'{"choices": []}'), ({"id": "toy"},), "answered without a message"),
        ((200, b'{"choices": [{"message": {"content": null}}]}'), ({"id": "toy"},), "answered without a message"),
        ((200, b"{}"), (), "lists no model"),
    ],
)
def test_a_server_that_fails_is_one_line(chat, models, message):
    with server(chat, models) as (url, _), pytest.raises(DownloadError, match=message) as caught:
        ServerChat(url).answer("a cube", seed=0)
    assert "--upsample off" in caught.value.hint
    assert "\n" not in str(caught.value)


def test_a_server_that_is_not_there_is_one_line():
    with server(said("")) as (url, _):
        pass
    with pytest.raises(DownloadError, match=r"did not answer: .*refused"):
        ServerChat(url).answer("a cube", seed=0)


def test_a_server_that_says_nothing_is_given_up():
    import socket

    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
        with pytest.raises(DownloadError, match="did not answer: timed out"):
            ServerChat(url, timeout_s=0.05).answer("a cube", seed=0)


def test_an_address_without_a_host():
    with pytest.raises(UsageError, match="'http:///v1' is no address"):
        ServerChat("http:///v1")
