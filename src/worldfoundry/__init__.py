"""WorldFoundry: an open platform for world foundation models for Physical AI.

Comes in: raw video, robot episodes, prompts. Goes out: curated clips, tokenizers, world models, measured worlds.
Importing this package is cheap: every public name is loaded on first use, so neither torch nor pydantic is imported here.

    import worldfoundry as wf
    wf.curate("my-videos", "clips", min_motion=2.0)
    world = wf.load("path/to/world")
    clip = world.generate(input="first.png", num_frames=33, seed=0)
    clip.save("out.mp4")
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_PUBLIC = {
    "curate": "worldfoundry.curation.api",
    "load": "worldfoundry.inference.load",
    "from_original": "worldfoundry.inference.load",
    "guard": "worldfoundry.guardrails.api",
    "GuardPolicy": "worldfoundry.guardrails.policy",
    "WorldVideo": "worldfoundry.core.contracts",
    "Verdict": "worldfoundry.core.contracts",
    "WorldFoundryError": "worldfoundry.core.errors",
}
__all__ = [
    "GuardPolicy",
    "Verdict",
    "WorldFoundryError",
    "WorldVideo",
    "__version__",
    "curate",
    "from_original",
    "guard",
    "load",
]

if TYPE_CHECKING:
    from worldfoundry.core.contracts import Verdict, WorldVideo
    from worldfoundry.core.errors import WorldFoundryError
    from worldfoundry.curation.api import curate
    from worldfoundry.guardrails.api import guard
    from worldfoundry.guardrails.policy import GuardPolicy
    from worldfoundry.inference.load import from_original, load


def __getattr__(name: str) -> Any:
    """Load a public name on first use (PEP 562)."""
    if name not in _PUBLIC:
        raise AttributeError(f"module 'worldfoundry' has no attribute {name!r}; public names: {', '.join(__all__)}")
    return getattr(import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
