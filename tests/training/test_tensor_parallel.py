"""Four processes that share matrices, batches and weights of an autoregressive model compute what one does."""

import pytest
import torch
import torch.multiprocessing
from ranks import method as diffusion_method
from tensor_ranks import RANKS, REFUSED, WAYS, first_step, steps, work

from worldfoundry.core.errors import UsageError
from worldfoundry.training.config import ParallelConfig
from worldfoundry.training.tensor_parallel import check_tensor_parallel

TIMEOUT_S = 300
ALONE = ParallelConfig()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("ranks")


@pytest.fixture(scope="module")
def four(folder):
    """What four ranks found; `one` is a state that a single process saved for them."""
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
def test_loss_and_gradients_are_those_of_one_process(four, way):
    close(four[0][f"first: {way}"], first_step(ALONE))


@pytest.mark.parametrize("way", ["to shards", "one to four"])
def test_a_run_goes_on_whoever_holds_what(four, uninterrupted, way):
    found = dict(four[0][way])
    torch.testing.assert_close(found.pop("losses"), uninterrupted["losses"][2:], rtol=1e-4, atol=1e-5)
    close(found, {name: value for name, value in uninterrupted.items() if name != "losses"})


def test_one_process_goes_on_from_split_matrices(four, folder, uninterrupted):
    found = steps(folder / "four", ALONE, 2, resume=True)
    torch.testing.assert_close(torch.cat([four[0]["saved"]["losses"], found.pop("losses")]), uninterrupted["losses"])
    close(found, {name: value for name, value in uninterrupted.items() if name != "losses"})


def test_what_does_not_divide_is_one_clear_line(four):
    said = four[0]["refused"]
    assert said.keys() == REFUSED.keys()
    assert said["ranks"].startswith("4 ranks do not divide into groups of 3 tensor ranks.")
    assert said["heads"].startswith("2 key and value heads do not divide among 4 tensor ranks.")
    assert said["hidden"].startswith("18 hidden units do not divide among 4 tensor ranks.")
    assert said["muon"].startswith("Muon needs whole matrices.")
    assert said["context"].startswith("Ranks share either tokens or matrices.")


def test_another_network_is_refused():
    with pytest.raises(UsageError, match="The matrices of this network cannot be split among ranks"):
        check_tensor_parallel(diffusion_method().module, 2)
