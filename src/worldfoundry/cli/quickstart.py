"""`worldfoundry quickstart`."""

from worldfoundry.recipes.config import QuickstartConfig


def run(config: QuickstartConfig) -> int:
    from worldfoundry.recipes.quickstart import quickstart

    quickstart(config)
    return 0


CONFIG = QuickstartConfig
