"""Text encoders: rows, zero padding, cutting. MiniLM with tiny random weights and a tiny vocabulary, so nothing is fetched."""

import pytest
import torch

from tokenizers import Tokenizer, models, pre_tokenizers, processors
from worldfoundry.conditioning.text import MiniLMTextEncoder, NullTextEncoder, text_encoder
from worldfoundry.core.errors import ConfigError, DownloadError
from worldfoundry.core.model_store import is_fetched
from worldfoundry.perception.minilm import BertConfig, MiniLM

WORDS = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", "the", "arm", "lifts", "a", "cube"]


@pytest.fixture
def tokenizer_file(tmp_path):
    """Like the published file, it pads and cuts by itself, which the encoder must undo."""
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    tokenizer.enable_truncation(5)
    tokenizer.enable_padding(length=5)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    return tmp_path / "tokenizer.json"


@pytest.fixture
def encoder(tokenizer_file):
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=9,
        hidden_size=12,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=8,
        max_position_embeddings=16,
    )
    return MiniLMTextEncoder(MiniLM(config).eval(), tokenizer_file, max_length=8)


def test_rows_are_zero_past_each_prompt_and_only_there(encoder):
    rows = encoder.encode(["the arm lifts a cube", "", "a cube"])
    assert rows.shape == (3, 8, 12)
    assert [int(row.any(dim=-1).sum()) for row in rows] == [7, 2, 4]
    assert [encoder.count_tokens(prompt) for prompt in ("the arm lifts a cube", "", "a cube")] == [7, 2, 4]


def test_a_prompt_gives_the_same_rows_in_any_batch(encoder):
    together = encoder.encode(["the arm lifts a cube", "a cube"])
    torch.testing.assert_close(together[1:], encoder.encode(["a cube"]))


def test_long_prompts_are_cut_and_still_closed(encoder):
    ten = "a cube " * 5
    assert encoder.count_tokens(ten) == 12
    assert encoder.encode([ten]).any(dim=-1).all()
    assert encoder._ids(ten) == [1, 7, 8, 7, 8, 7, 8, 2]


def test_no_prompts_give_no_rows(encoder):
    assert encoder.encode([]).shape == (0, 8, 12)


def test_max_length_must_have_positions(encoder, tokenizer_file):
    with pytest.raises(ConfigError, match="2 to 16, not 17"):
        MiniLMTextEncoder(encoder.network, tokenizer_file, max_length=17)


def test_null_encoder_gives_zero_rows_and_says_so():
    null = NullTextEncoder(384, 64)
    assert null.name == "none"
    rows = null.encode(["anything", "at all"])
    assert rows.shape == (2, 64, 384)
    assert not rows.any()


def test_without_weights_and_network_it_says_what_to_do(monkeypatch, tmp_path):
    monkeypatch.setenv("WORLDFOUNDRY_CACHE", str(tmp_path))
    with pytest.raises(DownloadError, match="not in the cache"):
        MiniLMTextEncoder.fetched(download=False)
    with pytest.raises(DownloadError, match="not in the cache"):
        text_encoder("minilm", 16, download=False)


def test_encoders_by_name():
    assert text_encoder("none", 16, width=5).encode(["x"]).shape == (1, 16, 5)
    with pytest.raises(ConfigError, match="'minilm'"):
        text_encoder("mini-lm", 16)


@pytest.mark.skipif(not is_fetched("minilm"), reason="needs `worldfoundry models get minilm`")
def test_published_encoder_tells_prompts_apart():
    encoder = MiniLMTextEncoder.fetched(download=False)
    rows = encoder.encode(["the red cube moves left", "the blue ball stands still"])
    assert rows.shape == (2, 64, 384)
    assert (rows[0] - rows[1]).norm() > 1
