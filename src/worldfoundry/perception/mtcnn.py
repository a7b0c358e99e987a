"""MTCNN (arXiv 1604.02878): where faces are, by three small networks, each of which looks closer at what the one before proposed.

P-Net slides over a pyramid of the picture and proposes; R-Net (24 x 24 pixels) and O-Net (48 x 48) judge and correct each
proposal. Pixels go in as (byte - 127.5) / 128. Weights: facenet-pytorch, whose numbers this file gives (its boxes are 1-based
where it cuts crops, which is kept).
Legend: B pictures, C channels, H height, W width, N boxes (left, top, right, bottom).
"""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from worldfoundry.core.checkpoint import fill
from worldfoundry.perception.boxes import best_boxes
from worldfoundry.perception.packaged import read_packaged

NAME = "mtcnn"
SHA256 = "45209c89a01a216d7ae9baf3fa8e506dfb0e8ff1269007ce26e28338a9148cd3"
CELL, STRIDE = 12, 2  # pixels of the scaled picture that P-Net sees at once, and between its answers
SHRINK = 0.709  # from one picture of the pyramid to the next: half the area
PROPOSE, JUDGE = 0.6, 0.7  # what P-Net and R-Net must say for a box to go on


@dataclass(frozen=True, kw_only=True)
class Faces:
    """Boxes in pixels (float, they may reach over the edge), with the picture that each is in and its probability."""

    boxes_N4: np.ndarray
    scores_N: np.ndarray
    picture_N: np.ndarray

    def of(self, picture: int) -> np.ndarray:
        """(n, 5): boxes and scores of one picture."""
        mine = self.picture_N == picture
        return np.column_stack((self.boxes_N4[mine], self.scores_N[mine]))


class PNet(nn.Module):
    """[B, 3, H, W] → corrections [B, 4, h, w] and probability [B, h, w] of a face in each 12 x 12 cell, 2 pixels apart."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.prelu1 = nn.Conv2d(3, 10, 3), nn.PReLU(10)
        self.conv2, self.prelu2 = nn.Conv2d(10, 16, 3), nn.PReLU(16)
        self.conv3, self.prelu3 = nn.Conv2d(16, 32, 3), nn.PReLU(32)
        self.conv4_1, self.conv4_2 = nn.Conv2d(32, 2, 1), nn.Conv2d(32, 4, 1)

    def forward(self, x_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        x_BCHW = F.max_pool2d(self.prelu1(self.conv1(x_BCHW)), 2, 2, ceil_mode=True)
        x_BCHW = self.prelu3(self.conv3(self.prelu2(self.conv2(x_BCHW))))
        return self.conv4_2(x_BCHW), self.conv4_1(x_BCHW).softmax(1)[:, 1]


class RNet(nn.Module):
    """[N, 3, 24, 24] → corrections [N, 4] and probability [N]."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.prelu1 = nn.Conv2d(3, 28, 3), nn.PReLU(28)
        self.conv2, self.prelu2 = nn.Conv2d(28, 48, 3), nn.PReLU(48)
        self.conv3, self.prelu3 = nn.Conv2d(48, 64, 2), nn.PReLU(64)
        self.dense4, self.prelu4 = nn.Linear(576, 128), nn.PReLU(128)
        self.dense5_1, self.dense5_2 = nn.Linear(128, 2), nn.Linear(128, 4)

    def forward(self, x_NCHW: Tensor) -> tuple[Tensor, Tensor]:
        x_NCHW = F.max_pool2d(self.prelu1(self.conv1(x_NCHW)), 3, 2, ceil_mode=True)
        x_NCHW = F.max_pool2d(self.prelu2(self.conv2(x_NCHW)), 3, 2, ceil_mode=True)
        x_NCHW = self.prelu3(self.conv3(x_NCHW))
        x_ND = self.prelu4(self.dense4(x_NCHW.transpose(1, 3).flatten(1)))  # the weights count W first, channels last
        return self.dense5_2(x_ND), self.dense5_1(x_ND).softmax(1)[:, 1]


class ONet(nn.Module):
    """[N, 3, 48, 48] → corrections [N, 4] and probability [N]; the five points of a face (`dense6_3`) are not computed."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.prelu1 = nn.Conv2d(3, 32, 3), nn.PReLU(32)
        self.conv2, self.prelu2 = nn.Conv2d(32, 64, 3), nn.PReLU(64)
        self.conv3, self.prelu3 = nn.Conv2d(64, 64, 3), nn.PReLU(64)
        self.conv4, self.prelu4 = nn.Conv2d(64, 128, 2), nn.PReLU(128)
        self.dense5, self.prelu5 = nn.Linear(1152, 256), nn.PReLU(256)
        self.dense6_1, self.dense6_2, self.dense6_3 = nn.Linear(256, 2), nn.Linear(256, 4), nn.Linear(256, 10)

    def forward(self, x_NCHW: Tensor) -> tuple[Tensor, Tensor]:
        x_NCHW = F.max_pool2d(self.prelu1(self.conv1(x_NCHW)), 3, 2, ceil_mode=True)
        x_NCHW = F.max_pool2d(self.prelu2(self.conv2(x_NCHW)), 3, 2, ceil_mode=True)
        x_NCHW = F.max_pool2d(self.prelu3(self.conv3(x_NCHW)), 2, 2, ceil_mode=True)
        x_NCHW = self.prelu4(self.conv4(x_NCHW))
        x_ND = self.prelu5(self.dense5(x_NCHW.transpose(1, 3).flatten(1)))
        return self.dense6_2(x_ND), self.dense6_1(x_ND).softmax(1)[:, 1]


class MTCNN(nn.Module):
    """uint8 pictures of one size in, `Faces` out."""

    def __init__(self) -> None:
        super().__init__()
        self.pnet, self.rnet, self.onet = PNet(), RNet(), ONet()

    def forward(self, pictures_BHWC: np.ndarray, *, min_face: float = 20.0, confidence: float = 0.7) -> Faces:
        """uint8 RGB [B, H, W, 3] → faces of at least about `min_face` pixels of which the last network is sure enough."""
        x_BCHW = torch.from_numpy(pictures_BHWC.astype(np.float32)).permute(0, 3, 1, 2)
        faces = self._propose(x_BCHW, min_face)
        if not len(faces.scores_N):
            return faces
        sums_BCHW = F.pad(x_BCHW.double().cumsum(2).cumsum(3), (1, 0, 1, 0))
        judged, moves_N4 = self._judge(self.rnet, sums_BCHW, faces, 24, JUDGE)
        faces = _square(_correct(*_keep(judged, moves_N4, limit=0.7)))
        judged, moves_N4 = self._judge(self.onet, sums_BCHW, faces, 48, confidence)
        corrected = _correct(judged, moves_N4)
        return _keep(corrected, moves_N4, limit=0.7, of_smaller=True)[0]

    def _propose(self, x_BCHW: Tensor, min_face: float) -> Faces:
        height, width = x_BCHW.shape[2:]
        scale, found = CELL / min_face, []
        while min(height, width) * scale >= CELL:
            size = (int(height * scale + 1), int(width * scale + 1))
            corrections, p_BHW = self.pnet((F.interpolate(x_BCHW, size=size, mode="area") - 127.5) / 128)
            at_N3 = (p_BHW >= PROPOSE).nonzero()
            b, y, x = at_N3.T
            corner_N2 = at_N3[:, [2, 1]].double().numpy() * STRIDE + 1
            boxes_N4 = np.floor(np.concatenate((corner_N2, corner_N2 + CELL - 1), 1) / scale)
            faces = Faces(boxes_N4=boxes_N4, scores_N=p_BHW[b, y, x].double().numpy(), picture_N=b.numpy())
            found.append(_keep(faces, corrections[b, :, y, x].double().numpy(), limit=0.5))
            scale *= SHRINK
        if not found:
            return Faces(boxes_N4=np.zeros((0, 4)), scores_N=np.zeros(0), picture_N=np.zeros(0, int))
        every = Faces(
            boxes_N4=np.concatenate([faces.boxes_N4 for faces, _ in found]),
            scores_N=np.concatenate([faces.scores_N for faces, _ in found]),
            picture_N=np.concatenate([faces.picture_N for faces, _ in found]),
        )
        return _square(_correct(*_keep(every, np.concatenate([moves for _, moves in found]), limit=0.7), inclusive=0))

    def _judge(self, net: nn.Module, sums_BCHW: Tensor, faces: Faces, size: int, enough: float) -> tuple[Faces, np.ndarray]:
        """The faces of which `net` is surer than `enough`, with its probabilities and corrections."""
        crops, inside_N = _crops(sums_BCHW, faces, size)
        faces = _pick(faces, inside_N.nonzero()[0])
        answers = [net((part - 127.5) / 128) for part in crops.split(512)]
        if not answers:
            return faces, np.zeros((0, 4))
        corrections_N4, scores_N = (torch.cat(kind).double().numpy() for kind in zip(*answers, strict=True))
        sure_N = (scores_N > enough).nonzero()[0]
        sure = Faces(boxes_N4=faces.boxes_N4[sure_N], scores_N=scores_N[sure_N], picture_N=faces.picture_N[sure_N])
        return sure, corrections_N4[sure_N]


def _crops(sums_BCHW: Tensor, faces: Faces, size: int) -> tuple[Tensor, np.ndarray]:
    """Each box cut out and averaged to `size` x `size` [n, 3, size, size], and which boxes lie in the picture at all.

    The averages are those of adaptive pooling, taken from running sums, so that all boxes are done at once.
    """
    height, width = (side - 1 for side in sums_BCHW.shape[2:])
    boxes_N4 = np.trunc(faces.boxes_N4).astype(int)
    left, top = (np.maximum(boxes_N4[:, i], 1) - 1 for i in (0, 1))
    right, bottom = np.minimum(boxes_N4[:, 2], width), np.minimum(boxes_N4[:, 3], height)
    inside_N = (right > left) & (bottom > top)
    b = faces.picture_N[inside_N]
    (x0, x1), (y0, y1) = _bins(left[inside_N], right[inside_N], size), _bins(top[inside_N], bottom[inside_N], size)
    rows = sums_BCHW.permute(0, 2, 3, 1).contiguous()  # B H W C
    at = [torch.from_numpy(i) for i in (b[:, None, None], y0[:, :, None], y1[:, :, None], x0[:, None], x1[:, None])]
    b_, y0_, y1_, x0_, x1_ = at
    total = rows[b_, y1_, x1_] - rows[b_, y0_, x1_] - rows[b_, y1_, x0_] + rows[b_, y0_, x0_]
    area = ((y1_ - y0_) * (x1_ - x0_))[..., None]
    return (total / area).float().permute(0, 3, 1, 2), inside_N


def _bins(start_N: np.ndarray, stop_N: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Where each of `size` bins between start and stop begins and ends, as adaptive pooling cuts them: two arrays (N, size)."""
    i, length_N1 = np.arange(size), (stop_N - start_N)[:, None]
    return start_N[:, None] + i * length_N1 // size, start_N[:, None] - (-(i + 1) * length_N1 // size)


def _pick(faces: Faces, index_N: np.ndarray) -> Faces:
    return Faces(boxes_N4=faces.boxes_N4[index_N], scores_N=faces.scores_N[index_N], picture_N=faces.picture_N[index_N])


def _keep(faces: Faces, moves_N4: np.ndarray, *, limit: float, of_smaller: bool = False) -> tuple[Faces, np.ndarray]:
    """Non-maximum suppression in each picture on its own; the corrections go along with their boxes."""
    chosen, boxes_N4 = [np.zeros(0, int)], faces.boxes_N4 + ((0, 0, 1, 1) if of_smaller else 0)  # pixels count as published
    for picture in np.unique(faces.picture_N):
        mine = (faces.picture_N == picture).nonzero()[0]
        chosen.append(mine[best_boxes(boxes_N4[mine], faces.scores_N[mine], limit, of_smaller=of_smaller)])
    index_N = np.concatenate(chosen)
    return _pick(faces, index_N), moves_N4[index_N]


def _correct(faces: Faces, moves_N4: np.ndarray, *, inclusive: int = 1) -> Faces:
    """Each corner moved by its correction, in units of the box's size (which counts its last pixel after the first stage)."""
    size_N2 = faces.boxes_N4[:, 2:] - faces.boxes_N4[:, :2] + inclusive
    moved_N4 = faces.boxes_N4 + moves_N4 * np.tile(size_N2, 2)
    return Faces(boxes_N4=moved_N4, scores_N=faces.scores_N, picture_N=faces.picture_N)


def _square(faces: Faces) -> Faces:
    size_N2 = faces.boxes_N4[:, 2:] - faces.boxes_N4[:, :2]
    side_N1 = size_N2.max(1, keepdims=True)
    corner_N2 = faces.boxes_N4[:, :2] + (size_N2 - side_N1) / 2
    boxes_N4 = np.concatenate((corner_N2, corner_N2 + side_N1), 1)
    return Faces(boxes_N4=boxes_N4, scores_N=faces.scores_N, picture_N=faces.picture_N)


def from_published(state: dict[str, Tensor]) -> MTCNN:
    """An eval-mode network without gradients from the three published state dicts under `pnet.`, `rnet.` and `onet.`."""
    net = MTCNN()
    fill(net, state, where="the MTCNN weights")
    return net.eval().requires_grad_(False)


def load_mtcnn() -> MTCNN:
    """The network that comes with the package. Raises CheckpointError if its file is absent or another."""
    return from_published(read_packaged(NAME, SHA256))
