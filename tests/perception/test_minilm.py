"""MiniLM against transformers' BERT on random weights (offline), and the published weights where they are fetched."""

import json

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from worldfoundry.core.errors import CheckpointError
from worldfoundry.core.model_store import is_fetched, model_folder
from worldfoundry.perception.minilm import BertConfig, from_bert, load_minilm

TINY = BertConfig(
    vocab_size=50, hidden_size=24, num_hidden_layers=2, num_attention_heads=3, intermediate_size=40, max_position_embeddings=12
)


@pytest.fixture(scope="module")
def bert():
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    return transformers.BertModel(transformers.BertConfig(**vars(TINY), initializer_range=0.3)).eval()


def batch():
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(1, 50, (3, 8), generator=generator)
    mask = (torch.arange(8) < torch.tensor([8, 5, 1])[:, None]).long()
    return ids, mask


def test_equals_transformers_bert(bert):
    ids, mask = batch()
    with torch.no_grad():
        expected = bert(input_ids=ids, attention_mask=mask).last_hidden_state
    out = from_bert(bert.state_dict(), TINY)(ids, mask)
    torch.testing.assert_close(out[mask.bool()], expected[mask.bool()], atol=1e-5, rtol=1e-5)


def test_padding_does_not_change_tokens(bert):
    net, (ids, mask) = from_bert(bert.state_dict(), TINY), batch()
    other = torch.where(mask.bool(), ids, 7)
    torch.testing.assert_close(net(ids, mask)[mask.bool()], net(other, mask)[mask.bool()])


def test_folder_is_read_and_damage_named(bert, tmp_path):
    save_file({n: t.contiguous() for n, t in bert.state_dict().items()}, tmp_path / "model.safetensors")
    fields = vars(TINY) | {"model_type": "bert", "hidden_act": "gelu"}
    (tmp_path / "config.json").write_text(json.dumps(fields))
    ids, mask = batch()
    assert torch.equal(load_minilm(tmp_path)(ids, mask), from_bert(bert.state_dict(), TINY)(ids, mask))
    (tmp_path / "config.json").write_text(json.dumps(fields | {"num_hidden_layers": 3}))
    with pytest.raises(CheckpointError, match=r"missing layers\.2"):
        load_minilm(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(fields | {"model_type": "roberta"}))
    with pytest.raises(CheckpointError, match="'roberta'"):
        load_minilm(tmp_path)


@pytest.mark.skipif(not is_fetched("minilm"), reason="needs `worldfoundry models get minilm`")
def test_published_weights_place_meanings():
    from tokenizers import Tokenizer

    net = load_minilm(model_folder("minilm"))
    tokenizer = Tokenizer.from_file(str(model_folder("minilm") / "tokenizer.json"))
    tokenizer.no_padding()
    pooled = []
    for text in ("a car drives on a road", "a vehicle moves along a highway", "a bowl of soup"):
        ids = torch.tensor([tokenizer.encode(text).ids])
        pooled.append(F.normalize(net(ids, torch.ones_like(ids)).mean(dim=1), dim=-1)[0])
    assert (pooled[0] @ pooled[1]).item() == pytest.approx(0.673, abs=0.002)
    assert (pooled[0] @ pooled[2]).item() == pytest.approx(0.131, abs=0.002)
