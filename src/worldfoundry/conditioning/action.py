"""Actions as a condition: how they are grouped per latent frame, and the zero-initialised adapter that feeds them to a DiT.

Legend: B batch, F pixel frames, T latent frames, A action numbers per frame, K features per latent frame, D width.
"""

import torch
from torch import Tensor, nn


def group_actions(actions_BFA: Tensor, temporal_compression: int, *, sum_scale: float = 1.0) -> Tensor:
    """Per pixel frame actions → per latent frame features [B, T, temporal_compression · A · 2].

    Action f moves the world from frame f to frame f + 1, so frame f is driven by action f - 1 and frame 0 by none.
    Latent frame 0 covers pixel frame 0 alone, latent frame k the frames 1 + (k-1)·tc … k·tc. Each covered frame gives
    its driving action and `sum_scale` times the running sum of all actions so far (for velocities: the commanded
    displacement); latent frame 0 is padded with zeros in front. Frames beyond 1 + tc·k belong to no latent and are dropped.
    """
    B, F, A = actions_BFA.shape
    tc = temporal_compression
    driving_BFA = torch.cat([torch.zeros_like(actions_BFA[:, :1]), actions_BFA[:, :-1]], dim=1)
    features = torch.cat([driving_BFA, sum_scale * driving_BFA.cumsum(dim=1)], dim=-1)[:, : 1 + (F - 1) // tc * tc]
    front = features.new_zeros(B, tc - 1, 2 * A)
    return torch.cat([front, features], dim=1).reshape(B, -1, tc * 2 * A)


def action_features(actions_BFA: Tensor, rms_A: Tensor, temporal_compression: int) -> Tensor:
    """Actions in the dataset's units → what a network is given: `group_actions` of actions / rms.

    `rms` is each number's root mean square over the training data (a number that is always 0 stays 0). Running sums are
    counted in latent steps, so that they too are of order one. Training and generation must use the same `rms`.
    """
    scaled_BFA = actions_BFA / torch.where(rms_A > 0, rms_A, 1.0)
    return group_actions(scaled_BFA, temporal_compression, sum_scale=1 / temporal_compression)


class ActionAdapter(nn.Module):
    """An MLP that turns a latent frame's action features into an addition to its tokens and to its modulation.

    Both last layers start at zero, so a base model with a fresh adapter computes what it computed without.
    """

    def __init__(self, action_dim: int, width: int) -> None:
        super().__init__()
        self.linear_1 = nn.Linear(action_dim, width)
        self.linear_2 = nn.Linear(width, width)
        self.to_tokens = nn.Linear(width, width, bias=False)
        self.to_modulation = nn.Linear(width, 3 * width, bias=False)

    def init_weights(self, generator: torch.Generator | None = None) -> None:
        for linear in (self.linear_1, self.linear_2):
            nn.init.xavier_uniform_(linear.weight, generator=generator)
            nn.init.zeros_(linear.bias)
        nn.init.zeros_(self.to_tokens.weight)
        nn.init.zeros_(self.to_modulation.weight)

    def forward(self, actions_BTK: Tensor) -> tuple[Tensor, Tensor]:
        """→ additions to the tokens [B, T, 1, D] and to the shared modulation base [B, T, 1, 3·D]."""
        hidden = nn.functional.silu(self.linear_1(actions_BTK))
        hidden = nn.functional.silu(self.linear_2(hidden))[:, :, None]
        return self.to_tokens(hidden), self.to_modulation(hidden)
