"""An autoregressive world: guard → encode the given frames to tokens → draw tokens → decode → guard, as a whole or as a stream.

Axis legend: B batch, T latent frames, F pixel frames, H height, W width, C = 3 (RGB), M text rows, D width of a row.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor

from worldfoundry.autoregressive.decoding import Tally
from worldfoundry.autoregressive.transformer import TextContext, Transformer
from worldfoundry.conditioning.text import TextEncoder, text_encoder
from worldfoundry.core.contracts import Verdict, WorldVideo
from worldfoundry.core.devices import free_memory
from worldfoundry.core.errors import CheckpointError, UsageError
from worldfoundry.guardrails.policy import GuardPolicy
from worldfoundry.guardrails.runner import HISTORY_S, Guardrails
from worldfoundry.inference.ar_config import OWN_DECODER, AutoregressiveDefaults, AutoregressiveRequest, complete_ar_request
from worldfoundry.inference.ar_request import check_ar_request, check_prefix, refuse
from worldfoundry.inference.ar_rollout import kept_frames, make_draft, roll_out
from worldfoundry.inference.conditions import start_frames, to_unit_range
from worldfoundry.inference.decoding import StreamDecoder
from worldfoundry.inference.frames import prefix_latents, rate_among, read_prefix
from worldfoundry.inference.memory import module_bytes
from worldfoundry.inference.offload import Level
from worldfoundry.inference.record import guarded, record_of
from worldfoundry.inference.sampling import StepCallback, seeded
from worldfoundry.nn.int8 import quantize_linears
from worldfoundry.tokenizers.tokenizer import DiscreteTokenizer

if TYPE_CHECKING:
    from worldfoundry.inference.token_decoder import TokenDecoder

Frames = str | Path | np.ndarray


@dataclass
class FrameStream:
    """A video while it is made: iterate once over pieces of frames, uint8 [F, H, W, 3], each checked before it is handed out.

    The first piece is the prefix, every other one a latent frame; where a guard hides things in frames that it knows of only from
    the frames after them, so many are held back until the next piece. `verdicts` are what the guards said of prompt and input,
    then, after the last piece, also of the end of the video; `tally` counts passes and tokens so far.
    """

    request: AutoregressiveRequest
    config: dict[str, Any]
    verdicts: tuple[Verdict, ...]
    pieces: Iterator[np.ndarray]
    guardrails: Guardrails
    tally: Tally = field(default_factory=Tally)

    def __iter__(self) -> Iterator[np.ndarray]:
        """Raises BlockedError or GuardUnavailable instead of handing out a piece; nothing follows then."""
        fps, held, most = self.request.fps, self.guardrails.lookahead, math.ceil(HISTORY_S * self.request.fps)
        seen, waiting, said = None, 0, ()
        for piece in self.pieces:
            seen = piece if seen is None else np.concatenate([seen[-(most + waiting) :], piece])
            fresh, waiting = waiting + len(piece), min(held, waiting + len(piece))
            frames, said = self.guardrails.release(seen, fps, new=fresh)  # all of it, but what waits is hidden once more later
            if fresh > waiting:
                yield frames[len(frames) - fresh : len(frames) - waiting]
        if seen is not None and waiting:
            frames, said = self.guardrails.release(seen, fps, new=waiting)
            yield frames[-waiting:]
        self.verdicts += said


class AutoregressiveWorld:
    """Continues frames token by token. Made by `wf.load(folder)`; satisfies `core.contracts.World`."""

    def __init__(
        self,
        network: Transformer,
        tokenizer: DiscreteTokenizer,
        defaults: AutoregressiveDefaults,
        *,
        encoder: TextEncoder | None = None,
        policy: GuardPolicy | None = None,
        provenance: Mapping[str, Any] | None = None,
    ) -> None:
        """Raises CheckpointError if the network predicts other tokens than the tokenizer has."""
        check_same_tokens(network, tokenizer)
        self.network, self.tokenizer, self.config = network, tokenizer, defaults
        self.encoder = encoder
        self.provenance = dict(provenance or {})
        self.guardrails = Guardrails.from_policy(policy or GuardPolicy())
        self._lean: Transformer | None = None
        self._decoders: dict[str, TokenDecoder] = {}

    # -- the public calls -------------------------------------------------------------------------------------------

    def generate(
        self,
        prompt: str | None = None,
        input: Frames | None = None,
        actions: np.ndarray | None = None,
        camera: Any = None,
        num_frames: int | None = None,
        height: int | None = None,
        width: int | None = None,
        fps: float | None = None,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        negative_prompt: str | None = None,
        seed: int = 0,
        callback_on_step_end: StepCallback | None = None,
        **options: Any,
    ) -> WorldVideo:
        """One video that continues `input` (an image, a video, or uint8 frames) as `prompt` says: the whole of `stream`, which see.

        Actions, camera and what belongs to diffusion are refused. Raises UsageError for a request that cannot be met, BlockedError
        or GuardUnavailable from the guards.
        """
        refuse(
            actions=actions, camera=camera, num_inference_steps=num_inference_steps, guidance_scale=guidance_scale,
            negative_prompt=negative_prompt,
        )  # fmt: skip
        stream = self.stream(
            prompt, input, num_frames=num_frames, height=height, width=width, fps=fps, seed=seed,
            callback_on_step_end=callback_on_step_end, **options,
        )  # fmt: skip
        frames = np.concatenate(list(stream.pieces))  # not handed out before all of it is checked, once
        frames, said = self.guardrails.release(frames, stream.request.fps)
        verdicts = stream.verdicts + said
        counts = {name: getattr(stream.tally, name) for name in ("forwards", "tokens", "guessed", "confirmed")}
        record = {**stream.config, "decoding": counts, **guarded(self.guardrails.policy, verdicts)}
        return WorldVideo(frames=frames, fps=stream.request.fps, seed=seed, config=record, verdicts=verdicts)

    def stream(
        self,
        prompt: str | None = None,
        input: Frames | None = None,
        *,
        num_frames: int | None = None,
        height: int | None = None,
        width: int | None = None,
        fps: float | None = None,
        seed: int = 0,
        num_prefix_frames: int | None = None,
        keep_input: bool = True,
        temperature: float | None = None,
        top_p: float | None = None,
        top_k: int | None = None,
        speculate: Literal["none", "medusa", "copy"] | None = None,
        token_decoder: str | Path | None = None,
        callback_on_step_end: StepCallback | None = None,
    ) -> FrameStream:
        """Frames as latent frames complete; the request and what is given are checked before this returns.

        Of an input video the last `num_prefix_frames` are the prefix, and of those the last 1 + t·k condition; the video starts
        with their own pixels (`keep_input`) or with their reconstruction. A video longer than the context goes on from its last
        latent frames. `callback_on_step_end(frame, frames, tokens)` sees the tokens of every latent frame. A `token_decoder`
        draws whole videos, so that with one there is a single piece.
        """
        fps = fps if fps is not None else rate_among(input, self.config.frame_rates)
        request = complete_ar_request(self.config, {
            "prompt": prompt, "num_frames": num_frames, "height": height, "width": width, "fps": fps, "seed": seed,
            "num_prefix_frames": num_prefix_frames, "keep_input": keep_input, "temperature": temperature, "top_p": top_p,
            "top_k": top_k, "speculate": speculate, "token_decoder": None if token_decoder is None else str(token_decoder),
        })  # fmt: skip
        verdicts = self.guardrails.enforce_text(request.prompt) if request.prompt else ()
        check_ar_request(request, self.config, self.network.config, self.tokenizer.spec)
        start = self._read(input, request)
        check_prefix(request, 0 if start is None else len(start), self.network.config, self.tokenizer.spec)
        verdicts += () if start is None else self.guardrails.enforce_video(start, request.fps, what="input")
        record, tally = record_of(request, self.provenance, input=input), Tally()
        pieces = (piece[0] for piece in self._pieces(request, [start], tally, callback_on_step_end))
        return FrameStream(request, record, verdicts, pieces, self.guardrails, tally)

    def resolve(self, **asked: Any) -> AutoregressiveRequest:
        """Fill what was not asked (None) with the world's defaults and check it. Raises ConfigError or UsageError."""
        request = complete_ar_request(self.config, asked)
        check_ar_request(request, self.config, self.network.config, self.tokenizer.spec)
        return request

    def sample(
        self,
        request: AutoregressiveRequest,
        prefixes: Sequence[np.ndarray | None],
        actions_BFA: np.ndarray | None = None,
        *,
        callback_on_step_end: StepCallback | None = None,
        tally: Tally | None = None,
    ) -> np.ndarray:
        """The unguarded middle of `generate` for a batch of prefixes of one length: uint8 [B, F, H, W, 3].

        For evaluation, where the frames are compared and not handed out. Sample i has the seed `request.seed + i`.
        """
        refuse(actions=actions_BFA)
        count = 0 if prefixes[0] is None else len(prefixes[0])
        check_prefix(request, count, self.network.config, self.tokenizer.spec)
        tally = tally if tally is not None else Tally()
        return np.concatenate(list(self._pieces(request, prefixes, tally, callback_on_step_end)), axis=1)

    @torch.inference_mode()
    def encode_text(self, prompt: str) -> TextContext | None:
        """What the network reads of a prompt; None, its cross-attention left out, for no prompt or a network without."""
        if not prompt or not self.network.config.context_dim:
            return None
        if self.encoder is None:
            self.encoder = text_encoder(self.config.text_encoder, self.config.context_rows)
        rows_BMD = self.encoder.encode([prompt]).to(self.device)
        return TextContext(rows_BMD=rows_BMD, mask_BM=rows_BMD.ne(0).any(-1))

    # -- where it runs ----------------------------------------------------------------------------------------------

    @property
    def device(self) -> torch.device:
        return next(self.network.parameters()).device

    def place(self, device: torch.device, level: Level | Literal["auto"] = "auto") -> Level:
        """Move to a device. Raises UsageError for a level of offloading: every token needs all weights."""
        if level not in ("auto", "none"):
            raise UsageError(
                f"An autoregressive world cannot be offloaded ({level!r}): each token needs all of its weights.",
                "Leave offloading out; int8 weights take half of the memory.",
            )
        self.network.to(device), self.tokenizer.to(device)
        self._lean = None
        return "none"

    def quantize(self) -> None:
        """Round the weights of the network's blocks to 8 bits, once."""
        quantize_linears(self.network.blocks)
        self._lean = None
        self.provenance["weights"] = "int8"

    def _for_decoding(self) -> Transformer:
        """The network in fewer operations (`autoregressive.lean`), on a CPU that has room for it beside the network itself.

        Made before the first video from the weights as they are then.
        """
        if self._lean is None:
            fits = self.device.type == "cpu" and module_bytes(self.network) < free_memory(self.device)
            self._lean = self.network.for_decoding() if fits else self.network
        return self._lean

    # -- before and after -------------------------------------------------------------------------------------------

    def _read(self, source: Frames | None, request: AutoregressiveRequest) -> np.ndarray | None:
        """The last frames of an input at the output's size."""
        if source is None:
            return None
        if not request.num_prefix_frames:
            raise UsageError("With num_prefix_frames 0 the input would not be used.", "Raise it, or leave the input out.")
        return read_prefix(source, request.num_prefix_frames, request.height, request.width)

    def _pieces(
        self,
        request: AutoregressiveRequest,
        prefixes: Sequence[np.ndarray | None],
        tally: Tally,
        callback: StepCallback | None,
    ) -> Iterator[np.ndarray]:
        """uint8 [B, F, H, W, 3]: the prefix, then each latent frame; with a diffusion decoder all at once. Cropped to the request."""
        frames = [prefix for prefix in prefixes if prefix is not None]
        given_BFHWC = start_frames(np.stack(frames), self.tokenizer.spec.t) if frames else None
        generators = seeded(request.seed, len(prefixes))
        tokens = self._tokens(request, given_BFHWC, generators, tally, callback)
        done = 0
        for piece_BFHWC in self._pixels(request, tokens, generators):
            stop = min(request.num_frames, done + piece_BFHWC.shape[1])
            piece_BFHWC = piece_BFHWC[:, : stop - done]
            if request.keep_input and given_BFHWC is not None and done == 0:  # the prefix is never cut between pieces
                piece_BFHWC[:, : given_BFHWC.shape[1]] = given_BFHWC
            yield piece_BFHWC
            done = stop

    @torch.inference_mode()
    def _tokens(
        self,
        request: AutoregressiveRequest,
        given_BFHWC: np.ndarray | None,
        generators: Sequence[torch.Generator],
        tally: Tally,
        callback: StepCallback | None,
    ) -> Iterator[Tensor]:
        """The prefix's tokens as they are, then each new latent frame's, [B, T, H, W]."""
        spec, (_, rows, columns) = self.tokenizer.spec, self.network.config.latent_shape
        prefix_BTHW = torch.zeros(len(generators), 0, rows, columns, dtype=torch.long, device=self.device)
        if given_BFHWC is not None:
            prefix_BTHW = self.tokenizer.encode_indices(to_unit_range(given_BFHWC, self.device)).long()
            yield prefix_BTHW
        text = self.encode_text(request.prompt)
        if text is not None:
            expanded = (part.expand(len(generators), *part.shape[1:]) for part in (text.rows_BMD, text.mask_BM))
            text = TextContext(**dict(zip(("rows_BMD", "mask_BM"), expanded, strict=True)))
        total = prefix_latents(spec.round_up_frames(request.num_frames), spec.t) - prefix_BTHW.shape[1]
        network = self._for_decoding()
        made = roll_out(
            network, prefix_BTHW, total, kept=kept_frames(network, self.config.kept_latent_frames),
            sampling=request.sampling, generators=generators, text=text, tally=tally,
            draft=make_draft(network, request.speculate, request.draft_length),
        )  # fmt: skip
        for number, tokens_BTHW in enumerate(made):
            if callback is not None:
                callback(number, total, tokens_BTHW)
            yield tokens_BTHW

    def _pixels(
        self, request: AutoregressiveRequest, tokens: Iterator[Tensor], generators: Sequence[torch.Generator]
    ) -> Iterator[np.ndarray]:
        """Pieces of tokens → uint8 [B, F, H, W, 3]."""
        if request.token_decoder != OWN_DECODER:
            decoder = self._decoder(request.token_decoder)
            indices_BTHW = torch.cat(list(tokens), dim=1)
            yield decoder.decode(indices_BTHW, fps=request.fps, generators=generators)
            return
        stream = StreamDecoder(self.tokenizer)
        for indices_BTHW in tokens:
            yield stream(self.tokenizer.quantizer.indices_to_codes(indices_BTHW, self.tokenizer.dtype))

    def _decoder(self, name: str) -> "TokenDecoder":
        """Read once. Raises CheckpointError for one of another tokenizer."""
        from worldfoundry.inference.token_decoder import load_token_decoder

        if name not in self._decoders:
            self._decoders[name] = load_token_decoder(name, tokenizer=self.tokenizer, device=self.device)
        return self._decoders[name]


def check_same_tokens(network: Transformer, tokenizer: DiscreteTokenizer) -> None:
    """Whether network and tokenizer mean the same number of tokens. Raises CheckpointError."""
    codes = tokenizer.config.codebook_size
    if network.config.vocab_size != codes:
        raise CheckpointError(
            f"The transformer predicts {network.config.vocab_size!r} tokens, the tokenizer has {codes!r} (levels "
            f"{tokenizer.spec.levels!r}).",
            "Use the tokenizer that the transformer was trained with.",
        )
