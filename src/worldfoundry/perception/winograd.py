"""3x3 convolution with four times fewer multiplications: Winograd's F(4x4, 3x3) (Lavin and Gray 2015, arXiv 1509.09308).

Each 4x4 square of the output comes from a 6x6 square of the input. In a basis where convolution is a product, that takes 36
multiplications per pair of channels in place of 144; going there and back are two small matrix products. Pays from 128 channels
on, where the products outweigh the way; the result differs by rounding alone (about 1e-5 of the largest value in float32).
Legend: B pictures, C channels in, D channels out, H height, W width, N squares of all pictures, K = 36.
"""

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

SQUARE, REACH = 4, 6  # pixels: of the output, and of the input that it depends on

# Section 4.3 of the paper: interpolation at the points 0, 1, -1, 2, -2 and infinity.
INPUT = (
    (4, 0, -5, 0, 1, 0),
    (0, -4, -4, 1, 1, 0),
    (0, 4, -4, -1, 1, 0),
    (0, -2, -1, 2, 1, 0),
    (0, 2, -1, -2, 1, 0),
    (0, 4, 0, -5, 0, 1),
)
KERNEL = (
    (1 / 4, 0, 0),
    (-1 / 6, -1 / 6, -1 / 6),
    (-1 / 6, 1 / 6, -1 / 6),
    (1 / 24, 1 / 12, 1 / 6),
    (1 / 24, -1 / 12, 1 / 6),
    (0, 0, 1),
)
OUTPUT = ((1, 1, 1, 1, 1, 0), (0, 1, -1, 2, -2, 0), (0, 1, 1, 4, 4, 0), (0, 1, -1, 8, -8, 1))


class WinogradConv2d(nn.Conv2d):
    """A frozen 3x3 convolution (stride 1, one zero around the picture) computed that way; weight and bias stay as they were.

    Holds the transformed kernels besides, four times the size of the weight.
    """

    kernels_KCD: Tensor

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__(conv.in_channels, conv.out_channels, 3, padding=1, device="meta")
        self.weight, self.bias = conv.weight, conv.bias
        with torch.no_grad():
            kernels = rearrange(conv.weight, "d c i j -> (i j) (c d)")
            kernels_KCD = (_two_axes(KERNEL, kernels) @ kernels).view(REACH**2, conv.in_channels, conv.out_channels)
        self.register_buffer("kernels_KCD", kernels_KCD, persistent=False)

    def forward(self, input: Tensor) -> Tensor:
        """[B, C, H, W] → [B, D, H, W], channels last."""
        B, C, H, W = input.shape
        rows, columns = -(-H // SQUARE), -(-W // SQUARE)
        x_BHWC = F.pad(input.permute(0, 2, 3, 1), (0, 0, 1, SQUARE * columns + 1 - W, 1, SQUARE * rows + 1 - H))
        squares = x_BHWC.unfold(1, REACH, SQUARE).unfold(2, REACH, SQUARE)
        x_KN = rearrange(squares, "b y x c i j -> (i j) (b y x c)")
        x_KNC = (_two_axes(INPUT, x_KN) @ x_KN).view(REACH**2, -1, C)
        y_KN = torch.bmm(x_KNC, self.kernels_KCD).flatten(1)
        y_KN = _two_axes(OUTPUT, y_KN) @ y_KN
        shape = {"b": B, "y": rows, "x": columns, "i": SQUARE}
        y_BHWD = rearrange(y_KN, "(i j) (b y x d) -> b (y i) (x j) d", **shape)[:, :H, :W]
        return (y_BHWD if self.bias is None else y_BHWD + self.bias).permute(0, 3, 1, 2)


def _two_axes(matrix: tuple[tuple[float, ...], ...], like: Tensor) -> Tensor:
    """The matrix that applies one matrix to rows and columns of a flattened square."""
    one = like.new_tensor(matrix)
    return torch.kron(one, one)
