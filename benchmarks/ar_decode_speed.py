"""Tokens per second of the autoregressive network on a CPU, against transformers' `generate` and against the memory's rate.

    python benchmarks/ar_decode_speed.py [--rounds 5] [--new 192] [--clock wall|cpu] [--out benchmarks/ar_decode_speed_cpu.json]

Two shapes, 22 M parameters and nano's, in float32 and bfloat16, batch 1, greedy. The peer is a LlamaForCausalLM with its dynamic
and its static cache; ours has the same weights and no QK-norm, as a Llama has none, and must give the same tokens (float32); once
as trained (`plain`) and once `for_decoding()` (`lean`); `cosmos` is the lean network with QK-norm and 3-D positions. All run in
one process, one after the other, in every round. What the memory allows is measured in the same rounds: the bytes of a token
(weights that are read and keys and values of half the new tokens) over the rate of matrix-vector products, the better of plain and
packed, over as many bytes in matrices of the network's width. Run it on an otherwise idle machine with OMP_NUM_THREADS set to
its cores.
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from worldfoundry.autoregressive.config import TransformerConfig, ar_size
from worldfoundry.autoregressive.decoding import generate
from worldfoundry.autoregressive.sampling import Sampling
from worldfoundry.autoregressive.transformer import Transformer
from worldfoundry.core.files import write_json
from worldfoundry.core.provenance import provenance
from worldfoundry.nn.packed import PackedLinear

MIDDLE = TransformerConfig(
    vocab_size=1000, dim=512, num_layers=7, num_heads=8, num_kv_heads=4, head_dim=64, ffn_hidden_size=1408,
    latent_shape=(5, 8, 8), max_seq_len=320,
)  # fmt: skip
SHAPES = {"22M": MIDDLE, "nano": ar_size("nano").replace(medusa_heads=0)}
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
PREFIX, WARM, MATRIX_ROWS = 64, 8, 1024
LAYER = {
    "attention_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm", "attention.to_q": "self_attn.q_proj",
    "attention.to_k": "self_attn.k_proj", "attention.to_v": "self_attn.v_proj", "attention.to_out": "self_attn.o_proj",
    "ffn.gate": "mlp.gate_proj", "ffn.up": "mlp.up_proj", "ffn.down": "mlp.down_proj",
}  # fmt: skip
TOP = {"embed": "model.embed_tokens", "norm": "model.norm", "unembed": "lm_head"}
Decode = Callable[[int], Tensor]


def llama(network: Transformer) -> nn.Module:
    """The peer with the same weights (rows of the embedding that pad ours are left out)."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config, state = network.config, {}
    peer = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=config.vocab_size, hidden_size=config.dim, num_hidden_layers=config.num_layers,
            num_attention_heads=config.num_heads, num_key_value_heads=config.num_kv_heads, head_dim=config.head_dim,
            intermediate_size=config.ffn_hidden_size, max_position_embeddings=config.max_seq_len,
            rms_norm_eps=config.norm_eps, rope_theta=config.rope_theta, tie_word_embeddings=False, bos_token_id=None,
            eos_token_id=None,
        )
    )  # fmt: skip
    for name, tensor in network.state_dict().items():
        first, *rest = name.removesuffix(".weight").split(".", 2)
        theirs = f"model.layers.{rest[0]}.{LAYER[rest[1]]}" if first == "blocks" else TOP[first]
        state[f"{theirs}.weight"] = tensor[: config.vocab_size] if first == "embed" else tensor
    peer.load_state_dict(state, strict=True)
    return peer.to(network.embed.weight.dtype).eval()


def decoders(config: TransformerConfig, dtype: torch.dtype) -> dict[str, Decode]:
    """Name → a function from a number of new tokens to these tokens, all from the same prefix."""
    same = Transformer(config.replace(rope="1d", qk_norm=False)).to(dtype).eval()
    cosmos = Transformer(config).to(dtype).eval().for_decoding()
    peer, prefix = llama(same), torch.arange(PREFIX)[None]

    def theirs(cache: str) -> Decode:
        def decode(count: int) -> Tensor:
            options: dict[str, Any] = {
                "max_new_tokens": count,
                "do_sample": False,
                "cache_implementation": cache,
                "pad_token_id": 0,
            }
            return peer.generate(prefix, attention_mask=torch.ones_like(prefix), **options)[:, PREFIX:]  # type: ignore[operator]

        return decode

    def ours(network: Transformer) -> Decode:
        def decode(count: int) -> Tensor:
            greedy, generators = Sampling(temperature=0), [torch.Generator()]
            return torch.cat(list(generate(network, prefix, count, sampling=greedy, generators=generators)), dim=1)

        return decode

    return {
        "transformers dynamic": theirs("dynamic"), "transformers static": theirs("static"), "plain": ours(same),
        "lean": ours(same.for_decoding()), "cosmos": ours(cosmos),
    }  # fmt: skip


def token_bytes(config: TransformerConfig, dtype: torch.dtype, new: int) -> dict[str, int]:
    """What one new token reads: every weight but the embedding's other rows, keys and values of the tokens before it."""
    with torch.device("meta"):
        network = Transformer(config)
    weights = sum(p.numel() for p in network.parameters()) - network.embed.weight.numel() + config.dim
    rows = 2 * config.num_layers * config.num_kv_heads * config.head_dim
    size = dtype.itemsize
    return {"weights": weights * size, "cache": round(rows * (PREFIX + new / 2)) * size}


def memory_rate(config: TransformerConfig, dtype: torch.dtype, num_bytes: int, clock: Callable[[], float]) -> float:
    """Bytes per second of matrix-vector products over `num_bytes` of matrices [1024, width], plain or packed."""
    count = max(1, round(num_bytes / (MATRIX_ROWS * config.dim * dtype.itemsize)))
    matrices, x = [torch.randn(MATRIX_ROWS, config.dim).to(dtype) for _ in range(count)], torch.randn(1, config.dim).to(dtype)
    layers = [PackedLinear(matrix) for matrix in matrices]
    ways = (lambda: [F.linear(x, matrix) for matrix in matrices], lambda: [layer(x) for layer in layers])
    best = 0.0
    for way in ways:
        for _ in range(5):
            start = clock()
            way()
            best = max(best, sum(matrix.nbytes for matrix in matrices) / (clock() - start))
    return best


def spread(values: list[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


@torch.inference_mode()
def measure(config: TransformerConfig, dtype: torch.dtype, rounds: int, new: int, clock: Callable[[], float]) -> dict[str, Any]:
    named, read = decoders(config, dtype), token_bytes(config, dtype, new)
    tokens = {name: decode(WARM) for name, decode in named.items()}
    agree = {name: bool(torch.equal(tokens[name], tokens["transformers dynamic"])) for name in ("plain", "lean")}
    per_s: dict[str, list[float]] = {name: [] for name in named}
    allowed: list[float] = []
    for _ in range(rounds):
        for name, decode in named.items():
            start = clock()
            decode(new)
            per_s[name].append(new / (clock() - start))
        allowed.append(memory_rate(config, dtype, read["weights"], clock) / sum(read.values()))
    peers = [max(pair) for pair in zip(per_s["transformers dynamic"], per_s["transformers static"], strict=True)]
    return {
        "bytes_per_token": read,
        "same_tokens_as_the_peer": agree,
        "tokens_per_s": {name: spread(values) for name, values in per_s.items()},
        "tokens_per_s_that_memory_allows": spread(allowed),
        "memory_gb_per_s": spread([rate * sum(read.values()) / 1e9 for rate in allowed]),
        "over_the_peers_best_cache": {
            n: spread([a / b for a, b in zip(per_s[n], peers, strict=True)]) for n in ("lean", "cosmos")
        },
        "of_what_memory_allows": {
            n: spread([a / b for a, b in zip(per_s[n], allowed, strict=True)]) for n in ("lean", "cosmos")
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--new", type=int, default=192)
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=list(SHAPES))
    parser.add_argument("--dtypes", nargs="+", choices=DTYPES, default=list(DTYPES))
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("ar_decode_speed_cpu.json"))
    asked = parser.parse_args()
    load_before = os.getloadavg()[0]
    found = {}
    for shape in asked.shapes:
        for dtype in asked.dtypes:
            case = f"{shape} {dtype}"
            found[case] = measure(SHAPES[shape], DTYPES[dtype], asked.rounds, asked.new, CLOCKS[asked.clock])
            rates = {name: round(value["median"], 1) for name, value in found[case]["tokens_per_s"].items()}
            facts = {"rounds": asked.rounds, "new_tokens": asked.new, "clock": asked.clock, "threads": torch.get_num_threads()}
            load = {"load_average_before": load_before, "load_average_after": os.getloadavg()[0]}
            write_json(asked.out, {**provenance(), "benchmark": "autoregressive decode speed", **facts, **load, "cases": found})
            print(case, rates, "allowed", round(found[case]["tokens_per_s_that_memory_allows"]["median"], 1), flush=True)


if __name__ == "__main__":
    main()
