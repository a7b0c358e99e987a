"""Captions of camera flights, from what is in the place, what was drawn, and how the camera really moved.

Several forms of sentence, in the manner of captions that models are trained with; which one, the episode's seed decides.
Axis legend: T frames.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from worldfoundry.simulation.camera_flights import Flight
from worldfoundry.simulation.camera_places import Place
from worldfoundry.simulation.captions import count, listing, sentence, story, with_article

# Style → forms, each with and without the place; {side} is left or right, {way} up or down, as the camera sees it.
MOVES: dict[str, tuple[tuple[str, str], ...]] = {
    "orbit": (
        ("moves in an arc to the {side} around the middle of {place}", "moves in an arc to the {side}"),
        ("circles to the {side} around {place}", "circles to the {side}"),
    ),
    "forward": (
        ("moves forward through {place}", "moves forward"),
        ("glides straight ahead through {place}", "glides straight ahead"),
        ("pushes into {place}", "pushes in"),
    ),
    "backward": (("pulls back through {place}", "pulls back"), ("moves backward through {place}", "moves backward")),
    "sideways": (
        ("slides to the {side} through {place}", "slides to the {side}"),
        ("tracks {side} through {place}", "tracks {side}"),
    ),
    "rise": (
        ("moves straight {way} in {place}", "moves straight {way}"),
        ("travels {way} in {place}", "travels {way} without turning aside"),
    ),
    "turn": (
        ("turns to the {side} on the spot in {place}", "turns to the {side} on the spot"),
        ("pans {side} across {place}", "pans {side}"),
    ),
    "winding": (
        ("flies along a curve through {place}", "flies along a curve"),
        ("winds its way through {place}", "winds its way along"),
    ),
    "corner": (("watches {place} from a corner", "watches from a corner"),),
}
SLOW, FAST = 0.35, 1.1  # m/s


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What the pictures hold: things by noun with their number, largest first; the largest in the first and last picture."""

    things: Mapping[str, int]
    first: str | None
    last: str | None


def describe(place: Place, flight: Flight, seen: Seen, fps: float, seed: Sequence[int]) -> tuple[str, str]:
    """(caption, short caption): what is seen, in which light, how the camera moves; the same seed gives the same words."""
    rng = np.random.default_rng((*seed, 1))
    whole, bare = movement(flight, fps, rng)
    whole, light = whole.format(place=place.words), place.light
    names = [with_article(noun) if number == 1 else count(number, noun) for noun, number in list(seen.things.items())[:6]]
    short = story(f"the camera {whole}")
    if not names:
        return story(f"the camera {whole}, {light}"), short
    things, end = listing(names), ending(seen, rng)
    forms = (
        (f"the camera {whole}, {light}", f"it shows {things}", end),
        (f"{light}, the camera {whole}", f"in view: {things}", end),
        (f"{place.words} {light}, with {things}", f"the camera {bare}", end),
        (f"{things} can be seen in {place.words}, {light}", f"the camera {bare}", end),
        (f"a view of {place.words}, {light}", f"the camera {bare} past {things}" if past(flight) else f"the camera {bare}; "
         f"there is {things}" if seen.things[next(iter(seen.things))] == 1 else f"the camera {bare}; there are {things}", end),
    )  # fmt: skip
    return story(*forms[rng.integers(len(forms))]), short


def past(flight: Flight) -> bool:
    """Whether the camera goes by what it sees."""
    return flight.style in ("forward", "sideways", "winding", "orbit")


def movement(flight: Flight, fps: float, rng: np.random.Generator) -> tuple[str, str]:
    """How the camera moves, with `{place}` and without, from its path: direction and pace are measured."""
    forms = MOVES[flight.style]
    position, look = flight.position_T3, flight.target_T3 - flight.position_T3
    moved, right = position[-1] - position[0], np.cross(look[0], [0, 0, 1])
    if flight.style == "turn":
        side = "left" if look[0, 0] * look[-1, 1] - look[0, 1] * look[-1, 0] > 0 else "right"
    else:
        side = "right" if moved @ right > 0 else "left"
    speed = np.linalg.norm(np.diff(position, axis=0), axis=1).mean() * fps
    pace = "" if flight.style in ("turn", "corner") else "slowly " if speed < SLOW else "quickly " if speed > FAST else ""
    way = "up" if moved[2] > 0 else "down"
    whole, bare = (pace + form.format(side=side, way=way, place="{place}") for form in forms[rng.integers(len(forms))])
    return whole, bare


def ending(seen: Seen, rng: np.random.Generator) -> str:
    """What the view begins and ends with, where these are single things that the caption has named."""
    named = [noun for noun, number in list(seen.things.items())[:6] if number == 1]
    first, last = (noun if noun in named else None for noun in (seen.first, seen.last))
    if first and first == last:
        return (f"the {first} stays in view", f"the {first} is in the picture from beginning to end")[rng.integers(2)]
    if first and last:
        pair = (f"the view begins with the {first} and ends on the {last}", f"it starts at the {first} and ends at the {last}")
        return pair[rng.integers(2)]
    return f"{sentence(f'the {last}')[:-1]} comes to the fore at the end" if last else ""
