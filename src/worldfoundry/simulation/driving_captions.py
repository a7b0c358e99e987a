"""Captions of drives, one for each camera: what the car does, where and in which weather, and which road users this camera saw.

Words come from the scene graph (trajectory, agents) and from the drawn ids, so nobody is named who is not in the picture.
Several forms of sentence; which one, the episode's seed decides.
"""

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from worldfoundry.simulation.captions import count, listing, story, with_article
from worldfoundry.simulation.driving_town import Agent

EGO_S = 60.0  # where on the road the ego car starts, metres
VIEWS = {
    "front": "ahead",
    "left": "ahead to the left",
    "right": "ahead to the right",
    "rear": "behind",
    "rear_left": "behind to the left",
    "rear_right": "behind to the right",
}


def noun_of(agent: Agent) -> str:
    """`white van`, `pedestrian`."""
    return f"{agent.colour} {agent.category}".strip()


def role_of(agent: Agent) -> str:
    """What an agent is to the ego car at the start."""
    if agent.category == "pedestrian":
        return "walking"
    if agent.speed == 0:
        return "parked"
    return "oncoming" if agent.speed < 0 else "leading" if agent.start_s > EGO_S else "following"


def others(agents: Sequence[Agent], drive: Any, road: Any, camera: str) -> list[str]:
    """One clause for each role among the agents that a camera saw."""
    clauses = []
    by_role: dict[str, list[Agent]] = {}
    for agent in agents:
        by_role.setdefault(role_of(agent), []).append(agent)
    for role in ("leading", "following"):
        for agent in by_role.get(role, []):
            clauses.append(f"{with_article(noun_of(agent))} {gap_words(agent, drive, road, role)}")
    if "oncoming" in by_role:
        clauses.append(f"{some(by_role['oncoming'])} {oncoming_words(by_role['oncoming'], camera)}")
    for side, sign in (("left", 1), ("right", -1)):
        here = [agent for agent in by_role.get("parked", []) if agent.d * sign > 0]
        if here:
            clauses.append(f"{some(here)} {plural(here, 'is', 'are')} parked on the {side}")
    if "walking" in by_role:
        people = by_role["walking"]
        sides = {"left" if agent.d > 0 else "right" for agent in people}
        where = f"the {sides.pop()} pavement" if len(sides) == 1 else "the pavements"
        who = "a pedestrian" if len(people) == 1 else count(len(people), "pedestrian")
        clauses.append(f"{who} {plural(people, 'walks', 'walk')} along {where}")
    return clauses


def oncoming_words(agents: Sequence[Agent], camera: str) -> str:
    """Who comes from the front leaves to the rear."""
    if camera.startswith("rear"):
        return f"{plural(agents, 'drives', 'drive')} away in the other direction"
    return f"{plural(agents, 'comes', 'come')} the other way"


def plural(things: Sequence[Any], one: str, many: str) -> str:
    return one if len(things) == 1 else many


def some(agents: Sequence[Agent]) -> str:
    """`a red car and a white van`; from four on `five vehicles, among them a red car and a white van,`."""
    numbers = Counter(noun_of(agent) for agent in agents)
    if len(agents) < 4:
        return listing([with_article(noun) if number == 1 else count(number, noun) for noun, number in numbers.items()])
    return f"{count(len(agents), 'vehicle')}, among them {listing([with_article(noun) for noun in list(numbers)[:2]])},"


def gap_words(agent: Agent, drive: Any, road: Any, role: str) -> str:
    """How the distance to a car ahead or behind changes."""
    gaps = []
    for t in (0, -1):
        x, y, _ = agent.pose(road, float(drive.times_s_T[t]))
        gaps.append(math.hypot(x - drive.ego_to_world_T44[t][0, 3], y - drive.ego_to_world_T44[t][1, 3]))
    change = gaps[1] - gaps[0]
    if abs(change) < 2.0:
        return "drives ahead at a steady distance" if role == "leading" else "follows at a steady distance"
    if role == "leading":
        return "drives ahead and pulls away" if change > 0 else "drives ahead and comes closer"
    return "follows and falls back" if change > 0 else "follows and catches up"


def pace(drive: Any) -> str:
    """How fast the car goes, in words."""
    mean = float(drive.speed_T.mean())
    return "slowly" if mean < 6 else "at a moderate speed" if mean < 9 else "briskly"


def describe(
    camera: str, agents: Sequence[Agent], drive: Any, road: Any, weather: str, town: str, seed: Sequence[int]
) -> tuple[str, str]:
    """(caption, short caption) of one camera; `agents` are those that it saw, largest first. The same seed, the same words."""
    rng = np.random.default_rng((*seed, 1, list(VIEWS).index(camera)))
    where, view = f"{drive.words} {pace(drive)}", VIEWS[camera]
    short = story(f"{where} in a town, {weather}, seen by the camera that looks {view}")
    seen = others(agents, drive, road, camera)
    rest = "; ".join(seen) if len(seen) < 3 else f"{'; '.join(seen[:-1])}; and {seen[-1]}"
    nobody = ("no other road user is in view", "the street is empty on this side")[rng.integers(2)]
    forms = (
        (f"{where} along {town}, {weather}", f"the camera looks {view}", rest or nobody),
        (f"a view {view} from a car {weather}", f"{drive.words.replace('a car', 'the car')} {pace(drive)} along {town}",
         rest or nobody),
        (f"{weather}, {where} along {town}", f"in the view {view}, {rest or nobody}"),
        (f"driving footage from a camera that looks {view}: {town}, {weather}", rest or nobody,
         f"{drive.words.replace('a car', 'the car')} {pace(drive)}"),
    )  # fmt: skip
    return story(*forms[rng.integers(len(forms))]), short
