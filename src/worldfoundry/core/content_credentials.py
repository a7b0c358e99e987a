"""Content credentials (C2PA): a signed statement in an mp4 that a model made it, with what and when.

Needs the extra `c2pa` and a certificate: signing says who vouches for a video, and only its owner can do that, so nothing is signed by
default. Anybody can strip the statement; the mark in the pixels (`core.watermark`) stays.
"""

import json
from pathlib import Path
from typing import Any

from worldfoundry import __version__
from worldfoundry.core.errors import CheckpointError, MissingExtraError, UsageError
from worldfoundry.core.files import atomic_path, read_fields

GENERATED = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
"""What IPTC calls media made by a trained model; C2PA names it so."""


def sign(video: Path, out: Path, *, certificates: Path, private_key: Path, algorithm: str = "es256") -> Path:
    """Write `out`: the mp4 `video` with a signed manifest that names WorldFoundry, the seed and the mark of the JSON beside it.

    `certificates` is a PEM chain, the signer's first; `private_key` a PEM in PKCS#8. Raises MissingExtraError without the package,
    UsageError for keys or certificates that C2PA does not accept.
    """
    c2pa = _package()
    signer_info = c2pa.C2paSignerInfo(algorithm.encode(), _pem(certificates), _pem(private_key), None)
    manifest = json.dumps(manifest_of(video))
    with atomic_path(out) as temporary:
        try:
            with c2pa.Signer.from_info(signer_info) as signer, c2pa.Builder(manifest) as builder:
                with open(video, "rb") as source, open(temporary, "w+b") as target:
                    builder.sign(signer, "video/mp4", source, target)
        except c2pa.C2paError as error:
            raise UsageError(
                f"C2PA would not sign {str(video)!r}: {error}", "Look at the certificate chain and the key."
            ) from error
    return out


def read_credentials(video: Path) -> dict[str, Any]:
    """`state` (Valid, Trusted or Invalid), the active `manifest`, and `problems` by code.

    A certificate that is on no trust list gives the problem `signingCredential.untrusted`; changed pixels give
    `assertion.bmffHash.mismatch`. Raises CheckpointError for a file without a manifest.
    """
    c2pa = _package()
    try:
        with open(video, "rb") as source, c2pa.Reader("video/mp4", source) as reader:
            store = json.loads(reader.json())
    except c2pa.C2paError as error:
        raise CheckpointError(f"{str(video)!r} carries no content credentials: {error}", "Only signed videos do.") from error
    problems = [status["code"] for status in store.get("validation_status", [])]
    return {
        "state": store.get("validation_state"),
        "manifest": store["manifests"][store["active_manifest"]],
        "problems": problems,
    }


def manifest_of(video: Path) -> dict[str, Any]:
    """What is signed: who made it, that a model did, and from the JSON beside it the seed and the id of the mark."""
    sidecar = video.with_suffix(".json")
    facts = read_fields(sidecar) if sidecar.is_file() else {}
    made = {"seed": facts.get("seed"), "watermark": (facts.get("watermark") or {}).get("id")}
    made["world"] = Path(str((facts.get("config") or {}).get("world", ""))).name
    return {
        "claim_generator_info": [{"name": "WorldFoundry", "version": __version__}],
        "title": video.name,
        "format": "video/mp4",
        "assertions": [
            {"label": "c2pa.actions", "data": {"actions": [{"action": "c2pa.created", "digitalSourceType": GENERATED}]}},
            {"label": "org.worldfoundry.made", "data": made},
        ],
    }


def _package() -> Any:
    try:
        import c2pa
    except ModuleNotFoundError as error:
        raise MissingExtraError("c2pa-python", "c2pa") from error
    return c2pa


def _pem(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UsageError(f"The key or certificate {str(path)!r} cannot be read: {error.strerror}.") from error
