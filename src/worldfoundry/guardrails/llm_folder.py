"""A guard model in a transformers folder on this machine: read, asked with its own chat template, and its answer parsed.

Decoding is greedy, so one text gives one answer. A text that holds the model's own control tokens is not put to it.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from worldfoundry.core.errors import CheckpointError
from worldfoundry.core.files import read_json
from worldfoundry.core.transformers_folder import read_folder, read_network, transformers_library
from worldfoundry.guardrails.llm_formats import SHIELDGEMMA, Answer, Model, Unusable, parse, plain_prompt


class FolderModel:
    """`ask(text) -> (answer, what to record)`.

    Raises MissingExtraError without transformers, CheckpointError for a folder that lacks something.
    """

    def __init__(self, config: Any) -> None:
        """`config` is a `worldfoundry.guardrails.llm.LlmConfig` with a folder."""
        transformers = transformers_library()
        self.config, self.kind = config, config.model
        if not config.folder.is_dir():
            raise CheckpointError(f"There is no folder {str(config.folder)!r}.", f"Copy {self.kind} there.")
        self.tokenizer = read_folder(config.folder, transformers.AutoTokenizer.from_pretrained)
        self.network = read_network(config.folder, transformers.AutoModelForCausalLM.from_pretrained, what="guard model")
        if config.adapter is not None:
            add_adapter(self.network, config.adapter)

    def ask(self, text: str) -> tuple[Answer, Mapping[str, Any]]:
        """What the model holds of a text. Raises Unusable if it does not say it as documented."""
        control = [token for token in self._control_tokens() if token in text]
        if control:
            raise CheckpointError(f"The text holds {control[0]!r}, which steers the model.", "Take it out of the text.")
        if self.kind == "shieldgemma":
            return self._ask_rules(text)
        return parse(self.kind, self._generate(self._ids(text))), {"folder": str(self.config.folder)}

    def _control_tokens(self) -> list[str]:
        added = [str(token) for token in self.tokenizer.get_added_vocab()]
        return [token for token in {*self.tokenizer.all_special_tokens, *added, "</text>"} if token.strip()]

    def _ids(self, text: str, rule: str = "") -> Any:
        """[1, L] token ids of the question: by the folder's chat template, or in our words where there is none."""
        kind: Model = self.kind
        if self.tokenizer.chat_template and kind != "shieldgemma":
            messages = [{"role": "user", "content": text}]
            asked = self.tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
            return self.tokenizer(asked, add_special_tokens=False, return_tensors="pt").input_ids
        return self.tokenizer(plain_prompt(kind, text, rule), return_tensors="pt").input_ids

    def _generate(self, ids_1L: Any) -> str:
        """The answer up to its end token. Raises Unusable if it does not come to an end."""
        import torch

        ids_1L = ids_1L.to(self.network.device)
        with torch.inference_mode():
            out_1L = self.network.generate(
                ids_1L, attention_mask=torch.ones_like(ids_1L), do_sample=False, max_new_tokens=self.config.max_new_tokens
            )
        answer = out_1L[0, ids_1L.shape[1] :].tolist()
        ends = self.network.generation_config.eos_token_id
        ends = {ends} if isinstance(ends, int) else set(ends or ()) | {self.tokenizer.eos_token_id}
        said = self.tokenizer.decode(answer, skip_special_tokens=True)
        if not answer or answer[-1] not in ends:
            raise Unusable(f"{said[:40]}... without an end")
        return said

    def _ask_rules(self, text: str) -> tuple[Answer, Mapping[str, Any]]:
        scores = {rule: self._yes(self._ids(text, rule)) for rule in SHIELDGEMMA}
        broken = tuple(rule for rule, score in scores.items() if score >= self.config.threshold)
        answer = Answer(
            judgement="unsafe" if broken else "safe", codes=broken, categories=tuple(SHIELDGEMMA[rule][1] for rule in broken)
        )
        return answer, {"folder": str(self.config.folder), "scores": {rule: round(score, 4) for rule, score in scores.items()}}

    def _yes(self, ids_1L: Any) -> float:
        """The probability of Yes against No as the next token, if one of the two is what the model would say."""
        import torch

        words = [self.tokenizer(word, add_special_tokens=False).input_ids for word in ("Yes", "No")]
        if any(len(ids) != 1 for ids in words):
            raise Unusable("Yes and No are no single tokens of this tokenizer")
        with torch.inference_mode():
            logits_V = self.network(ids_1L.to(self.network.device)).logits[0, -1].float()
        pair = [ids[0] for ids in words]
        if int(logits_V.argmax()) not in pair or not bool(torch.isfinite(logits_V[pair]).all()):
            raise Unusable(self.tokenizer.decode([int(logits_V.argmax())]))
        return float(torch.softmax(logits_V[pair], 0)[0])


def add_adapter(network: Any, folder: Path) -> None:
    """Add a PEFT LoRA to a network's weights: W + alpha / r · B A. Raises CheckpointError for what does not fit."""
    import torch
    from safetensors.torch import load_file

    fields, file = read_json(folder / "adapter_config.json"), folder / "adapter_model.safetensors"
    if fields.get("peft_type") != "LORA" or not file.is_file():
        raise CheckpointError(
            f"{str(folder)!r} holds no LoRA in PEFT's layout with safetensors.", "Convert its .bin file first."
        )
    rank, alpha = int(fields["r"]), float(fields["lora_alpha"])
    scale = alpha / rank**0.5 if fields.get("use_rslora") else alpha / rank
    left, weights = load_file(file), dict(network.named_parameters())
    with torch.no_grad():
        for name in [name for name in left if name.endswith(".lora_A.weight")]:
            a_RI, b_OR = left.pop(name), left.pop(name.replace("lora_A", "lora_B"), None)
            target = weights.get(name.removeprefix("base_model.model.").replace(".lora_A.weight", ".weight"))
            if target is None or b_OR is None or target.shape != (b_OR.shape[0], a_RI.shape[1]):
                raise CheckpointError(
                    f"The adapter {str(folder)!r} does not fit the model at {name!r}.", "Take the model it was made for."
                )
            target += (scale * (b_OR.float() @ a_RI.float())).to(target)
    if left:
        raise CheckpointError(f"The adapter {str(folder)!r} holds {min(left)!r}, which is no LoRA.", "Take another adapter.")
