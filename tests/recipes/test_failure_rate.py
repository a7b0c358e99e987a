"""Videos are made and shuffled, judged by their names, and counted by world and number of given frames."""

import csv
import json

import pytest

import worldfoundry as wf
from worldfoundry.autoregressive.config import TransformerConfig
from worldfoundry.autoregressive.transformer import Transformer
from worldfoundry.cli.main import main
from worldfoundry.evaluation.failure import wilson
from worldfoundry.inference.ar_config import AutoregressiveDefaults
from worldfoundry.inference.ar_folder import save_ar_world
from worldfoundry.inference.ar_world import AutoregressiveWorld
from worldfoundry.recipes.failure_rate import TRUTH, read_videos
from worldfoundry.tokenizers.build import build_tokenizer
from worldfoundry.tokenizers.config import named_config

NETWORK = TransformerConfig(
    vocab_size=1000, dim=12, num_layers=1, num_heads=2, num_kv_heads=1, head_dim=6, ffn_hidden_size=16, latent_shape=(3, 2, 2),
    max_seq_len=64,
)  # fmt: skip


@pytest.fixture
def world(tmp_path):
    tokenizer = build_tokenizer(named_config("debug-dv4x8x8").to_dict()).eval()
    defaults = AutoregressiveDefaults(num_frames=9, height=16, width=16, fps=12, num_prefix_frames=5)
    made = AutoregressiveWorld(Transformer(NETWORK), tokenizer, defaults)
    return str(save_ar_world(tmp_path / "world", made, provenance={}, card=""))


def test_videos_are_made_judged_and_counted(make_dataset, world, tmp_path, capsys):
    clips = [make_dataset([(name, 21, 16, 16)], name=name) for name in ("a", "b")]
    words = ["evaluate", "failure-rate", "--world", world, "--data", "one", str(clips[0]), "two", str(clips[1])]
    words += ["--out", str(tmp_path / "out"), "--clips", "3", "--prefix-frames", "1", "5", "--device", "cpu"]
    judged = tmp_path / "judgements.csv"
    judged.write_text("video,verdict\nv0000,ok\n")
    assert main([*words, "--judgements", str(judged)]) == 2
    assert "Make the videos first" in capsys.readouterr().err

    assert main(words) == 0
    table = read_videos(tmp_path / "out" / "videos.csv")
    assert [video.name for video in table] == [f"v{i:04d}" for i in range(12)]
    assert sorted((v.world, v.prefix_frames) for v in table) == sorted(
        (w, n) for w in (TRUTH, world) for n in (1, 5) for _ in range(3)
    )
    assert sorted(v.domain for v in table if v.world == TRUTH) == ["one"] * 4 + ["two"] * 2
    page = (tmp_path / "out" / "judge.html").read_text()
    assert world not in page
    assert TRUTH not in page
    capsys.readouterr()

    mine = [video.name for video in table if (video.world, video.prefix_frames) == (world, 5)]
    with judged.open("w", newline="") as file:
        csv.writer(file).writerows([("video", "verdict"), (mine[0], "ok"), (mine[1], "appears"), (mine[2], "")])
    assert main([*words, "--judgements", str(judged)]) == 0
    counted = json.loads((tmp_path / "out" / "judged.json").read_text())
    assert counted["worlds"][world]["top_p"] == wf.load(world).config.top_p
    rows = counted["rows"]
    (row,) = [row for row in rows if "judged" in row]
    assert (row["world"], row["prefix_frames"]) == (world, 5)
    appears = row["judged"]["appears"]
    assert (appears["count"], appears["n"], (appears["low"], appears["high"])) == (1, 2, wilson(1, 2))
    assert "judged, appears: 1 of 2, 50.0%" in capsys.readouterr().out


def test_each_window_is_continued_from_its_own_first_frames(make_dataset, world):
    from worldfoundry.data.clips import ClipDataset
    from worldfoundry.recipes.futures import continuations, window_of
    from worldfoundry.recipes.windows import spread_windows

    dataset, loaded = ClipDataset(make_dataset([("a", 21, 16, 16), ("b", 21, 16, 16)])), wf.load(world)
    windows = spread_windows(dataset, list(dataset.records), window_of(loaded), 3)
    for given in (1, 5):
        made = continuations(loaded, windows, seed=0, prefix_frames=given)
        for clip, window in zip(made, windows, strict=True):
            assert (clip[:given] == window.frames[:given]).all()
            assert (clip[given] != window.frames[given]).any()
