"""With one axis of positions and no QK-norm the transformer is a Llama: the same logits as transformers' with the same weights."""

import pytest
import torch

from worldfoundry.autoregressive.cache import KVCache
from worldfoundry.autoregressive.config import TransformerConfig
from worldfoundry.autoregressive.transformer import Transformer

NAMES = {
    "embed": "model.embed_tokens",
    "norm": "model.norm",
    "unembed": "lm_head",
    "attention_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "attention.to_q": "self_attn.q_proj",
    "attention.to_k": "self_attn.k_proj",
    "attention.to_v": "self_attn.v_proj",
    "attention.to_out": "self_attn.o_proj",
    "ffn.gate": "mlp.gate_proj",
    "ffn.up": "mlp.up_proj",
    "ffn.down": "mlp.down_proj",
}


def in_llama(name):
    parts = name.removesuffix(".weight").split(".", 2)
    return f"model.layers.{parts[1]}.{NAMES[parts[2]]}.weight" if parts[0] == "blocks" else f"{NAMES[parts[0]]}.weight"


def test_equals_a_llama_with_the_same_weights():
    transformers = pytest.importorskip("transformers")
    config = TransformerConfig(
        vocab_size=64, dim=24, num_layers=2, num_heads=4, num_kv_heads=2, head_dim=8, ffn_hidden_size=40, max_seq_len=32,
        rope="1d", rope_theta=10000.0, qk_norm=False,
    )  # fmt: skip
    network = Transformer(config).eval()
    generator = torch.Generator().manual_seed(0)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, mean=float(parameter.ndim == 1), std=0.3, generator=generator)
    llama = transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            vocab_size=config.vocab_size, hidden_size=config.dim, num_hidden_layers=config.num_layers,
            num_attention_heads=config.num_heads, num_key_value_heads=config.num_kv_heads, head_dim=config.head_dim,
            intermediate_size=config.ffn_hidden_size, max_position_embeddings=config.max_seq_len,
            rms_norm_eps=config.norm_eps, rope_theta=config.rope_theta, tie_word_embeddings=False,
        )
    ).eval()  # fmt: skip
    llama.load_state_dict({in_llama(name): tensor for name, tensor in network.state_dict().items()}, strict=True)
    tokens = torch.randint(config.vocab_size, (2, 20), generator=generator)
    with torch.no_grad():
        theirs = llama(tokens).logits
        torch.testing.assert_close(network(tokens), theirs, atol=1e-4, rtol=1e-4)
        cache = KVCache.empty(config, 2, 20, torch.float32)
        ours = torch.cat(
            [network(tokens[:, :15], None, cache), *(network(t, None, cache) for t in tokens[:, 15:].split(1, dim=1))], 1
        )
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)
