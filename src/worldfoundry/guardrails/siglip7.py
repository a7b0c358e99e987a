"""The frame guard of Cosmos: SigLIP so400m features and a small classifier of seven classes (arXiv 2501.03575, section 7.2).

Its weights are licensed on their own and not shipped: the policy names a local folder with the SigLIP checkpoint
(google/siglip-so400m-patch14-384) and the classifier's file (`video_content_safety_filter/safety_filter.pt` of
nvidia/Cosmos-Guardrail1). Any class but the first blocks; as in Cosmos the likeliest class decides, and one more rule was added
here: a class that is not the likeliest blocks from `threshold` on.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field

from worldfoundry.core.config import Config
from worldfoundry.core.contracts import Verdict, VideoItem
from worldfoundry.core.errors import CheckpointError, ConfigError
from worldfoundry.core.model_store import file_sha256
from worldfoundry.guardrails.frames import pictures, spread, unreadable

if TYPE_CHECKING:
    from torch import nn

CLASSES = ("safe", "sexual", "violence", "drugs", "csam", "hatred", "suicide")
BATCH = 4


class Siglip7Config(Config):
    """Options of Cosmos' frame classifier."""

    folder: Path | None = None
    """SigLIP checkpoint: config.json and model.safetensors."""
    head: Path | None = None
    """The classifier of seven classes: safety_filter.pt, or the same tensors as safetensors."""
    threshold: float = Field(default=0.5, gt=0, le=1)
    """Probability from which an unsafe class blocks though another is likelier."""
    interval_s: float = Field(default=0.5, ge=0)
    """Seconds between the frames looked at; 0 looks at every frame, as Cosmos does with generated frames."""
    change: float = Field(default=0.1, gt=0, le=1)
    """Mean difference (of 1) to the frame looked at last from which a frame is looked at too."""


class Siglip7Guard:
    """`check(VideoItem) -> Verdict`; a `Guard` for video. Raises ConfigError or CheckpointError without its weights."""

    name = "siglip7"
    takes: Literal["video"] = "video"

    def __init__(self, config: Siglip7Config) -> None:
        from worldfoundry.perception.siglip import load_siglip_vision

        if config.folder is None or config.head is None:
            fix = "Set siglip7.folder (google/siglip-so400m-patch14-384) and siglip7.head (safety_filter.pt)."
            raise ConfigError("The guard 'siglip7' has no weights.", fix)
        self.config, self.network = config, load_siglip_vision(config.folder)
        self.head, self.weights = load_head(config.head, self.network.width), file_sha256(config.head)[:16]

    def check(self, item: VideoItem) -> Verdict:
        """`unsafe` for any class but safe in any frame looked at, `error` for what cannot be read or scored, else `safe`."""
        if problem := unreadable(item):
            return Verdict(
                status="error", guard=self.name, reason=problem, evidence={"fix": "Pass decoded uint8 frames and their rate."}
            )
        indices = spread(item.frames, item.fps, self.config.interval_s, self.config.change)
        p_TK = self._probabilities(item, indices)
        if not np.isfinite(p_TK).all():
            fix = "Look at the frames and at the weights."
            return Verdict(status="error", guard=self.name, reason="the network gave no number", evidence={"fix": fix})
        row, kind = divmod(int(p_TK[:, 1:].argmax()), len(CLASSES) - 1)
        evidence: dict[str, Any] = {
            "frames": len(item.frames),
            "frames_checked": len(indices),
            "frame": indices[row],
            "class": CLASSES[kind + 1],
            "score": round(float(p_TK[row, kind + 1]), 4),
            "weights": self.weights,
        }
        against_T = (p_TK.argmax(1) != 0) | (p_TK[:, 1:].max(1) >= self.config.threshold)
        if against_T.any():
            reason = f"frame {indices[row]} shows {CLASSES[kind + 1]} ({evidence['score']:.2f});"
            reason += f" {int(against_T.sum())} of {len(indices)} frames looked at are not safe"
            return Verdict(status="unsafe", guard=self.name, category=CLASSES[kind + 1], reason=reason, evidence=evidence)
        reason = f"{len(indices)} of {len(item.frames)} frames checked"
        return Verdict(status="safe", guard=self.name, reason=reason, evidence=evidence)

    def _probabilities(self, item: VideoItem, indices: list[int]) -> np.ndarray:
        import torch
        import torch.nn.functional as F

        rows = []
        with torch.inference_mode():
            for start in range(0, len(indices), BATCH):
                x_BCHW = pictures(item.frames, indices[start : start + BATCH], self.network.size) / 127.5 - 1
                rows.append(self.head(F.normalize(self.network(x_BCHW), dim=-1)).softmax(-1))
        return torch.cat(rows).double().numpy()


def load_head(file: Path, width: int) -> "nn.Module":
    """The classifier `width` → 512 → 256 → 7 with batch normalisation from its published names. Raises CheckpointError."""
    import pickle

    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file
    from torch import nn

    from worldfoundry.core.checkpoint import fill

    if not file.is_file():
        raise CheckpointError(f"The classifier {str(file)!r} does not exist.", "Set siglip7.head to safety_filter.pt.")
    try:
        found = load_file(file) if file.suffix == ".safetensors" else torch.load(file, map_location="cpu", weights_only=True)
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, OSError) as error:
        raise CheckpointError(f"The classifier {str(file)!r} cannot be read.", "Download it again.") from error
    weights: Any = found.get("model", found) if isinstance(found, dict) else {}
    state = {str(name).removeprefix("network.layers."): tensor for name, tensor in weights.items()}
    layers = (nn.Linear(width, 512), nn.BatchNorm1d(512), nn.ReLU(), nn.Linear(512, 256), nn.BatchNorm1d(256), nn.ReLU())
    head = nn.Sequential(*layers, nn.Linear(256, len(CLASSES)))
    fill(head, state, where=str(file))
    return head.float().eval().requires_grad_(False)
