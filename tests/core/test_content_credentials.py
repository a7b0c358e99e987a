"""A signed video is verified, and no longer once it is changed. The certificate is made here, with openssl."""

import shutil
import subprocess

import numpy as np
import pytest

from worldfoundry.core.content_credentials import manifest_of, read_credentials, sign
from worldfoundry.core.contracts import WorldVideo
from worldfoundry.core.errors import CheckpointError, UsageError

LEAF = """basicConstraints=critical,CA:FALSE
keyUsage=critical,digitalSignature
extendedKeyUsage=emailProtection
subjectKeyIdentifier=hash
authorityKeyIdentifier=keyid
"""
ROOT = """basicConstraints=critical,CA:TRUE
keyUsage=critical,keyCertSign,cRLSign
subjectKeyIdentifier=hash
"""


@pytest.fixture
def video(tmp_path):
    return WorldVideo(frames=np.full((9, 64, 64, 3), 90, np.uint8), fps=12, seed=3, config={"world": "models/w"}).save(
        tmp_path / "made.mp4"
    )


@pytest.fixture
def keys(tmp_path):
    """(chain, key) of a signer under a root that nobody trusts."""
    if not shutil.which("openssl"):
        pytest.skip("needs openssl")

    def openssl(*words):
        subprocess.run(["openssl", *words], cwd=tmp_path, check=True, capture_output=True)

    for name in ("root", "leaf"):
        openssl("genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", f"{name}.key")
        openssl("req", "-new", "-key", f"{name}.key", "-subj", f"/C=DE/O=Test/CN={name}", "-out", f"{name}.csr")
    (tmp_path / "root.ext").write_text(ROOT)
    (tmp_path / "leaf.ext").write_text(LEAF)
    openssl(
        "x509", "-req", "-in", "root.csr", "-signkey", "root.key", "-days", "30", "-extfile", "root.ext", "-out", "root.pem"
    )
    under = ["-CA", "root.pem", "-CAkey", "root.key", "-CAcreateserial", "-days", "29", "-extfile", "leaf.ext"]
    openssl("x509", "-req", "-in", "leaf.csr", *under, "-out", "leaf.pem")
    chain = tmp_path / "chain.pem"
    chain.write_text((tmp_path / "leaf.pem").read_text() + (tmp_path / "root.pem").read_text())
    return chain, tmp_path / "leaf.key"


def test_the_manifest_says_what_made_it(video):
    manifest = manifest_of(video)
    assert manifest["claim_generator_info"][0]["name"] == "WorldFoundry"
    made = manifest["assertions"][1]["data"]
    assert (made["seed"], made["world"], len(made["watermark"])) == (3, "w", 8)


def test_signed_and_verified_until_it_is_changed(video, keys, tmp_path):
    pytest.importorskip("c2pa")
    signed = sign(video, tmp_path / "signed.mp4", certificates=keys[0], private_key=keys[1])
    found = read_credentials(signed)
    assert found["state"] == "Valid"
    assert found["problems"] in ([], ["signingCredential.untrusted"])
    assert any(a["label"] == "org.worldfoundry.made" and a["data"]["seed"] == 3 for a in found["manifest"]["assertions"])
    raw = bytearray(signed.read_bytes())
    raw[-200] ^= 1
    (tmp_path / "changed.mp4").write_bytes(raw)
    assert read_credentials(tmp_path / "changed.mp4")["state"] == "Invalid"


def test_what_cannot_be_signed_or_read_is_said(video, keys, tmp_path):
    pytest.importorskip("c2pa")
    with pytest.raises(CheckpointError, match="no content credentials"):
        read_credentials(video)
    with pytest.raises(UsageError, match="would not sign"):
        sign(video, tmp_path / "out.mp4", certificates=keys[1], private_key=keys[1])
    assert not (tmp_path / "out.mp4").exists()
    with pytest.raises(UsageError, match=r"gone\.pem"):
        sign(video, tmp_path / "out.mp4", certificates=tmp_path / "gone.pem", private_key=keys[1])
