"""Choosing metrics: names, what is left out and why, and that LPIPS, FID and FVD exist only with the published files."""

import io

import numpy as np
import pytest
import torch

from worldfoundry.core.errors import CheckpointError, DataError, UsageError
from worldfoundry.evaluation import catalogue, reference
from worldfoundry.evaluation.catalogue import PACKAGED, check_names, choose_metrics, known_names
from worldfoundry.evaluation.check import moving_squares
from worldfoundry.evaluation.metrics import METRICS
from worldfoundry.evaluation.reference import REFERENCE, i3d_clip, inception_frames


@pytest.fixture
def empty_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("WORLDFOUNDRY_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)


def test_without_downloads_the_weightless_remain_and_the_rest_is_said(empty_cache):
    choice = choose_metrics(None, applicable=[METRICS["psnr"]], clips=50)
    assert [metric.name for metric in choice.metrics] == ["psnr"]
    assert [line.split(":")[0] for line in choice.left_out] == ["LPIPS-like[hed-vgg16]", "KD[effnet-lite0]", "KD[transnetv2]"]
    assert all("--fetch" in line for line in choice.left_out)


def test_the_number_of_clips_decides_between_the_two_distances(empty_cache, monkeypatch):
    monkeypatch.setattr(catalogue, "is_fetched", lambda name: True)
    monkeypatch.setattr(catalogue, "_build", lambda name, files, fetch: name)
    for clips, kind in ((2, "KD"), (1999, "KD"), (2000, "FD")):
        names = choose_metrics(None, applicable=[], clips=clips).metrics
        assert names == ("LPIPS-like[hed-vgg16]", f"{kind}[effnet-lite0]", f"{kind}[transnetv2]")
    alone = choose_metrics(None, applicable=[], clips=1)
    assert alone.metrics == ("LPIPS-like[hed-vgg16]",)
    assert "there is one" in alone.left_out[0]


def test_a_named_metric_without_weights_says_how_to_get_them(empty_cache):
    with pytest.raises(UsageError, match=r"KD\[transnetv2\] needs the model 'transnetv2'.*models get transnetv2"):
        choose_metrics(["KD[transnetv2]"], applicable=[], clips=50)


def test_names_are_found_however_they_are_capitalised_and_typos_get_a_suggestion():
    assert check_names(["PSNR", "kd[EffNet-lite0]", "psnr"]) == ["psnr", "KD[effnet-lite0]"]
    with pytest.raises(UsageError, match=r"Did you mean 'psnr_moving'"):
        check_names(["psnr_movin"])
    assert set(known_names()) == {*METRICS, *PACKAGED}


@pytest.mark.parametrize("name", ["LPIPS", "FID", "fvd"])
def test_names_of_others_need_the_published_file(name):
    with pytest.raises(UsageError, match=r"needs .*Give it with --weights\.") as error:
        check_names([name])
    assert "[" in error.value.hint  # and it names what there is instead


def test_another_vgg_is_not_lpips(tmp_path):
    file = tmp_path / "vgg16-397923af.pth"
    torch.save({"features.0.weight": torch.zeros(64, 3, 3, 3)}, file)
    with pytest.raises(CheckpointError, match="not torchvision's ImageNet VGG16"):
        choose_metrics(["LPIPS"], applicable=[], clips=9, reference_files={"vgg16": file})


class Inception(torch.nn.Module):
    def forward(self, x, return_features: bool = False):
        return x.float().mean((2, 3)).repeat(1, 683)[:, :2048]


class I3d(torch.nn.Module):
    def forward(self, x, rescale: bool = True, resize: bool = True, return_features: bool = False):
        assert not rescale
        assert not resize
        return x.mean((3, 4)).flatten(1).repeat(1, 40)[:, :400]


def script(module, path):
    buffer = io.BytesIO()
    torch.jit.save(torch.jit.script(module), buffer)
    path.write_bytes(buffer.getvalue())
    return path


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_torchscript_runs_apart_and_its_hash_is_in_the_protocol(tmp_path):
    truth = moving_squares(clips=4)
    files = {"inception": script(Inception(), tmp_path / "a.pt")}
    (fid,) = choose_metrics(["fid"], applicable=[], clips=4, reference_files=files).metrics
    assert (fid.name, fid.tier) == ("FID", "reference")
    found = fid.extractor(truth[:, 2:])
    frames = truth[:, [2, 4, 5, 7]]
    np.testing.assert_allclose(found[..., :3], frames.mean((2, 3)), rtol=1e-5)
    before = fid.parameters()
    files["inception"].write_bytes(files["inception"].read_bytes() + b"x")
    assert fid.parameters() != before


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_file_of_another_network_is_refused(tmp_path):
    fvd = REFERENCE["FVD"].build(script(Inception(), tmp_path / "a.pt"))
    with pytest.raises(CheckpointError, match="Is it the published file"):
        fvd.extractor(np.zeros((2, 12, 32, 32, 3), np.uint8))
    (tmp_path / "b.pt").write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match=r"'b\.pt' could not be run as i3d"):
        REFERENCE["FVD"].build(tmp_path / "b.pt").extractor(np.zeros((2, 12, 32, 32, 3), np.uint8))


def test_i3d_sees_the_middle_at_224_in_minus_one_to_one():
    clip = np.zeros((12, 32, 64, 3), np.uint8)
    clip[:, :, 16:48] = 255
    assert i3d_clip(clip).shape == (1, 3, 12, 224, 224)
    assert i3d_clip(clip)[..., 4:-4].min() == pytest.approx(1)  # the outermost columns mix with what was cut off
    assert i3d_clip(clip)[..., 0].max() < 1
    assert i3d_clip(255 - clip)[..., 4:-4].max() == pytest.approx(-1)
    with pytest.raises(DataError, match="at least 10"):
        i3d_clip(clip[:9])
    assert inception_frames(clip).shape == (4, 3, 32, 64)
    assert reference.I3D_SIZE == 224
