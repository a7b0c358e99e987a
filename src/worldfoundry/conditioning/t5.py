"""Prompts → context rows by a T5 encoder, as the published worlds are told theirs (arXiv 2501.03575, section 5.1.2: T5-11B).

Legend: B prompts, L rows, D width. The published code pads every prompt to L = 512, masks the padding inside the encoder and
then sets its rows to zero. The mask makes the other rows independent of the padding, so none is computed here.
"""

from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from worldfoundry.core.errors import CheckpointError
from worldfoundry.core.files import read_fields
from worldfoundry.core.transformers_folder import read_folder, transformers_library

PUBLISHED_ROWS = 512


class T5TextEncoder:
    """Last hidden states of a T5 encoder, one row per piece, the closing `</s>` included.

    Nothing is read but the width until the first prompt comes: the published encoder is larger than most networks it serves.
    """

    name = "t5"

    def __init__(
        self,
        encoder: Path,
        tokenizer: Path,
        max_length: int = PUBLISHED_ROWS,
        *,
        dtype: torch.dtype | None = None,
        device: torch.device | None = None,
    ) -> None:
        """From the folders `text_encoder` and `tokenizer` of a pipeline. Raises CheckpointError where config.json is no T5's."""
        fields = read_fields(encoder / "config.json") if (encoder / "config.json").is_file() else {}
        if fields.get("model_type") != "t5" or not isinstance(fields.get("d_model"), int):
            raise CheckpointError(f"{str(encoder)!r} holds no T5 encoder.", "Its config.json must name model_type 't5'.")
        self.encoder, self.tokenizer, self.max_length, self.width = encoder, tokenizer, max_length, fields["d_model"]
        self.dtype, self.device = dtype, device

    @torch.no_grad()
    def encode(self, prompts: list[str]) -> Tensor:
        """[B, L, D] in float32, zero past each prompt's length; longer prompts are cut, their closing `</s>` kept.

        Raises MissingExtraError without transformers, CheckpointError for folders that it cannot read.
        """
        result = torch.zeros(len(prompts), self.max_length, self.width, device=self.device)
        if prompts:
            rows = self._pieces(prompts, padding=True, truncation=True, max_length=self.max_length, return_tensors="pt")
            ids_BL, mask_BL = (rows[name].to(self.device) for name in ("input_ids", "attention_mask"))
            hidden_BLD = self._network(ids_BL, attention_mask=mask_BL).last_hidden_state.float()
            result[:, : hidden_BLD.shape[1]] = hidden_BLD * mask_BL[..., None]
        return result

    def count_tokens(self, prompt: str) -> int:
        return len(self._pieces(prompt).input_ids)

    @property
    def stored_bytes(self) -> int:
        """What the encoder's weights take on disk, and about that in memory."""
        return sum(file.stat().st_size for file in self.encoder.glob("*.safetensors"))

    def release(self) -> None:
        """Let go of the network; the next prompt reads it anew."""
        self.__dict__.pop("_network", None)

    @cached_property
    def _network(self) -> Any:
        transformers = transformers_library()
        network, told = read_folder(
            self.encoder,
            transformers.T5EncoderModel.from_pretrained,
            use_safetensors=True,
            output_loading_info=True,
            torch_dtype=self.dtype or "auto",
        )
        if told["missing_keys"]:  # transformers would go on with random ones
            raise CheckpointError(
                f"The T5 encoder {str(self.encoder)!r} lacks {len(told['missing_keys'])} tensors, for example "
                f"{min(told['missing_keys'])!r}.",
                "Copy the whole folder again.",
            )
        return network.to(self.device).eval().requires_grad_(False)

    @cached_property
    def _pieces(self) -> Any:
        return read_folder(self.tokenizer, transformers_library().AutoTokenizer.from_pretrained)
