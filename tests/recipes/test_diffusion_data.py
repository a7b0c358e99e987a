"""What a diffusion training sees: images with a scale of their own, stages, aspects with their masks, online encoding."""

import numpy as np
import pytest
import torch

import worldfoundry as wf
from worldfoundry.conditioning.text import NullTextEncoder
from worldfoundry.core.errors import ConfigError, DataError
from worldfoundry.core.progress import read_metrics
from worldfoundry.data.clips import ClipDataset
from worldfoundry.diffusion.config import DiTConfig
from worldfoundry.diffusion.dit import DiT
from worldfoundry.guardrails.runner import GuardPolicy, Guardrails
from worldfoundry.inference.config import SchedulerConfig, WorldDefaults
from worldfoundry.inference.world import DiffusionWorld
from worldfoundry.inference.world_folder import save_world
from worldfoundry.recipes.config import StageConfig, TrainDiffusionConfig, WindowConfig
from worldfoundry.recipes.diffusion_data import diffusion_data
from worldfoundry.recipes.plan import plan
from worldfoundry.recipes.train_diffusion import train_diffusion
from worldfoundry.recipes.windows import split
from worldfoundry.tokenizers.build import build_tokenizer
from worldfoundry.tokenizers.config import named_config
from worldfoundry.training.config import LoopConfig
from worldfoundry.training.loop import train

CLIPS = [("a", 17, 16, 16), ("b", 17, 16, 32), ("c", 9, 32, 16), ("d", 9, 16, 16)]
WINDOW = WindowConfig(num_frames=9, height=16, width=16, stride=8, held_out_fraction=0.25)
SMALL = DiTConfig(
    in_channels=12, out_channels=12, model_channels=24, num_blocks=1, num_heads=2, crossattn_emb_channels=384, adaln_lora_dim=4,
    max_frames=4, max_h=16, max_w=16, condition_mask=True,
)  # fmt: skip


@pytest.fixture(scope="module")
def tokenizer():
    return build_tokenizer(named_config("debug-cv4x4x4").to_dict()).eval().requires_grad_(False)


@pytest.fixture
def base(tokenizer, tmp_path):
    channels = tokenizer.spec.channels
    defaults = WorldDefaults(num_frames=9, height=16, width=16, fps=12, num_prefix_frames=5, context_rows=2)
    network = DiT(SMALL.replace(in_channels=channels, out_channels=channels))
    world = DiffusionWorld(network, tokenizer, SchedulerConfig(), defaults, encoder=NullTextEncoder(384, 2))
    return save_world(tmp_path / "base", world, provenance={}, card="")


def settings(data, out, **changes):
    loop = LoopConfig(steps=4, precision="float32", compile="off", save_every_s=1e-6, log_every=1)
    standing = {"init": "base", "window": WINDOW, "batch_size": 2, "loop": loop, "device": "cpu"}
    return TrainDiffusionConfig(data=data, out=out, **{**standing, **changes})


def prepared(config, tokenizer, actions=False):
    dataset = ClipDataset(config.data)
    stages = plan(
        config, dataset, split(dataset, config.window), tokenizer.spec, aspects=config.aspects, patch=2, need_actions=actions
    )
    return stages, diffusion_data(config, dataset, stages, tokenizer, with_actions=actions)


def draw(stream, count):
    return [stream.next_batch() for _ in range(count)]


def test_without_options_there_is_one_stream_of_clips(make_dataset, tokenizer, tmp_path):
    stages, data = prepared(settings(make_dataset(CLIPS), tmp_path / "out"), tokenizer)
    batch = data.stream.next_batch()
    assert [len(stage.groups) for stage in stages] == [1]
    assert batch["latents"].shape == (2, tokenizer.spec.channels, 3, 4, 4)
    assert batch["fps"].tolist() == [12, 12]
    assert set(batch) == {"latents", "caption", "fps"}
    assert data.images is None


@pytest.mark.parametrize("latents", ["cache", "online"])
def test_images_have_their_share_and_their_own_statistics(make_dataset, tokenizer, tmp_path, latents):
    config = settings(make_dataset(CLIPS, actions=True), tmp_path / "out", image_share=0.4, latents=latents)
    stages, data = prepared(config, tokenizer, actions=True)
    batches = draw(data.stream, 60)
    images = [batch for batch in batches if batch["latents"].shape[2] == 1]
    assert 10 <= len(images) <= 38  # 24 expected; four deviations either way
    assert all(len(batch["latents"]) == 2 * 3 for batch in images)  # as many latent frames as two clips have
    assert all("actions" not in batch for batch in images)
    seen = torch.cat([batch["latents"].float() for batch in images])
    whole = [group for group in stages[0].groups if group.images]
    assert len(whole) == 1
    assert seen.mean().abs() < 0.3
    assert seen.std() == pytest.approx(1, abs=0.3)
    held_out = {r.source_id for r in split(ClipDataset(config.data), WINDOW).held_out}
    assert not held_out & {record.source_id for record in whole[0].records}


def test_the_image_statistics_are_exactly_those_of_the_cached_images(make_dataset, tokenizer, tmp_path):
    config = settings(make_dataset(CLIPS), tmp_path / "out", image_share=0.5)
    _, data = prepared(config, tokenizer)
    rows = next(s for s in data.stream.streams.values() if s.rows["latents"].shape[2] == 1).rows["latents"].float()
    assert rows.mean(dim=(0, 2, 3, 4)).abs().max() < 2e-2  # half precision
    assert rows.std() == pytest.approx(1, abs=1e-2)


def test_online_and_cached_batches_hold_the_same_kind_of_rows(make_dataset, tokenizer, tmp_path):
    data = make_dataset(CLIPS, actions=True)
    cached, online = (
        prepared(settings(data, tmp_path / kind, latents=kind), tokenizer, actions=True)[1].stream.next_batch()
        for kind in ("cache", "online")
    )
    assert {name: tensor.shape for name, tensor in cached.items()} == {name: tensor.shape for name, tensor in online.items()}
    assert not (tmp_path / "online" / "latents").exists()


def test_clips_are_padded_to_the_nearest_aspect_and_the_mask_says_where(make_dataset, tokenizer, tmp_path):
    clips = [("a", 9, 16, 16), ("b", 9, 16, 32), ("c", 9, 32, 16), ("d", 9, 16, 16), ("e", 9, 16, 40)]
    window = WINDOW.replace(height=32, width=32, held_out_fraction=0.2)
    config = settings(make_dataset(clips), tmp_path / "out", window=window, aspects=("1x1", "16x9", "9x16"))
    stages, data = prepared(config, tokenizer)
    sizes = {(group.window.height, group.window.width) for group in stages[0].groups}
    assert sizes <= {(32, 32), (24, 40), (40, 24)}
    assert len(sizes) >= 2
    for batch in draw(data.stream, 12):
        mask, size = batch["padding"], tuple(batch["latents"].shape[-2:])
        assert mask.shape == (len(batch["latents"]), 1, *size)
        assert (size == (8, 8)) == (not mask.any())  # square clips fill their square; the others are longer than 16:9
    assert all(group.padded for group in stages[0].groups)


def test_stages_have_caches_of_their_own_and_resume_across_the_border(make_dataset, base, tmp_path, capsys):
    data = make_dataset(CLIPS)
    stages = (StageConfig(share=0.5, num_frames=5, batch_size=3),)

    def run(out, stop_at=None):
        def stop(step, ema):
            if step == stop_at:
                raise KeyboardInterrupt
            return {}

        config = settings(data, out, init=base, stages=stages, image_share=0.3)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(
                "worldfoundry.recipes.train_diffusion.train",
                lambda *a, **k: train(*a, **k, callback=stop, callback_every_s=0.0),
            )
            return train_diffusion(config)

    whole = run(tmp_path / "whole")
    for cut in (1, 2, 3):
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / f"cut{cut}", stop_at=cut)
    for cut in (1, 2, 3):
        again = run(tmp_path / f"cut{cut}").world.network.state_dict()
        assert all(torch.equal(value, again[name]) for name, value in whole.world.network.state_dict().items())
    rows = read_metrics(tmp_path / "whole" / "metrics.jsonl")
    assert all("mfu" in row for row in rows if "loss" in row)
    said = capsys.readouterr().err
    assert said.count("training takes about") == 7  # once a start
    names = sorted(path.name for path in (tmp_path / "whole" / "latents").iterdir())
    assert names == ["1x16x16-every8-images", "5x16x16-every8", "9x16x16-every8"]
    world = wf.load(whole.folder)
    assert world.config.num_frames == 9
    statistics = world.config.image_latents
    assert statistics.std > 0
    request = world.resolve(num_frames=1)
    own = world.sample_latents(request, [None], None)
    world.config = world.config.replace(image_latents=None)
    clips = world.sample_latents(request, [None], None)
    torch.testing.assert_close(own, statistics.denormalize(clips), atol=1e-4, rtol=1e-4)


def test_a_world_trained_on_several_shapes_knows_them_and_takes_inputs_of_each(make_dataset, base, tmp_path):
    clips = [("a", 9, 16, 16), ("b", 9, 16, 32), ("c", 9, 16, 40), ("d", 9, 16, 16), ("e", 9, 16, 32), ("f", 9, 16, 16)]
    window = WINDOW.replace(height=32, width=32, held_out_fraction=0.2)
    config = settings(make_dataset(clips), tmp_path / "out", init=base, window=window, aspects=("16x9", "9x16", "1x1"))
    world = wf.load(train_diffusion(config).folder)
    assert world.config.shapes == {"16x9": (24, 40), "1x1": (32, 32)}  # no clip was tall
    assert (world.config.height, world.config.width) == (32, 32)
    world.guardrails = Guardrails.from_policy(GuardPolicy(action="off", reason="hardly trained"))
    wide = np.repeat(np.arange(0, 240, 3, dtype=np.uint8)[None, None, :, None], 40, axis=1).repeat(3, axis=3)
    assert world.generate(input=wide).frames.shape == (9, 20, 40, 3)
    assert world.generate(aspect="16x9").frames.shape == (9, 24, 40, 3)


def test_a_stage_that_no_clip_is_long_enough_for_is_refused(make_dataset, tokenizer, tmp_path):
    config = settings(make_dataset(CLIPS), tmp_path / "out", stages=(StageConfig(share=0.5, num_frames=33),))
    with pytest.raises(DataError, match="Stage 1 has no clip of 33 frames"):
        prepared(config, tokenizer)


def test_shares_must_leave_something_to_the_last_stage():
    with pytest.raises(ConfigError, match="must sum to less than 1"):
        TrainDiffusionConfig.from_dict({"data": "a", "out": "b", "init": "c", "stages": [{"share": 0.5}, {"share": 0.5}]})


def test_padded_windows_are_in_the_batch_as_they_are_on_disk(make_dataset, tokenizer, tmp_path):
    """A padded clip, encoded, is the encoding of the padded clip."""
    from worldfoundry.data.resize import pad_to
    from worldfoundry.recipes.train_tokenizer import encode

    config = settings(make_dataset(CLIPS), tmp_path / "out", aspects=("1x1",))
    stages, data = prepared(config, tokenizer)
    group = stages[0].groups[0]
    wide = next((i, r) for i, r in enumerate(data.stream.rows["caption"].tolist()) if r is not None)
    record = next(r for r in group.records if r.caption == data.captions[wide[1]])
    frames = pad_to(ClipDataset(config.data).video(record, 0, 9), 16, 16)
    expected = tokenizer.normalize(encode(tokenizer, torch.from_numpy(np.ascontiguousarray(frames))[None]))
    assert torch.equal(data.stream.rows["latents"][wide[0]], expected[0].half())
