"""Two processes compute what one does: over the batch, over tokens, with shards, through saved state and back."""

import os
import subprocess
import sys
import textwrap

import pytest
import torch
import torch.multiprocessing
from ranks import RANKS, REFUSED, WAYS, first_step, steps, work

from worldfoundry.core.errors import CheckpointError, UsageError
from worldfoundry.training.config import ParallelConfig
from worldfoundry.training.method import Share
from worldfoundry.training.state import SHARDS, TENSORS, load_state

TIMEOUT_S = 300
ALONE = ParallelConfig()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("ranks")


@pytest.fixture(scope="module")
def two(folder):
    """What two ranks found; `one` is a state that a single process saved for them."""
    steps(folder / "one", ALONE, 2, save=True)
    started = torch.multiprocessing.spawn(work, (str(folder),), nprocs=RANKS, join=False)
    while not started.join(timeout=TIMEOUT_S):
        pass
    return [torch.load(folder / f"rank{rank}.pt", weights_only=True) for rank in range(RANKS)]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    return steps(tmp_path_factory.mktemp("whole"), ALONE, 4)


def close(found, expected):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-5, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize("way", WAYS)
def test_loss_and_gradients_are_those_of_one_process(two, way):
    close(two[0][f"first: {way}"], first_step(ALONE))


def test_computing_blocks_again_changes_nothing():
    plain, again = first_step(ALONE), first_step(ParallelConfig(activation_checkpointing=True))
    assert all(torch.equal(plain[name], again[name]) for name in plain)


@pytest.mark.parametrize("way", ["two to two", "one to two", "sharded to copies"])
def test_two_ranks_go_on_from_any_state(two, uninterrupted, way):
    found, losses = dict(two[0][way]), uninterrupted["losses"]
    torch.testing.assert_close(found.pop("losses"), losses[2:], rtol=1e-4, atol=1e-5)
    close(found, {name: value for name, value in uninterrupted.items() if name != "losses"})


def test_one_process_goes_on_from_shards(two, folder, uninterrupted):
    saved = (folder / "two" / "checkpoints" / "last").resolve()
    assert (saved / SHARDS).exists()
    assert not (saved / TENSORS).exists()
    found = steps(folder / "two", ALONE, 2, resume=True)
    torch.testing.assert_close(torch.cat([two[0]["saved"]["losses"], found.pop("losses")]), uninterrupted["losses"])
    close(found, {name: value for name, value in uninterrupted.items() if name != "losses"})


def test_only_main_holds_the_whole_average(two):
    assert two[1]["saved"].keys() == {"losses", "step"}
    assert torch.equal(two[0]["saved"]["losses"], two[1]["saved"]["losses"])


def test_who_knows_of_no_shares_still_sees_its_own_rows_and_noise(two):
    for mine, theirs in zip(*(found["unaware"]["seen"] for found in two), strict=True):
        assert torch.equal(mine["x"] + 6, theirs["x"])  # rows 0, 1 and rows 2, 3
        assert not torch.equal(mine["noise"], theirs["noise"])
    for name, weight in two[0]["unaware"]["weights"].items():
        assert torch.equal(weight, two[1]["unaware"]["weights"][name])


def test_what_does_not_divide_is_one_clear_line(two):
    said = two[0]["refused"]
    assert said == two[1]["refused"]
    assert said.keys() == REFUSED.keys()
    assert said["ranks"].startswith("2 ranks do not divide into groups of 4 context ranks.")
    assert said["heads"].startswith("1 heads do not divide among 2 context ranks. Use --loop.parallel.context-mode ring")
    assert said["rows"].startswith("A batch of 3 does not divide among 2 data ranks.")
    assert said["patches"].startswith("The 1 patches of a latent frame do not divide among 2 context ranks.")
    assert said["muon"].startswith("Muon needs whole matrices.")
    assert not any("\n" in line for line in said.values())


def test_main_goes_first(two):
    assert [found["order"] for found in two] == [False, True]


def test_shares_are_the_rows_in_order():
    rows = torch.arange(6)
    assert torch.equal(torch.cat([Share(index=i, count=3).of(rows) for i in range(3)]), rows)
    assert Share().of(rows) is rows
    with pytest.raises(UsageError, match="6 does not divide among 4"):
        Share(index=0, count=4).of(rows)


SCRIPT = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
import torch.distributed as dist
import worldfoundry.training.state as state
from ranks import loop_config, method, stream
from worldfoundry.training.config import ParallelConfig
from worldfoundry.training.loop import train

save, saved = state.dcp.save, []

def dies_in_the_third(tensors, checkpoint_id):
    saved.append(checkpoint_id)
    if len(saved) == 3 and dist.get_rank() == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    save(tensors, checkpoint_id=checkpoint_id)

state.dcp.save = dies_in_the_third
config = loop_config(ParallelConfig()).replace(save_every_s=1e-9, log_every=1)
train(method(), stream(), config, Path({run!r}))
"""


def test_a_rank_killed_in_the_midst_of_a_save_loses_that_save_alone(tmp_path, uninterrupted):
    script, run = tmp_path / "script.py", tmp_path / "run"
    script.write_text(textwrap.dedent(SCRIPT.format(tests=os.path.dirname(__file__), run=str(run))))
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script)]
    done = subprocess.run(torchrun, capture_output=True, text=True, timeout=TIMEOUT_S)
    assert done.returncode != 0
    assert os.readlink(run / "checkpoints" / "last") == "step_00000002", done.stderr
    assert load_state(run)[1]["step"] == 2
    assert len((run / "metrics.jsonl").read_text().splitlines()) == 3  # main's alone
    found = steps(run, ALONE, 2, resume=True)
    torch.testing.assert_close(found.pop("losses"), uninterrupted["losses"][2:], rtol=1e-4, atol=1e-5)
    close(found, {name: value for name, value in uninterrupted.items() if name != "losses"})
    (run / "checkpoints" / "last" / "__0_0.distcp").write_bytes(b"damage")
    with pytest.raises(CheckpointError, match="is damaged") as caught:
        load_state(run)
    assert "\n" not in caught.value.message
