"""What two processes do for `test_distributed.py`: every scenario once, the numbers left in files.

Starting a process costs seconds, so one pair of them runs everything.
"""

from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn

from worldfoundry.core.errors import UsageError
from worldfoundry.diffusion.config import DiTConfig
from worldfoundry.diffusion.dit import DiT
from worldfoundry.training.config import DiffusionLossConfig, LoopConfig, OptimConfig, ParallelConfig
from worldfoundry.training.distributed import distribute, is_main, main_first
from worldfoundry.training.loop import Trainer
from worldfoundry.training.method import StepOutput
from worldfoundry.training.methods.diffusion import DiffusionMethod
from worldfoundry.training.streams import TensorStream

RANKS = 2
WAYS = {
    "copies": ParallelConfig(shard=False),
    "sharded": ParallelConfig(),
    "sharded, blocks computed again": ParallelConfig(activation_checkpointing=True),
    "ulysses": ParallelConfig(context=2, context_mode="ulysses"),
    "ring": ParallelConfig(context=2, context_mode="ring"),
    "ring of copies, blocks computed again": ParallelConfig(
        context=2, context_mode="ring", shard=False, activation_checkpointing=True
    ),
}
REFUSED = {
    "ranks": (ParallelConfig(context=4), {}, {}),
    "heads": (ParallelConfig(context=2), {"num_heads": 1, "model_channels": 16}, {}),
    "rows": (ParallelConfig(), {}, {"batch_size": 3}),
    "patches": (ParallelConfig(context=2), {}, {"size": 2}),
    "muon": (ParallelConfig(), {}, {"optimizer": "muon"}),
}


def loop_config(parallel, steps=4, optimizer="adamw"):
    # A large epsilon keeps a step from amplifying the rounding of a gradient near zero into a different sign.
    optim = OptimConfig(name=optimizer, lr=0.01, eps=0.1, warmup_steps=0, clip_grad_norm=0.5)
    return LoopConfig(steps=steps, precision="float32", compile="off", optim=optim, parallel=parallel)


def method(**network):
    config = DiTConfig(
        **{
            "in_channels": 3, "out_channels": 3, "model_channels": 32, "num_blocks": 2, "num_heads": 2,
            "crossattn_emb_channels": 8, "adaln_lora_dim": 4, "max_frames": 3, "max_h": 4, "max_w": 4,
            "condition_mask": True, "action_dim": 6, "prefix_context": True, "uncertainty": True, **network,
        }
    )  # fmt: skip
    dit = DiT(config)
    for i, parameter in enumerate(dit.parameters()):
        nn.init.normal_(parameter, std=0.1, generator=torch.Generator().manual_seed(i))
    contexts = torch.randn(2, 3, 8, generator=torch.Generator().manual_seed(5))
    return DiffusionMethod(dit, DiffusionLossConfig(uncertainty=True), contexts, fps=12)


def stream(batch_size=4, size=4):
    g = torch.Generator().manual_seed(1)
    rows = {
        "latents": torch.randn(10, 3, 3, size, size, generator=g),
        "caption": torch.arange(10) % 2,
        "actions": torch.randn(10, 3, 6, generator=g),
    }
    return TensorStream(rows, batch_size, seed=0)


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


class Noise:
    """A method that knows of no shares: its noise comes from the generator, its dropout from torch's own."""

    def __init__(self):
        torch.manual_seed(1)
        self.module = nn.Sequential(nn.Linear(3, 8), nn.Dropout(0.5), nn.Linear(8, 1))
        self.seen = []

    def training_step(self, batch, generator):
        noise = torch.randn(batch["y"].shape, generator=generator)
        self.seen.append({"x": batch["x"], "noise": noise})
        return StepOutput(loss=(self.module(batch["x"]) - batch["y"] - noise).square().mean())

    def compile(self):
        raise AssertionError("not asked for")


class PlainStream:
    """A stream that knows of no shares."""

    def __init__(self):
        self.drawn = 0

    def next_batch(self):
        self.drawn += 1
        x = torch.arange(12.0).view(4, 3) + 100 * self.drawn
        return {"x": x, "y": x.sum(1, keepdim=True)}

    def state_dict(self):
        return {"drawn": self.drawn}

    def load_state_dict(self, state):
        self.drawn = state["drawn"]


def unaware(run):
    """What each rank saw and has in the end, with neither method nor stream knowing of shares."""
    what = Noise()
    trainer = Trainer(what, PlainStream(), loop_config(ParallelConfig()), run)
    what.module.train()
    for _ in range(2):
        trainer.run_step()
    return {"seen": what.seen, "weights": what.module.state_dict()}


def refusals():
    said = {}
    for name, (parallel, network, how) in REFUSED.items():
        how = dict(how)
        config = loop_config(parallel, optimizer=how.pop("optimizer", "adamw"))
        what = method(**network)
        try:
            _, data = distribute(what, stream(**how), config)
            what.training_step(data.next_batch(), torch.Generator().manual_seed(0))
        except UsageError as error:
            said[name] = str(error)
    return said


def order(folder):
    """Whether main wrote before the other looked."""
    with main_first():
        found = (folder / "made").exists()
        (folder / "made").touch()
    return found


def work(rank, folder):
    """One rank of two."""
    folder = Path(folder)
    torch.set_num_threads(1)
    store = dist.FileStore(str(folder / "store"), RANKS)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=RANKS)
    found = {f"first: {name}": first_step(parallel) for name, parallel in WAYS.items()}
    found["saved"] = steps(folder / "two", ParallelConfig(), 2, save=True)
    found["two to two"] = steps(folder / "two", ParallelConfig(context=2, context_mode="ring"), 2, resume=True)
    found["one to two"] = steps(folder / "one", ParallelConfig(), 2, resume=True)
    found["sharded to copies"] = steps(folder / "two", ParallelConfig(shard=False), 2, resume=True)
    found["unaware"] = unaware(folder / "unaware")
    found["refused"] = refusals()
    found["order"] = order(folder)
    assert is_main() == (rank == 0)
    torch.save(found, folder / f"rank{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()
