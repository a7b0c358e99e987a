"""Which road a name leads to, and what is done with the answer that comes back."""

import pytest

from worldfoundry.conditioning.upsampler import ChatUpsampler, prompt_upsampler
from worldfoundry.conditioning.upsampler_chat import ServerChat, TransformersChat
from worldfoundry.conditioning.upsampler_smollm2 import EmbeddedChat
from worldfoundry.core.errors import CheckpointError, DownloadError, UsageError

LONG = "A red cube falls from a table. The light is soft and warm. The camera stands still."


class Model:
    name = "toy"

    def __init__(self, text):
        self.text, self.asked = text, []

    def answer(self, prompt, *, seed):
        self.asked.append((prompt, seed))
        if isinstance(self.text, Exception):
            raise self.text
        return self.text


def test_the_answer_is_cleaned():
    model = Model(f"Sure!\n\n{LONG}")
    assert ChatUpsampler(model).upsample("a cube falls", seed=5) == LONG
    assert model.asked == [("a cube falls", 5)]


@pytest.mark.parametrize("text", ["", "A cube falls.", "I'm sorry, I can't describe a cube falls from a table."])
def test_an_unusable_answer_gives_the_prompt_and_says_so(text, capsys):
    assert ChatUpsampler(Model(text)).upsample("a cube falls", seed=0) == "a cube falls"
    assert "the answer of toy is of no use" in capsys.readouterr().err


def test_a_long_prompt_is_used_as_written(capsys):
    model, prompt = Model(LONG), "word " * 300
    assert ChatUpsampler(model).upsample(prompt, seed=0) == prompt
    assert not model.asked
    assert "long already" in capsys.readouterr().err


def test_a_model_that_fails_is_not_hidden():
    with pytest.raises(DownloadError):
        ChatUpsampler(Model(DownloadError("gone"))).upsample("a cube", seed=0)


def test_three_roads(tmp_path):
    assert isinstance(prompt_upsampler().model, EmbeddedChat)
    assert isinstance(prompt_upsampler("http://127.0.0.1:8000/v1").model, ServerChat)
    (tmp_path / "config.json").write_text("{}")
    found = prompt_upsampler(str(tmp_path))
    assert isinstance(found.model, TransformersChat)
    assert found.name == str(tmp_path)


@pytest.mark.parametrize(
    ("which", "error", "message"),
    [
        ("smolm2", UsageError, "Did you mean 'smollm2'"),
        ("gpt", UsageError, "Give smollm2, a transformers folder, or an address"),
    ],
)
def test_an_unknown_road_is_one_line(which, error, message):
    with pytest.raises(error, match=message):
        prompt_upsampler(which)


def test_a_folder_without_a_model(tmp_path):
    with pytest.raises(CheckpointError, match="holds no language model"):
        prompt_upsampler(str(tmp_path))
