"""What the two foreign checkpoint layouts share: names by rewriting rules, and a fill that names foreign tensors in errors.

Rules go from our name to theirs only; both directions of a conversion use the same table, so they cannot disagree.
"""

import re
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from worldfoundry.core.checkpoint import fill
from worldfoundry.core.errors import CheckpointError
from worldfoundry.tokenizers.tokenizer import Tokenizer

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

    Tensors that match `ignore` may be left over. Raises CheckpointError that names what is missing, left over, misshapen.
    """
    ours = module.state_dict()
    problems = [f"missing {theirs}" for theirs in names.values() if theirs not in foreign]
    leftover = foreign.keys() - set(names.values())
    problems += [f"unexpected {theirs}" for theirs in leftover if not re.fullmatch(ignore, theirs)]
    for name, theirs in names.items():
        if theirs in foreign and foreign[theirs].shape != ours[name].shape:
            problems.append(f"{theirs} is {list(foreign[theirs].shape)}, config says {list(ours[name].shape)}")
    if problems:
        shown = "; ".join(sorted(problems)[:5]) + (f"; and {len(problems) - 5} more" if len(problems) > 5 else "")
        raise CheckpointError(f"These {layout} weights do not fit the config beside them: {shown}.")
    state = {name: foreign[theirs] for name, theirs in names.items()}
    state |= {name: ours[name] for name in ours if name not in names}
    fill(module, state, where=f"{layout} checkpoint")
    dtype = next((foreign[theirs].dtype for theirs in names.values()), torch.float32)
    return module.to(dtype).eval().requires_grad_(False)
