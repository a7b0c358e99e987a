"""What four processes do for `test_tensor_parallel.py`: every scenario once, the numbers left in files."""

from pathlib import Path

import torch
import torch.distributed as dist
from ranks import loop_config
from torch import nn

from worldfoundry.autoregressive.config import TransformerConfig
from worldfoundry.autoregressive.transformer import TextContext, Transformer
from worldfoundry.core.errors import UsageError
from worldfoundry.training.config import ParallelConfig, TokenLossConfig
from worldfoundry.training.distributed import distribute
from worldfoundry.training.loop import Trainer
from worldfoundry.training.methods.autoregressive import AutoregressiveMethod
from worldfoundry.training.streams import TensorStream

RANKS = 4
WAYS = {
    "shards": ParallelConfig(),
    "matrices in two, shards": ParallelConfig(tensor=2),
    "matrices in two, copies": ParallelConfig(tensor=2, shard=False),
    "matrices in two, shards, blocks computed again": ParallelConfig(tensor=2, activation_checkpointing=True),
    "matrices in four": ParallelConfig(tensor=4),
}
REFUSED = {
    "ranks": (ParallelConfig(tensor=3), {}, "adamw"),
    "heads": (ParallelConfig(tensor=4), {"num_kv_heads": 2}, "adamw"),
    "hidden": (ParallelConfig(tensor=4), {"ffn_hidden_size": 18}, "adamw"),
    "muon": (ParallelConfig(tensor=2), {}, "muon"),
    "context": (ParallelConfig(tensor=2, context=2), {}, "adamw"),
}


def method(**network):
    config = TransformerConfig(
        **{
            "vocab_size": 30, "dim": 16, "num_layers": 2, "num_heads": 4, "num_kv_heads": 4, "head_dim": 6,
            "ffn_hidden_size": 24, "latent_shape": (2, 2, 2), "max_seq_len": 16, "context_dim": 6, "bov": True, **network,
        }
    )  # fmt: skip
    transformer = Transformer(config)
    for i, parameter in enumerate(transformer.parameters()):
        nn.init.normal_(parameter, std=0.2, generator=torch.Generator().manual_seed(i))
    g = torch.Generator().manual_seed(5)
    texts = TextContext(rows_BMD=torch.randn(3, 4, 6, generator=g), mask_BM=torch.rand(3, 4, generator=g) < 0.7)
    texts.mask_BM[:, 0] = True
    return AutoregressiveMethod(transformer, TokenLossConfig(z_weight=0.01, text_dropout=0.3), texts)


def stream():
    g = torch.Generator().manual_seed(1)
    return TensorStream(
        {"indices": torch.randint(0, 30, (10, 2, 2, 2), generator=g), "caption": torch.arange(10) % 3}, 4, seed=0
    )


def first_step(parallel):
    """Loss, gradient norm and clipped gradients of one step, gradients put together on main."""
    what, data, config = method(), stream(), loop_config(parallel)
    ranks, data = distribute(what, data, config)
    output = what.training_step(data.next_batch(), torch.Generator().manual_seed(0))
    output.loss.backward()
    norm = ranks.clip_gradients(what.module, config.optim.clip_grad_norm)
    loss = ranks.mean({"loss": float(output.loss.detach())})["loss"]
    gradients = ranks.whole({name: p.grad for name, p in what.module.named_parameters()})
    return {"loss": torch.tensor(loss), "norm": torch.tensor(norm), **gradients}


def steps(run, parallel, count, save=False, resume=False):
    """Train `count` steps; returns the losses and the whole average at the end."""
    trainer = Trainer(method(), stream(), loop_config(parallel), run)
    if resume:
        assert trainer.resume()
    trainer.prepare()
    losses = [trainer.run_step()["loss"] for _ in range(count)]
    if save:
        trainer.save()
    return {"losses": torch.tensor(losses), "step": torch.tensor(trainer.step), **trainer.whole_ema().average}


def refusals():
    said = {}
    for name, (parallel, network, optimizer) in REFUSED.items():
        try:
            distribute(method(**network), stream(), loop_config(parallel, optimizer=optimizer))
        except UsageError as error:
            said[name] = str(error)
    return said


def work(rank, folder):
    """One rank of four."""
    folder = Path(folder)
    torch.set_num_threads(1)
    dist.init_process_group("gloo", store=dist.FileStore(str(folder / "store"), RANKS), rank=rank, world_size=RANKS)
    found = {f"first: {name}": first_step(parallel) for name, parallel in WAYS.items()}
    found["saved"] = steps(folder / "four", ParallelConfig(tensor=2), 2, save=True)
    found["to shards"] = steps(folder / "four", ParallelConfig(), 2, resume=True)
    found["one to four"] = steps(folder / "one", ParallelConfig(tensor=2), 2, resume=True)
    found["refused"] = refusals()
    torch.save(found, folder / f"rank{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()
