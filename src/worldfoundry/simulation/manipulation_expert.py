"""Who moves the arm: scripts that pick and place, stack and push, and sometimes miss on purpose.

A script is a generator of actions, one per frame. It looks at the world where it has to (where is the thing now?), and moves
the commanded pose with limited speed and acceleration, as a person with a joystick would.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from worldfoundry.simulation.manipulation_scene import Layout
from worldfoundry.simulation.manipulation_world import ManipulationWorld, about
from worldfoundry.simulation.panda import rotation_vector, to_rpy

OPEN, CLOSED, NARROW = 0.0, 1.0, 0.62  # of the gripper; NARROW leaves about four centimetres between the fingers
CLOSING_FRAMES = 6
TURN = 0.22  # radians per frame, at most


@dataclass(frozen=True, kw_only=True)
class Manner:
    """How this episode is driven. speed: metres per frame; miss: how far beside the thing the hand comes down (x, y)."""

    speed: float
    lift: float
    miss: tuple[float, float]


def draw_manner(rng: np.random.Generator, mistakes: float) -> Manner:
    """A share `mistakes` of episodes aims 5 to 8 cm beside the thing."""
    angle, far = rng.uniform(0, 2 * np.pi), rng.uniform(0.05, 0.08)
    missed = rng.random() < mistakes
    miss = (float(far * np.cos(angle)), float(far * np.sin(angle))) if missed else (0.0, 0.0)
    return Manner(speed=float(rng.uniform(0.025, 0.045)), lift=float(rng.uniform(0.12, 0.2)), miss=miss)


class Expert:
    """Writes the actions of one episode."""

    def __init__(self, world: ManipulationWorld, manner: Manner) -> None:
        self.world, self.manner = world, manner
        self.speed = 0.0

    def actions(self) -> Iterator[np.ndarray]:
        """Actions float32 (7,) until the task is done and the hand has withdrawn. Look at the world between them."""
        layout: Layout = self.world.layout
        yield from self.push() if layout.task == "push" else self.pick_and_place()
        yield from self.wait(3)

    def pick_and_place(self) -> Iterator[np.ndarray]:
        world, manner = self.world, self.manner
        at, yaw = world.thing()
        at[:2] += manner.miss
        R = self.hand(nearest(yaw, np.pi / 2))
        above = np.array([0, 0, manner.lift])
        grasp = np.array([at[0], at[1], max(at[2], 0.02)])
        yield from self.go(grasp + above, R, OPEN)
        yield from self.go(grasp, R, OPEN, slow=0.6)
        yield from self.wait(CLOSING_FRAMES, CLOSED)
        yield from self.go(grasp + above, R, CLOSED)
        held = world.position - world.thing()[0]  # the thing may have slipped a little, or not be held at all
        held = held if np.linalg.norm(held) < 0.05 else np.zeros(3)
        goal = np.array([*self.goal(), world.layout.goal_height + world.layout.things[0].half_height + 0.004]) + held
        yield from self.go(goal + above, R, CLOSED)
        yield from self.go(goal, R, CLOSED, slow=0.6)
        yield from self.wait(CLOSING_FRAMES - 2, OPEN)
        yield from self.go(goal + above, R, OPEN)

    def goal(self) -> np.ndarray:
        """Where the thing is to go (x, y), now."""
        return self.world.thing(1)[0][:2] if self.world.layout.task == "stack" else np.array(self.world.layout.goal_at)

    def push(self) -> Iterator[np.ndarray]:
        world, manner = self.world, self.manner
        at = world.thing()[0][:2] + manner.miss
        goal = np.array(world.layout.goal_at)
        along = (goal - at) / np.linalg.norm(goal - at)
        # Both fingers push: their axis, y of the hand, lies across the way.
        R = self.hand(nearest(float(np.arctan2(-along[0], along[1])) + np.pi / 2, np.pi))
        behind = np.array([*(at - 0.1 * along), 0.028])
        yield from self.go(behind + np.array([0, 0, manner.lift]), R, NARROW)
        yield from self.go(behind, R, NARROW, slow=0.6)
        for _ in range(70):
            left = goal - (world.thing()[0][:2] + manner.miss)
            if left @ along < 0.006:
                break
            beside = (at - world.position[:2]) - ((at - world.position[:2]) @ along) * along
            drift = left - (left @ along) * along  # a thing that slid to one side is pushed from that side
            correction = 0.3 * beside - 0.25 * drift
            self.speed = min(0.5 * manner.speed, self.speed + 0.004, 0.35 * float(left @ along) + 0.002)
            yield self.action(np.array([*(self.speed * along + correction), 0.0]), R, NARROW)
        yield from self.go(world.position - np.array([*(0.06 * along), 0]), R, NARROW)
        yield from self.go(world.position + np.array([0, 0, manner.lift]), R, OPEN)

    def hand(self, yaw: float) -> np.ndarray:
        """R of a hand that points straight down and is turned by `yaw` from how it points at home."""
        return about(np.array([0.0, 0.0, yaw])) @ self.world.down

    def go(self, position: np.ndarray, R: np.ndarray, closed: float, slow: float = 1.0) -> Iterator[np.ndarray]:
        """Until the commanded pose is there and the arm has followed it."""
        for _ in range(80):
            far = position - self.world.position
            distance = float(np.linalg.norm(far))
            turn = rotation_vector(R @ self.world.R.T)
            lag = np.linalg.norm(position - self.world.arm.pose()[0])
            if distance < 0.002 and np.linalg.norm(turn) < 0.02 and lag < 0.008:
                return
            self.speed = min(slow * self.manner.speed, self.speed + 0.012, 0.5 * distance + 0.004, distance)
            yield self.action(far * (self.speed / max(distance, 1e-9)), R, closed)

    def wait(self, frames: int, closed: float | None = None) -> Iterator[np.ndarray]:
        """Stand still, the gripper as commanded or as it is."""
        self.speed = 0.0
        for _ in range(frames):
            yield self.action(np.zeros(3), self.world.R, self.world.closed if closed is None else closed)

    def action(self, move: np.ndarray, R: np.ndarray, closed: float) -> np.ndarray:
        """float32 (7,), rounded as it is stored, so that replaying the stored actions repeats the episode."""
        turn = rotation_vector(R @ self.world.R.T)
        turn = 0.6 * turn if np.linalg.norm(turn) < TURN else turn * (TURN / np.linalg.norm(turn))
        return np.concatenate([move, to_rpy(about(turn)), [closed]]).astype(np.float32)


def nearest(yaw: float, period: float) -> float:
    """The turn closest to none that looks the same, for a shape that repeats every `period` radians."""
    return (yaw + period / 2) % period - period / 2
