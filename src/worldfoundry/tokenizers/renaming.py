"""What the two foreign checkpoint layouts share: names by rewriting rules, and a fill that names foreign tensors in errors.

Rules go from our name to theirs only; both directions of a conversion use the same table, so they cannot disagree.
"""

import re
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from worldfoundry.core.checkpoint import check_fit, fill
from worldfoundry.tokenizers.tokenizer import STATISTICS, Tokenizer

Rules = Sequence[tuple[str, str]]


def rename(name: str, rules: Rules) -> str:
    """Apply each (pattern, replacement) in order."""
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    return name


def fill_renamed(
    module: Tokenizer, names: Mapping[str, str], foreign: Mapping[str, Tensor], *, layout: str, ignore: str = r"(?!)"
) -> Tokenizer:
    """Fill `module` from `foreign`, where `names` maps our names to theirs; eval mode, no gradients, the stored dtype.

    `module` may be built in `core.checkpoint.weightless()`; its statistics become 0 and 1. Tensors that match `ignore` may be
    left over. Raises CheckpointError that names what is missing, left over, misshapen, or not finite.
    """
    ours = module.state_dict()
    wanted = {theirs: ours[name].shape for name, theirs in names.items()}
    check_fit(wanted, foreign, what=f"These {layout} weights do not fit the config beside them", ignore=ignore)
    state = {name: foreign[theirs] for name, theirs in names.items()}
    mean, std = (torch.empty(ours[name].shape) for name in STATISTICS)
    fill(module, state | dict(zip(STATISTICS, (mean.zero_(), std.fill_(1.0)), strict=True)), where=f"{layout} checkpoint")
    dtype = next((foreign[theirs].dtype for theirs in names.values()), torch.float32)
    return module.to(dtype).eval().requires_grad_(False)
