"""Tokens per second of the autoregressive network on a CPU, against transformers' `generate` and against the memory's rate.

    python benchmarks/ar_decode_speed.py [--rounds 5] [--new 192] [--clock wall|cpu] [--world nano-ar --clips VIDEO ...]

Two shapes, 22 M parameters and nano's, batch 1, greedy. The peer is a LlamaForCausalLM in float32 and in bfloat16 with its dynamic
and its static cache; ours has the same weights and no QK-norm, as a Llama has none; in float32 as trained (`plain`), and
`for_decoding()` (`lean`) in float32, bfloat16 and with the blocks' weights in 8 bits beside bfloat16. `cosmos` is the lean network
with QK-norm and 3-D positions. All run in one process, one after the other, in every round, so that a ratio is one of neighbours.
What the memory allows is measured in the same rounds: the bytes of a token (weights that are read and keys and values of half the
new tokens) over the rate of products of one row with matrices of the network's width, as many bytes in all, the better of plain and
packed, each the mean of several passes as a token is one of several. How far weights of fewer bits take the network is told by its
own random weights: greedy tokens in common with float32, and the mean Kullback-Leibler divergence from float32 in nats, of a prefix.
With --world and --clips also by a trained world's, on whole videos: the same divergence, the cross-entropy of the videos' own tokens,
and how often the likeliest next token is float32's.
Run it on an otherwise idle machine with OMP_NUM_THREADS set to its cores; on a busy one `--clock cpu` counts processor time.
"""

import argparse
import copy
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import worldfoundry as wf
from worldfoundry.autoregressive.cache import KVCache
from worldfoundry.autoregressive.config import TransformerConfig, ar_size
from worldfoundry.autoregressive.decoding import generate
from worldfoundry.autoregressive.sampling import Sampling
from worldfoundry.autoregressive.transformer import Transformer
from worldfoundry.core.files import write_json
from worldfoundry.core.provenance import provenance
from worldfoundry.inference.ar_world import AutoregressiveWorld
from worldfoundry.inference.conditions import to_unit_range
from worldfoundry.inference.frames import read_prefix
from worldfoundry.nn.int8 import Int8Linear, quantize_linears
from worldfoundry.nn.packed import PackedLinear

MIDDLE = TransformerConfig(
    vocab_size=1000, dim=512, num_layers=7, num_heads=8, num_kv_heads=4, head_dim=64, ffn_hidden_size=1408,
    latent_shape=(5, 8, 8), max_seq_len=320,
)  # fmt: skip
SHAPES = {"22M": MIDDLE, "nano": ar_size("nano").replace(medusa_heads=0)}
PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "int8": torch.bfloat16}
"""Of activations and cache; int8: the blocks' weights alone."""
CACHES = ("dynamic", "static")
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
PREFIX, WARM, MATRIX_ROWS, RATE_WARM, RATE_PASSES = 64, 8, 1024, 3, 12
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
            rms_norm_eps=config.norm_eps, rope_theta=config.rope_theta, tie_word_embeddings=False, bos_token_id=None,  # type: ignore[call-arg]
            eos_token_id=None,
        )
    )  # fmt: skip
    for name, tensor in network.state_dict().items():
        first, *rest = name.removesuffix(".weight").split(".", 2)
        theirs = f"model.layers.{rest[0]}.{LAYER[rest[1]]}" if first == "blocks" else TOP[first]
        state[f"{theirs}.weight"] = tensor[: config.vocab_size] if first == "embed" else tensor
    peer.load_state_dict(state, strict=True)
    return peer.eval()


def networks(config: TransformerConfig) -> dict[str, Transformer]:
    """Ours by name, in each precision from the same float32 weights."""
    made = {}
    for kind, variant in (("", config.replace(rope="1d", qk_norm=False)), ("cosmos ", config)):
        for precision in PRECISIONS:
            network = Transformer(variant).to(PRECISIONS[precision]).eval()
            if precision == "int8":
                quantize_linears(network.blocks)
            if not kind and precision == "float32":
                made["plain float32"] = network
            made[f"{kind or 'lean '}{precision}"] = network.for_decoding()
    return made


def decoders(config: TransformerConfig, ours: dict[str, Transformer]) -> dict[str, Decode]:
    """Name → a function from a number of new tokens to these tokens, all from the same prefix."""
    prefix, same = torch.arange(PREFIX)[None], ours["plain float32"]

    def theirs(peer: nn.Module, cache: str) -> Decode:
        def decode(count: int) -> Tensor:
            options: dict[str, Any] = {"max_new_tokens": count, "do_sample": False, "pad_token_id": 0}
            options |= {"cache_implementation": cache, "attention_mask": torch.ones_like(prefix)}
            return peer.generate(prefix, **options)[:, PREFIX:]  # type: ignore[operator]

        return decode

    def own(network: Transformer) -> Decode:
        def decode(count: int) -> Tensor:
            greedy, generators = Sampling(temperature=0), [torch.Generator()]
            return torch.cat(list(generate(network, prefix, count, sampling=greedy, generators=generators)), dim=1)

        return decode

    peers = {
        f"transformers {cache} {precision}": theirs(llama(same).to(dtype), cache)
        for precision, dtype in PRECISIONS.items()
        for cache in CACHES
        if precision != "int8"
    }
    return {**peers, **{name: own(network) for name, network in ours.items()}}


def token_bytes(config: TransformerConfig, precision: str, new: int) -> dict[str, int]:
    """What one new token reads: every weight but the embedding's other rows, keys and values of the tokens before it."""
    with torch.device("meta"):
        network = Transformer(config)
    blocks, size = sum(p.numel() for p in network.blocks.parameters()), PRECISIONS[precision].itemsize
    rest = network.norm.weight.numel() + network.unembed.weight.numel() + config.dim
    rows = 2 * config.num_layers * config.num_kv_heads * config.head_dim
    weights = blocks * (1 if precision == "int8" else size) + rest * size
    return {"weights": weights, "cache": round(rows * (PREFIX + new / 2)) * size}


def memory_rate(config: TransformerConfig, precision: str, num_bytes: int, clock: Callable[[], float]) -> float:
    """Bytes per second of matrix-vector products over `num_bytes` of matrices [1024, width], plain or packed."""
    dtype = PRECISIONS[precision]
    size = 1 if precision == "int8" else dtype.itemsize
    count = max(1, round(num_bytes / (MATRIX_ROWS * config.dim * size)))
    plain = [nn.Linear(config.dim, MATRIX_ROWS, bias=False, dtype=dtype) for _ in range(count)]
    other = Int8Linear if precision == "int8" else lambda layer: PackedLinear(layer.weight)
    ways, x, best = [[other(layer) for layer in plain]], torch.randn(1, config.dim).to(dtype), 0.0
    ways += [] if precision == "int8" else [plain]
    for layers in ways:
        for _ in range(RATE_WARM):
            [layer(x) for layer in layers]
        start = clock()
        for _ in range(RATE_PASSES):
            [layer(x) for layer in layers]
        best = max(best, RATE_PASSES * count * MATRIX_ROWS * config.dim * size / (clock() - start))
    return best


def spread(values: list[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def distance(ours: dict[str, Transformer], tokens_BL: Tensor) -> dict[str, float]:
    """Mean KL(float32 ‖ other precision) of the next token, in nats, by network."""
    found = {}
    for name, network in ours.items():
        kind, precision = name.rsplit(" ", 1)
        if precision != "float32":
            truth, other = (which(tokens_BL).float().log_softmax(-1) for which in (ours[f"{kind} float32"], network))
            found[name] = float((truth.exp() * (truth - other)).sum(-1).mean())
    return found


@torch.inference_mode()
def measure(config: TransformerConfig, rounds: int, new: int, clock: Callable[[], float]) -> dict[str, Any]:
    ours = networks(config)
    named, read = decoders(config, ours), {name: token_bytes(config, name, new) for name in PRECISIONS}
    tokens = {name: decode(WARM) for name, decode in named.items()}
    truth = {"lean": tokens["plain float32"], "plain": tokens["plain float32"], "cosmos": tokens["cosmos float32"]}
    per_s: dict[str, list[float]] = {name: [] for name in named}
    allowed: dict[str, list[float]] = {name: [] for name in PRECISIONS}
    for _ in range(rounds):
        for name, decode in named.items():
            start = clock()
            decode(new)
            per_s[name].append(new / (clock() - start))
        for name, num_bytes in read.items():
            allowed[name].append(memory_rate(config, name, num_bytes["weights"], clock) / sum(num_bytes.values()))
    best = {
        precision: [max(pair) for pair in zip(*(per_s[f"transformers {c} {precision}"] for c in CACHES), strict=True)]
        for precision in ("float32", "bfloat16")
    }
    return {
        "bytes_per_token": read,
        "tokens_per_s": {name: spread(values) for name, values in per_s.items()},
        "tokens_per_s_that_memory_allows": {name: spread(values) for name, values in allowed.items()},
        "memory_gb_per_s": {n: spread([v * sum(read[n].values()) / 1e9 for v in allowed[n]]) for n in PRECISIONS},
        "over_transformers_best_cache_in_float32": {n: ratio(per_s[n], best["float32"]) for n in ours},
        "over_transformers_best_cache_in_bfloat16": {n: ratio(per_s[n], best["bfloat16"]) for n in ours},
        "of_what_memory_allows": {n: ratio(per_s[n], allowed[n.rsplit(" ", 1)[1]]) for n in ours},
        "share_of_greedy_tokens_as_in_float32": {
            n: float((tokens[n] == truth.get(n.split()[0], truth["plain"])).float().mean()) for n in named
        },
        "kl_from_float32_nats": distance(ours, torch.arange(PREFIX)[None]),
    }


@torch.inference_mode()
def trained(name: str, clips: list[Path]) -> dict[str, Any]:
    """What fewer bits cost a trained world on videos, of which the last frames that fill its context are read."""
    world = wf.load(name, dtype="float32")
    assert isinstance(world, AutoregressiveWorld)
    size, given = (world.config.height, world.config.width), world.network.config.tokens_per_frame
    frames = (world.network.config.latent_shape[0] - 1) * world.tokenizer.spec.t + 1
    videos = [to_unit_range(read_prefix(clip, frames, *size)[None], world.device) for clip in clips]
    tokens_BL = torch.cat([world.tokenizer.encode_indices(video).long().flatten(1) for video in videos])
    truth, found = None, {}
    for precision, dtype in PRECISIONS.items():
        network = copy.deepcopy(world.network).to(dtype)
        if precision == "int8":
            quantize_linears(network.blocks)
        lean, cache = network.for_decoding(), KVCache.empty(network.config, 1, tokens_BL.shape[1], dtype)
        rows = []
        for token_L in tokens_BL:  # one token at a time, as in decoding, where other kernels compute than for many at once
            cache.truncate(0)
            lean(token_L[None, :given], None, cache)
            rows.append(torch.cat([lean(token[None, None], None, cache) for token in token_L[given:-1]], dim=1))
        log_p = torch.cat(rows).float().log_softmax(-1)
        truth = log_p if truth is None else truth
        found[precision] = {
            "kl_from_float32_nats": float((truth.exp() * (truth - log_p)).sum(-1).mean()),
            "cross_entropy_nats": float(-log_p.gather(-1, tokens_BL[:, given + 1 :, None]).mean()),
            "likeliest_token_as_in_float32": float((log_p.argmax(-1) == truth.argmax(-1)).float().mean()),
        }
    return {"world": Path(name).name, "videos": len(clips), "tokens": tokens_BL[:, given + 1 :].numel(), "precisions": found}


def ratio(ours: list[float], others: list[float]) -> dict[str, float]:
    return spread([a / b for a, b in zip(ours, others, strict=True)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--new", type=int, default=192)
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    parser.add_argument("--world", default=None, help="a world folder or shipped name")
    parser.add_argument("--clips", type=Path, nargs="+", default=[], help="held-out videos")
    parser.add_argument("--shapes", nargs="*", choices=SHAPES, default=list(SHAPES))
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("ar_decode_speed_cpu.json"))
    asked = parser.parse_args()
    load_before = os.getloadavg()[0]
    found, scores = {}, trained(asked.world, asked.clips) if asked.world and asked.clips else None
    if scores:
        print(scores, flush=True)
    for shape in asked.shapes:
        found[shape] = measure(SHAPES[shape], asked.rounds, asked.new, CLOCKS[asked.clock])
        facts = {"rounds": asked.rounds, "new_tokens": asked.new, "clock": asked.clock, "threads": torch.get_num_threads()}
        load = {"load_average_before": load_before, "load_average_after": os.getloadavg()[0]}
        write_json(
            asked.out,
            {**provenance(), "benchmark": "autoregressive decode speed", **facts, **load, "shapes": found, "trained": scores},
        )
        print(shape, {name: round(value["median"], 1) for name, value in found[shape]["tokens_per_s"].items()}, flush=True)


if __name__ == "__main__":
    main()
