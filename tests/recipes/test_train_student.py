"""Distillation as a recipe: through the command line to an adapter that generates, resumed bit for bit, from either cache."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file

import worldfoundry as wf
from worldfoundry.cli.main import main
from worldfoundry.conditioning.text import NullTextEncoder
from worldfoundry.core.errors import ConfigError, DataError
from worldfoundry.data.clips import ClipDataset
from worldfoundry.data.latents import LatentCache
from worldfoundry.diffusion.config import DiTConfig
from worldfoundry.diffusion.dit import DiT
from worldfoundry.inference.config import SchedulerConfig, WorldDefaults
from worldfoundry.inference.sampling import sampling_levels
from worldfoundry.inference.world import DiffusionWorld
from worldfoundry.inference.world_folder import save_world
from worldfoundry.recipes.config import WindowConfig
from worldfoundry.recipes.student_data import student_columns
from worldfoundry.recipes.train_student import student_scheduler, train_student
from worldfoundry.recipes.train_student_config import TrainStudentConfig
from worldfoundry.tokenizers.build import build_tokenizer
from worldfoundry.tokenizers.config import named_config
from worldfoundry.training import loop as loop_module
from worldfoundry.training.config import DistillationConfig, LoopConfig, LoRAConfig, OptimConfig

WINDOW = WindowConfig(num_frames=9, height=16, width=16, stride=8, held_out_fraction=0.3)
CLIPS = [("a", 17, 16, 16), ("b", 17, 16, 16), ("c", 9, 16, 16)]
LOOP = LoopConfig(steps=4, precision="float32", compile="off", save_every_s=1e-6, optim=OptimConfig(lr=1e-3, warmup_steps=1))


@pytest.fixture
def data(make_dataset):
    return make_dataset(CLIPS, actions=True)


@pytest.fixture
def teacher(tmp_path):
    """A world with random weights and two actions."""
    tokenizer = build_tokenizer(named_config("debug-cv4x4x4").to_dict()).eval()
    channels = tokenizer.spec.channels
    dit = DiTConfig(
        in_channels=channels, out_channels=channels, model_channels=24, num_blocks=1, num_heads=2, crossattn_emb_channels=8,
        adaln_lora_dim=4, max_frames=4, max_h=8, max_w=8, condition_mask=True, action_dim=2 * 4 * 2, prefix_context=True,
    )  # fmt: skip
    network = DiT(dit)
    for i, parameter in enumerate(network.parameters()):
        torch.nn.init.normal_(parameter, std=0.1, generator=torch.Generator().manual_seed(i))
    defaults = WorldDefaults(
        num_frames=9, height=16, width=16, fps=12, num_prefix_frames=5, num_inference_steps=5, guidance_scale=0.0, context_rows=3,
        action_names=("time", "clip"), action_rms=(8.0, 1.0),
    )  # fmt: skip
    scheduler = SchedulerConfig(sigma_min=0.02, sigma_max=10.0, rho=5.0)
    world = DiffusionWorld(network.eval().requires_grad_(False), tokenizer, scheduler, defaults, encoder=NullTextEncoder(8, 3))
    provenance = {"config": {"window": WINDOW.to_dict()}, "held_out_sources": ["c"]}
    return save_world(tmp_path / "teacher", world, provenance=provenance, card="")


def student(data, teacher, out, **changes):
    settings = {"loop": LOOP, "batch_size": 2, "compare": 3, "device": "cpu", "lora": LoRAConfig(rank=2)}
    return TrainStudentConfig(data=data, world=teacher, out=out, **{**settings, **changes})


def test_the_command_leaves_an_adapter_that_generates_in_its_steps(data, teacher, tmp_path, capsys):
    run = tmp_path / "run"
    words = ["train", "student", str(data), "--world", str(teacher), "--out", str(run), "--batch-size", "2", "--device", "cpu"]
    loop = ["--loop.minutes", "None", "--loop.steps", "2", "--loop.compile", "off", "--loop.precision", "float32"]
    assert main([*words, *loop, "--compare", "2", "--lora.rank", "2"]) == 0
    said = capsys.readouterr().err
    assert f"--adapter {run / 'adapter'}" in said
    files = {path.name for path in (run / "adapter").iterdir()}
    assert files == {"adapter_model.safetensors", "adapter_config.json", "defaults.json", "provenance.json", "README.md"}
    card = (run / "adapter" / "README.md").read_text()
    facts = json.loads((run / "adapter" / "provenance.json").read_text())
    assert (facts["teacher_steps"], facts["steps"], facts["metrics"]["windows"]) == (6, 2, 2)
    assert f"| student, 2 steps | {facts['metrics']['student_to_teacher']} |" in card
    world = wf.load(teacher)
    world.load_adapter(run / "adapter")
    seen = []
    world.generate(
        input=ClipDataset(data).video(ClipDataset(data).records[0]), callback_on_step_end=lambda *step: seen.append(step[:2])
    )
    assert [steps for _, steps in seen] == [2, 2]


def test_a_killed_run_goes_on_as_if_it_had_not_been(data, teacher, tmp_path, monkeypatch):
    whole = train_student(student(data, teacher, tmp_path / "whole"))
    run_step = loop_module.Trainer.run_step

    def dies(self):
        if self.step == 2:
            raise KeyboardInterrupt
        return run_step(self)

    with monkeypatch.context() as patch:
        patch.setattr(loop_module.Trainer, "run_step", dies)
        with pytest.raises(KeyboardInterrupt):
            train_student(student(data, teacher, tmp_path / "killed"))
    resumed = train_student(student(data, teacher, tmp_path / "killed"))
    one, other = (load_file(run.folder / "adapter_model.safetensors") for run in (whole, resumed))
    assert one.keys() == other.keys()
    assert all(torch.equal(tensor, other[name]) for name, tensor in one.items())
    assert any(tensor.any() for name, tensor in one.items() if "lora_B" in name)


def test_windows_are_those_of_the_teachers_training_without_what_it_held_out(data, teacher, tmp_path):
    config, world = student(data, teacher, tmp_path / "run"), wf.load(teacher)
    encoded, contexts = student_columns(config, ClipDataset(data), world, world.tokenizer)
    with LatentCache.open(tmp_path / "run" / "latents") as cache:
        keys = set(cache.keys())
    assert keys <= {record.key for record in ClipDataset(data).records if record.source_id != "c"}
    assert encoded["latents"].shape[1:] == (world.tokenizer.spec.channels, 3, 4, 4)
    assert encoded["actions"].shape[1:] == (3, 16)
    assert contexts.shape == (len(keys), 3, 8)
    taken, _ = student_columns(config.replace(latents=tmp_path / "run" / "latents"), ClipDataset(data), world, world.tokenizer)
    assert all(torch.equal(column, taken[name]) for name, column in encoded.items())


def test_clips_without_actions_are_clips_on_which_nothing_acts(make_dataset, teacher, tmp_path):
    world, data = wf.load(teacher), make_dataset(CLIPS)
    config = student(data, teacher, tmp_path / "run")
    folder = tmp_path / "cache"
    student_columns(config, ClipDataset(data), world, world.tokenizer)
    with LatentCache.open(tmp_path / "run" / "latents") as made:
        entries = {k: made.get(k) for k in made.keys()}  # noqa: SIM118  # not a dict
        with LatentCache(folder, identity=made.identity) as cache:
            for k, entry in entries.items():
                n = len(entry["latents"])
                cache.put(k, entry if k == min(entries) else {**entry, "actions": torch.ones(n, 9, 2)})
    rows, _ = student_columns(config.replace(latents=folder), ClipDataset(data), world, world.tokenizer)
    acting = rows["actions"].abs().sum(dim=(1, 2)) > 0
    assert acting.sum() == sum(len(entry["latents"]) for k, entry in entries.items() if k != min(entries)) > 0
    assert not acting.all()


def test_latents_of_another_tokenizer_are_refused(data, teacher, tmp_path):
    identity = {"tokenizer": {"config": "x", "weights": "y"}}
    with LatentCache(tmp_path / "latents", identity=identity) as cache:
        cache.put("clip000", {"latents": torch.zeros(1, 4, 3, 4, 4)})
    with pytest.raises(DataError, match="not those of the world's tokenizer"):
        train_student(student(data, teacher, tmp_path / "run", latents=tmp_path / "latents"))


@pytest.mark.parametrize("fields", [{"rho": 3.0}, {"schedule": "flow", "shift": 3.0}])
@pytest.mark.parametrize(("steps", "length"), [(1, 4), (2, 5), (3, 2), (4, 3)])
def test_the_students_schedule_visits_the_ends_of_the_teachers_segments(fields, steps, length):
    teacher = SchedulerConfig(sigma_min=0.02, sigma_max=20.0, sampler="res_2m", **fields)
    path = sampling_levels(teacher, steps * length)
    levels = sampling_levels(student_scheduler(teacher, path, steps), steps)
    torch.testing.assert_close(levels, path[::length], rtol=1e-6, atol=1e-9)


def test_steps_that_do_not_divide_are_refused(data, teacher, tmp_path):
    config = student(data, teacher, tmp_path / "run", distillation=DistillationConfig(steps=2, teacher_steps=5))
    with pytest.raises(ConfigError, match="do not divide among the student's 2"):
        train_student(config)


def test_what_is_no_world_is_one_line(data, teacher, tmp_path, capsys):
    words = ["train", "student", str(data), "--out", str(tmp_path / "run")]
    assert main([*words, "--world", str(teacher / "vae")]) == 2
    assert "is no diffusion world.\nGive --world a world folder or a shipped world." in capsys.readouterr().err
    shutil.rmtree(teacher / "vae")
    assert main([*words, "--world", str(teacher)]) == 2
    assert "lacks its part 'vae'" in capsys.readouterr().err
