"""What happened in a physics scenario, judged from the simulated states alone.

Axis legend: T frames, N bodies in the order of `Setup.bodies`; quaternions are wxyz.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from worldfoundry.simulation.captions import count, listing, with_article
from worldfoundry.simulation.physics_scenes import Setup


@dataclass(frozen=True, kw_only=True)
class Track:
    """States of all bodies: position_TN3 in m, quaternion_TN4, velocity_TN3 in m/s, spin_TN3 in rad/s (world axes)."""

    times_s_T: np.ndarray
    position_TN3: np.ndarray
    quaternion_TN4: np.ndarray
    velocity_TN3: np.ndarray
    spin_TN3: np.ndarray

    def moving(self, n: int) -> np.ndarray:
        """Per frame, whether body n moves at more than 3 cm/s or 0.3 rad/s: bool (T,)."""
        return (np.linalg.norm(self.velocity_TN3[:, n], axis=1) > 0.03) | (np.linalg.norm(self.spin_TN3[:, n], axis=1) > 0.3)

    def turned_deg(self, n: int) -> np.ndarray:
        """Angle between the orientation of body n now and at the first frame, degrees (T,)."""
        dot = np.abs(self.quaternion_TN4[:, n] @ self.quaternion_TN4[0, n])
        return np.degrees(2 * np.arccos(np.clip(dot, 0, 1)))

    def tilt_deg(self, n: int) -> np.ndarray:
        """Angle between the body's own z axis and the vertical, degrees (T,)."""
        _, x, y, _ = self.quaternion_TN4[:, n].T
        return np.degrees(np.arccos(np.clip(1 - 2 * (x**2 + y**2), -1, 1)))


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """`label` is a word to classify by, `numbers` what it was judged from, `sentence` the caption's account of it."""

    label: str
    numbers: dict[str, Any]
    sentence: str


def free_fall(setup: Setup, track: Track) -> Outcome:
    landed = [first(track.velocity_TN3[:, n, 2] > -0.2, 2) for n in range(len(setup.bodies))]
    resting = not any(track.moving(n)[-1] for n in range(len(setup.bodies)))
    who = listing([with_article(body.noun) for body in setup.bodies])
    ending = "come to rest" if resting else "are still moving at the end"
    if len(setup.bodies) == 1:
        ending = "comes to rest" if resting else "is still moving at the end"
    verb = "fall and hit" if len(setup.bodies) > 1 else "falls and hits"
    landed_at = [round(float(track.times_s_T[i]), 3) if i is not None else None for i in landed]
    return Outcome(
        label="comes_to_rest" if resting else "still_moving",
        numbers={"turns_upward_at_s": landed_at},
        sentence=f"{who} {verb} the ground, then {ending}",
    )


def tilted_plank(setup: Setup, track: Track) -> Outcome:
    mover, n = setup.bodies[2], 2
    way = float(np.linalg.norm(track.position_TN3[:, n] - track.position_TN3[0, n], axis=1).max())
    turned = float(track.turned_deg(n).max())
    label = "sticks" if way < 0.05 else "rolls" if turned > 40 else "slides"
    does = {"sticks": "stays where it is", "rolls": "rolls down and off the end", "slides": "slides down"}[label]
    if label == "rolls" and mover.shape == "box":
        does = "slides, tips over and tumbles down"
    plank, angle = with_article(setup.bodies[0].noun), setup.facts["angle_deg"]
    sentence = f"{with_article(mover.noun)} on {plank}, tilted by {angle:.0f} degrees, {does}"
    return Outcome(label=label, numbers={"way_m": way, "turned_deg": turned, **setup.facts}, sentence=sentence)


def u_slope(setup: Setup, track: Track) -> Outcome:
    balls = setup.bodies[1:]
    crossings = [int((np.diff(np.sign(track.position_TN3[:, n, 0])) != 0).sum()) for n in range(1, 1 + len(balls))]
    left = bool((np.abs(track.position_TN3[:, 1:, :2]) > (1.2, 0.35)).any())
    swings = max(crossings)
    label = "leaves" if left else "swings" if swings >= 2 else "rolls_down"
    who = listing([with_article(ball.noun) for ball in balls])
    verb = "rolls" if len(balls) == 1 else "roll"
    how = {"leaves": "and out of it", "swings": "from side to side", "rolls_down": "down one side"}[label]
    meet = " and bump into each other" if len(balls) == 2 and min_gap(setup, track) < 0.01 else ""
    return Outcome(label=label, numbers={"crossings": crossings}, sentence=f"{who} {verb} in a half-pipe {how}{meet}")


def min_gap(setup: Setup, track: Track) -> float:
    """Smallest distance between the surfaces of the two balls of the half-pipe."""
    apart = np.linalg.norm(track.position_TN3[:, 1] - track.position_TN3[:, 2], axis=1)
    return float(apart.min() - setup.bodies[1].half[0] - setup.bodies[2].half[0])


def stack(setup: Setup, track: Track) -> Outcome:
    drop = track.position_TN3[0, :, 2] - track.position_TN3[:, :, 2].min(axis=0)
    fallen = [bool(drop[n] > body.half[2] or track.turned_deg(n).max() > 20) for n, body in enumerate(setup.bodies)]
    number = sum(fallen)
    blocks = listing([with_article(body.noun) for body in setup.bodies])
    does = (
        f"loses its upper {count(number, 'block')[4:] if number == 1 else count(number, 'block')}"
        if number
        else "stays standing"
    )
    if number == len(fallen):
        does = "collapses completely"
    return Outcome(
        label="topples" if number else "stands",
        numbers={"blocks": len(fallen), "fallen": number},
        sentence=f"a stack of {blocks}, from bottom to top, {does}",
    )


def dominoes(setup: Setup, track: Track) -> Outcome:
    # A piece that leans on the next one has fallen as well: it is past the angle from which it could stand up again.
    fallen = [bool(track.tilt_deg(n)[-1] > 25) for n in range(len(setup.bodies))]
    number, total = sum(fallen), len(fallen)
    label = "all_fall" if number == total else "some_fall" if number > 1 else "chain_stops_at_once"
    nouns = list(dict.fromkeys(body.noun for body in setup.bodies))
    names = listing([noun.removesuffix(" domino") for noun in nouns])
    what = {
        "all_fall": "the first tips and all the others fall one after another",
        "some_fall": f"the first tips, {count(number, 'piece')} fall{'s' if number == 1 else ''}, and the chain stops at a wide gap",
        "chain_stops_at_once": "the first tips, but the others keep standing",
    }[label]
    return Outcome(
        label=label,
        numbers={"pieces": total, "fallen": number},
        sentence=f"{count(total, f'{names} domino')[:-1] + 'es'} stand in a row; {what}",
    )


def seesaw(setup: Setup, track: Track) -> Outcome:
    beam, load, weight = (track.position_TN3[:, n] for n in (1, 2, 3))
    tilt = signed_pitch_deg(track.quaternion_TN4[:, 1])
    tipped = bool(tilt.max() > 5)
    rise = float(load[:, 2].max() - load[0, 2])
    label = "launches" if tipped and rise > 0.55 else "tips" if tipped else "holds"
    load_noun, weight_noun = (with_article(setup.bodies[n].noun) for n in (2, 3))
    does = {"launches": "and throws it into the air", "tips": "and tips the beam over", "holds": "but the beam does not tip"}[
        label
    ]
    return Outcome(
        label=label,
        numbers={
            "rise_m": rise,
            "tilt_deg": float(tilt.max()),
            "beam_z_m": float(beam[0, 2]),
            "weight_z_m": float(weight[0, 2]),
        },
        sentence=f"{load_noun} rests on one end of a seesaw; {weight_noun} falls on the other end {does}",
    )


def signed_pitch_deg(quaternion_T4: np.ndarray) -> np.ndarray:
    """Rotation about y, positive when the +x end is down."""
    return np.degrees(2 * np.arctan2(quaternion_T4[:, 2], quaternion_T4[:, 0]))


def gyroscope(setup: Setup, track: Track) -> Outcome:
    tilt = track.tilt_deg(0)
    falls = bool(tilt.max() > 60)
    does = "slows down, wobbles and falls over" if falls else "stays up and circles slowly around its tip"
    return Outcome(
        label="falls" if falls else "precesses",
        numbers={"max_tilt_deg": float(tilt.max()), **setup.facts},
        sentence=f"{with_article(setup.bodies[0].noun)} turns quickly, leaning by {setup.facts['lean_deg']:.0f} degrees; it {does}",
    )


def first(condition_T: np.ndarray, start: int) -> int | None:
    """Index of the first frame from `start` on at which the condition holds."""
    found = np.flatnonzero(condition_T[start:])
    return int(found[0]) + start if len(found) else None


OUTCOMES: dict[str, Callable[[Setup, Track], Outcome]] = {
    "free_fall": free_fall,
    "tilted_plank": tilted_plank,
    "u_slope": u_slope,
    "stable_stack": stack,
    "unstable_stack": stack,
    "dominoes": dominoes,
    "seesaw": seesaw,
    "gyroscope": gyroscope,
}
