"""Worlds with ground truth, rendered on the CPU: what the models are trained and judged on.

Comes in: a config of one kind (how many episodes, which seed). Goes out: a folder of videos, beside each what the simulator knows
exactly (actions and states, masks, depth, camera poses, outcomes, captions), and one `dataset.json`.
Decided here: what a scene looks like, how it moves, who steers it, what its caption says, the seeds.
Not decided here: how clips become training samples (`data`), how models are scored (`evaluation`).
The test that shows it best: `tests/simulation/test_pusher.py` (the mirrored world, rendered, is the mirrored picture).

Reading order: `pusher.py` (the scene and its driver), `render.py` (MuJoCo without a screen), `episodes.py` (the files),
`simulate.py` (the folder), `executors.py` (several processes, Ray).
The arm: `panda.py` (meshes, inverse kinematics), `manipulation_scene.py` (what is
on the table), `manipulation_world.py` (what an action does), `manipulation_expert.py` (who acts), `manipulation.py` (what is
recorded), `metaworld_tasks.py`; `lerobot_out.py` writes what they record as a LeRobot dataset.
The textured worlds: `textures.py` and `scene.py` (what things are made of), `views.py` (cameras and their calibration), `captions.py`;
then `physics_scenes.py`, `physics_outcomes.py`, `physics.py`; `camera_places.py`, `camera_flights.py`, `camera_captions.py`,
`camera.py`; `driving_town.py`, `driving_captions.py`, `driving.py`.
"""
