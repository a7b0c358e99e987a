"""RetinaFace on tiny random state dicts: published names, anchors and boxes in closed form, suppression, refusals."""

import numpy as np
import pytest
import torch

from worldfoundry.core.errors import CheckpointError
from worldfoundry.perception.retinaface import RetinaFace, anchors, decode, from_published, load_retinaface

# Some names of Resnet50_Final.pth (without `module.`), with the shapes that they have there.
PUBLISHED = {
    "body.conv1.weight": (64, 3, 7, 7),
    "body.layer1.0.downsample.0.weight": (256, 64, 1, 1),
    "body.layer3.5.bn3.running_var": (1024,),
    "body.layer4.2.conv2.weight": (512, 512, 3, 3),
    "fpn.output3.0.weight": (256, 2048, 1, 1),
    "fpn.merge2.1.bias": (256,),
    "ssh1.conv3X3.0.weight": (128, 256, 3, 3),
    "ssh2.conv5X5_1.1.weight": (64,),
    "ssh3.conv7x7_3.0.weight": (64, 64, 3, 3),
    "ClassHead.2.conv1x1.weight": (4, 256, 1, 1),
    "BboxHead.0.conv1x1.bias": (8,),
    "LandmarkHead.1.conv1x1.weight": (20, 256, 1, 1),
}


def tiny():
    torch.manual_seed(0)
    return RetinaFace(channels=(4, 4, 8, 8), blocks=(1, 1, 1, 1), width=8).eval()


def test_the_full_size_has_the_published_names_and_shapes():
    with torch.device("meta"):
        state = RetinaFace().state_dict()
    assert {name: tuple(state[name].shape) for name in PUBLISHED} == PUBLISHED
    assert len({name.split(".")[0] for name in state}) == 8


def test_anchors_stand_in_the_middle_of_their_cells():
    a = anchors(33, 64)
    assert len(a) == 2 * (5 * 8 + 3 * 4 + 2 * 2)
    assert a[0].tolist() == [4, 4, 16, 16]
    assert a[1].tolist() == [4, 4, 32, 32]
    assert a[2].tolist() == [12, 4, 16, 16]
    assert a[2 * 8].tolist() == [4, 12, 16, 16]
    assert a[-1].tolist() == [48, 48, 512, 512]


def test_boxes_are_anchors_moved_and_scaled():
    anchor = np.array([[50.0, 40.0, 16.0, 32.0]] * 3)
    moves = np.array([[0, 0, 0, 0], [10, -5, 0, 0], [0, 0, np.log(2) / 0.2, -np.log(2) / 0.2]])
    np.testing.assert_allclose(decode(moves, anchor), [[42, 24, 58, 56], [58, 8, 74, 40], [34, 32, 66, 48]])


def test_the_answers_come_in_the_order_of_the_anchors():
    net, x = tiny(), torch.rand(2, 3, 33, 64) * 255
    moves, p = net.answers(x)
    assert moves.shape == (2, len(anchors(33, 64)), 4)
    assert p.shape == (2, len(anchors(33, 64)))
    assert ((p > 0) & (p < 1)).all()


def test_of_anchors_that_overlap_one_is_left():
    """Made sure of everything, the network sees a face in every cell; suppression leaves every other one."""
    net = tiny()
    for head in (*net.ClassHead, *net.BboxHead):
        head.conv1x1.weight.data.zero_()
        head.conv1x1.bias.data.zero_()
    for head in net.ClassHead:
        head.conv1x1.bias.data[:] = torch.tensor([0.0, -9.0, 0.0, -9.0])  # never
    picture = np.zeros((2, 32, 32, 3), np.uint8)
    assert len(net(picture).scores_N) == 0
    net.ClassHead[0].conv1x1.bias.data[2:] = torch.tensor([0.0, 4.0])  # sides of 32 pixels, 8 apart
    faces = net(picture)
    assert faces.picture_N.tolist() == [0] * 8 + [1] * 8  # each overlaps its neighbour by 0.6, the diagonal one by 0.39
    assert faces.scores_N == pytest.approx(np.full(16, 1 / (1 + np.exp(-4))))
    assert faces.boxes_N4[:2].tolist() == [[-12, -12, 20, 20], [4, -12, 36, 20]]


def test_weights_are_read_from_a_pth_as_published_and_damage_is_named(tmp_path):
    net = tiny()
    torch.save({f"module.{name}": tensor for name, tensor in net.state_dict().items()}, tmp_path / "Resnet50_Final.pth")
    loaded, x = load_retinaface(tmp_path / "Resnet50_Final.pth"), torch.rand(1, 3, 32, 32) * 255
    torch.testing.assert_close(loaded.answers(x), net.answers(x))
    state = net.state_dict()
    del state["ssh2.conv5X5_1.1.weight"]
    with pytest.raises(CheckpointError, match=r"missing ssh2\.conv5X5_1\.1\.weight"):
        from_published(state)
    with pytest.raises(CheckpointError, match="no RetinaFace"):
        from_published({"conv.weight": torch.zeros(1)})
    with pytest.raises(CheckpointError, match="do not exist"):
        load_retinaface(tmp_path / "absent.pth")
    (tmp_path / "broken.pth").write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_retinaface(tmp_path / "broken.pth")
