"""MTCNN: the three networks give the published implementation's numbers, crops are adaptive pooling, faces are found in their place."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from drawn_face import FACE, scene

from worldfoundry.core import shipped
from worldfoundry.core.errors import CheckpointError
from worldfoundry.perception.boxes import overlaps
from worldfoundry.perception.mtcnn import Faces, _crops, from_published, load_mtcnn


@pytest.fixture(scope="module")
def net():
    return load_mtcnn()


def test_the_networks_give_the_published_numbers(net):
    """facenet-pytorch 2.6.0 on the same noise: the first corrections, their absolute sum, and the sum of the probabilities."""
    generator = torch.Generator().manual_seed(0)
    torch.rand(2, 3, 8, 8, generator=generator)
    noise = torch.rand(2, 3, 48, 48, generator=generator) * 2 - 1
    expected = {
        "pnet": ([0.16267, 0.18574, 0.253577, 0.288767], 51.06244, 1.053703),
        "rnet": ([0.108923, 0.109611, -0.161053, 0.091491], 0.77487, 0.017975),
        "onet": ([0.135601, 0.03836, -0.096531, -0.012916], 0.52994, 0.002453),
    }
    for name, (first, absolute, probability) in expected.items():
        corrections, p = getattr(net, name)(noise if name == "onet" else noise[:, :, :24, :24])
        np.testing.assert_allclose(corrections.flatten()[:4], first, atol=2e-6)
        assert corrections.double().abs().sum().item() == pytest.approx(absolute, abs=2e-4)
        assert p.double().sum().item() == pytest.approx(probability, abs=2e-6)


def test_crops_are_adaptive_averages_of_the_part_inside_the_picture():
    x = torch.randint(0, 256, (2, 3, 40, 50), generator=torch.Generator().manual_seed(0)).float()
    boxes = np.array([[3.7, 5.2, 33.9, 31.1], [-8, -3, 20.5, 25], [40, 30, 70, 60], [60, 5, 80, 25]])
    faces = Faces(boxes_N4=boxes, scores_N=np.ones(4), picture_N=np.array([0, 1, 1, 0]))
    crops, inside = _crops(F.pad(x.double().cumsum(2).cumsum(3), (1, 0, 1, 0)), faces, 24)
    assert inside.tolist() == [True, True, True, False]
    parts = (x[0, :, 4:31, 2:33], x[1, :, 0:25, 0:20], x[1, :, 29:40, 39:50])  # the boxes count pixels from 1
    for crop, part in zip(crops, parts, strict=True):
        torch.testing.assert_close(crop, F.adaptive_avg_pool2d(part[None], 24)[0])


@pytest.mark.parametrize("size", [48, 96])
def test_a_face_is_found_where_it_is_and_at_no_other_place(net, size):
    pictures = np.stack([scene(160, 200, [(60, 30, size)]), scene(160, 200, []), scene(160, 200, [(10, 20, size)])])
    faces = net(pictures)
    assert [len(faces.of(i)) for i in range(3)] == [1, 0, 1]
    for i, corner in ((0, (60, 30)), (2, (10, 20))):
        truth = np.tile(corner, 2) + size * FACE
        assert overlaps(faces.of(i)[:, :4], truth[None])[0, 0] > 0.6
        assert faces.of(i)[0, 4] > 0.9


def test_several_pictures_at_once_are_as_each_alone(net):
    pictures = np.stack([scene(90, 120, [(5, 5, 60)]), scene(90, 120, [(50, 20, 64)])])
    together = net(pictures)
    for i in range(2):
        np.testing.assert_allclose(together.of(i), net(pictures[i : i + 1]).of(0), atol=1e-3)


def test_a_picture_smaller_than_a_face_holds_none(net):
    assert len(net(np.zeros((1, 8, 8, 3), np.uint8)).scores_N) == 0
    assert len(net(np.zeros((1, 30, 30, 3), np.uint8)).of(0)) == 0


def test_a_missing_tensor_is_named(net):
    state = {name: tensor for name, tensor in net.state_dict().items() if name != "rnet.dense4.bias"}
    with pytest.raises(CheckpointError, match=r"missing rnet\.dense4\.bias"):
        from_published(state)


@pytest.mark.parametrize("damage", ["absent", "changed"])
def test_weights_that_are_not_the_packaged_ones_are_refused(tmp_path, monkeypatch, damage):
    monkeypatch.setattr(shipped, "WEIGHTS", tmp_path)
    if damage == "changed":
        (tmp_path / "mtcnn").mkdir()
        (tmp_path / "mtcnn" / "model.safetensors").write_bytes(b"other")
    with pytest.raises(CheckpointError, match="missing" if damage == "absent" else "SHA-256"):
        load_mtcnn()
