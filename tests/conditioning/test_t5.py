"""T5 with tiny random weights: rows as a padded, masked and zeroed run of the whole length gives them."""

import sys

import pytest
import torch

from worldfoundry.conditioning.t5 import T5TextEncoder
from worldfoundry.conditioning.text import text_encoder
from worldfoundry.core.errors import CheckpointError, ConfigError, MissingExtraError

transformers = pytest.importorskip("transformers")

WORDS = ["<pad>", "</s>", "<unk>", "▁the", "▁arm", "▁lifts", "▁a", "▁cube", "▁"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    folder = tmp_path_factory.mktemp("t5")
    torch.manual_seed(0)
    config = transformers.T5Config(vocab_size=9, d_model=12, d_kv=4, d_ff=16, num_layers=2, num_heads=2)
    transformers.T5EncoderModel(config).save_pretrained(folder / "text_encoder")
    vocabulary = [(word, -float(i)) for i, word in enumerate(WORDS)]
    transformers.T5TokenizerFast(vocab=vocabulary, extra_ids=0).save_pretrained(folder / "tokenizer")
    return folder / "text_encoder", folder / "tokenizer"


def test_rows_are_those_of_the_padded_and_masked_run(folders):
    encoder = T5TextEncoder(*folders, max_length=10)
    prompts = ["the arm lifts a cube", "", "a cube", "the arm lifts " * 5]
    rows = encoder.encode(prompts)
    network = transformers.T5EncoderModel.from_pretrained(folders[0])
    pieces = transformers.AutoTokenizer.from_pretrained(folders[1])(
        prompts, padding="max_length", max_length=10, truncation=True, return_tensors="pt"
    )
    with torch.no_grad():
        whole = network(pieces.input_ids, attention_mask=pieces.attention_mask).last_hidden_state
    torch.testing.assert_close(rows, whole * pieces.attention_mask[..., None])
    assert [int(row.any(dim=-1).sum()) for row in rows] == [6, 1, 3, 10]
    assert [encoder.count_tokens(prompt) for prompt in prompts] == [6, 1, 3, 16]
    assert encoder.encode([]).shape == (0, 10, 12)


def test_a_dtype_is_the_weights_and_rows_stay_float32(folders):
    encoder = T5TextEncoder(*folders, max_length=4, dtype=torch.bfloat16)
    rows = encoder.encode(["a cube"])
    assert rows.dtype == torch.float32
    assert torch.equal(rows, rows.bfloat16().float())


def test_nothing_is_read_before_the_first_prompt(folders, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    encoder = T5TextEncoder(*folders)
    assert (encoder.width, encoder.max_length) == (12, 512)
    with pytest.raises(MissingExtraError, match=r"pip install 'worldfoundry\[text\]'"):
        encoder.encode(["a cube"])


def test_a_released_network_is_read_again(folders):
    encoder = T5TextEncoder(*folders, 8)
    want = encoder.encode(["a"])
    assert encoder.stored_bytes >= sum(p.numel() for p in encoder._network.parameters())
    encoder.release()
    assert "_network" not in vars(encoder)
    assert torch.equal(encoder.encode(["a"]), want)
    encoder.release()
    encoder.release()


def test_incomplete_folders_are_one_line(folders, tmp_path):
    from safetensors.torch import load_file, save_file

    state = load_file(folders[0] / "model.safetensors")
    state.pop("encoder.block.1.layer.0.SelfAttention.q.weight")
    save_file(state, tmp_path / "model.safetensors", metadata={"format": "pt"})
    (tmp_path / "config.json").write_text((folders[0] / "config.json").read_text())
    with pytest.raises(CheckpointError, match=r"lacks 1 tensors, for example 'encoder\.block\.1\.layer\.0\.SelfAttention\.q"):
        T5TextEncoder(tmp_path, folders[1]).encode(["a cube"])
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="cannot be read") as caught:
        T5TextEncoder(tmp_path, folders[1]).encode(["a cube"])
    assert "\n" not in str(caught.value)
    with pytest.raises(CheckpointError, match="holds no T5 encoder"):
        T5TextEncoder(folders[1], folders[1])
    with pytest.raises(CheckpointError, match="tokenizer' cannot be read"):
        T5TextEncoder(folders[0], tmp_path / "tokenizer").encode(["a cube"])


def test_by_name_it_says_where_it_comes_from():
    with pytest.raises(ConfigError, match="read from folders"):
        text_encoder("t5", 512)
