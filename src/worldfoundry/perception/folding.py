"""Batch normalisation with fixed statistics is a factor and a summand per channel: part of the convolution before it."""

from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_weights


def fold_norm(weight: Tensor, norm: _BatchNorm) -> tuple[Tensor, Tensor]:
    """(weight, bias) of the convolution that does what a convolution without bias and then `norm` in eval mode do.

    It saves a pass over the pixels. Raises ValueError for a normalisation without statistics.
    """
    mean, variance = norm.running_mean, norm.running_var
    if mean is None or variance is None:
        raise ValueError("Only a batch normalisation with statistics can be folded.")
    return fuse_conv_bn_weights(weight, None, mean, variance, norm.eps, norm.weight, norm.bias)
