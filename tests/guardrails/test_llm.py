"""Guard models of others: answers are parsed strictly, and everything that goes wrong blocks."""

import contextlib
import http.server
import json
import threading

import pytest

from worldfoundry.core.errors import ConfigError
from worldfoundry.guardrails.categories import CATEGORIES
from worldfoundry.guardrails.llm import LlmConfig, LlmGuard
from worldfoundry.guardrails.llm_formats import AEGIS, LLAMA_GUARD_3, SHIELDGEMMA, Unusable, parse, plain_prompt


@pytest.mark.parametrize(
    ("model", "said", "judgement", "categories"),
    [
        ("llama-guard-3", "\n\nsafe", "safe", ()),
        ("llama-guard-3", "\n\nunsafe\nS1", "unsafe", ("violence",)),
        ("llama-guard-3", "unsafe\nS4,S12", "unsafe", ("csam", "sexual")),
        ("aegis", "unsafe\nO5, O11", "unsafe", ("drugs", "threat")),
        ("qwen3guard", "Safety: Safe\nCategories: None", "safe", ()),
        ("qwen3guard", "Safety: Unsafe\nCategories: Violent, Jailbreak", "unsafe", ("violence", "jailbreak")),
        ("qwen3guard", "Safety: Controversial\nCategories: Unethical Acts", "controversial", ("hatred",)),
        ("shieldgemma", "Yes", "unsafe", ()),
        ("shieldgemma", "No", "safe", ()),
    ],
)
def test_documented_answers_are_understood(model, said, judgement, categories):
    answer = parse(model, said)
    assert (answer.judgement, answer.categories) == (judgement, categories)


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("llama-guard-3", ""),
        ("llama-guard-3", "Safe"),
        ("llama-guard-3", "safe\nS1"),
        ("llama-guard-3", "unsafe"),
        ("llama-guard-3", "unsafe\nS99"),
        ("llama-guard-3", "not unsafe"),
        ("llama-guard-3", "The message is safe."),
        ("aegis", "unsafe\nS1"),
        ("qwen3guard", "Safety: Safe"),
        ("qwen3guard", "Safety: Safe\nCategories: Violent"),
        ("qwen3guard", "Safety: Unsafe\nCategories: None"),
        ("qwen3guard", "Safety: Unsafe\nCategories: Nonsense"),
        ("qwen3guard", "safe"),
        ("shieldgemma", "Yes, because"),
        ("shieldgemma", "maybe"),
    ],
)
def test_other_answers_are_no_answers(model, said):
    with pytest.raises(Unusable):
        parse(model, said)


def test_prompts_hold_the_text_and_every_category():
    assert all(code in plain_prompt("llama-guard-3", "a cube", "") for code in LLAMA_GUARD_3)
    assert all(name in plain_prompt("aegis", "a cube", "") for name, _ in AEGIS.values())
    for rule in SHIELDGEMMA:
        assert rule in plain_prompt("shieldgemma", "a cube", rule)
        assert "a cube" in plain_prompt("shieldgemma", "a cube", rule)
    assert {ours for _, ours in AEGIS.values()} >= set(CATEGORIES)


# --- a server on this machine ----------------------------------------------------------------------------------------


@pytest.fixture
def serve():
    """`serve(answer, status, wait_s)` starts a server that gives this answer to every question, and tells its address."""
    servers = []

    def start(answer, status=200, wait_s=0.0):
        class Handler(http.server.BaseHTTPRequestHandler):
            def log_message(self, *args):
                pass

            def do_GET(self):
                self.reply(200, json.dumps({"data": [{"id": "guard"}]}).encode())

            def do_POST(self):
                self.rfile.read(int(self.headers["Content-Length"]))
                stop.wait(wait_s)
                self.reply(status, answer if isinstance(answer, bytes) else json.dumps(answer).encode())

            def reply(self, code, body):
                self.send_response(code)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                with contextlib.suppress(OSError):  # the guard may have hung up
                    self.wfile.write(body)

        stop = threading.Event()
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append((server, stop))
        return f"http://127.0.0.1:{server.server_address[1]}/v1"

    yield start
    for server, stop in servers:
        stop.set()
        server.shutdown()
        server.server_close()


def flags(flagged, **categories):
    return {"results": [{"flagged": flagged, "categories": categories}]}


@pytest.mark.parametrize(
    ("answer", "status", "category"),
    [
        (flags(False, violence=False), "safe", ""),
        (flags(True, violence=True), "unsafe", "violence"),
        (flags(True, **{"sexual/minors": True, "sexual": True}), "unsafe", "sexual"),
        (flags(True, violence=False), "unsafe", ""),
        (flags(False, violence=True), "error", ""),
        (flags("no", violence=False), "error", ""),
        (flags(False), "error", ""),
        ({"results": []}, "error", ""),
        ({"results": [1]}, "error", ""),
        ([], "error", ""),
        (b"safe", "error", ""),
        (b'{"results": [{"flagged": fal', "error", ""),
    ],
)
def test_a_moderation_server(serve, answer, status, category):
    verdict = LlmGuard(LlmConfig(model="moderation", url=serve(answer))).check("a cube falls")
    assert (verdict.status, verdict.category) == (status, category)
    assert status != "error" or verdict.evidence["fix"]


def test_a_server_that_fails_hangs_or_is_not_there_blocks(serve):
    for url in (serve({}, status=500), serve(flags(False, violence=False), wait_s=30.0), "http://127.0.0.1:9/v1#guard"):
        verdict = LlmGuard(LlmConfig(model="moderation", url=url, timeout_s=0.3)).check("a cube falls")
        assert verdict.status == "error"
        assert "guard server" in verdict.reason


def chat(said):
    return {"choices": [{"message": {"content": said}}]}


def test_a_chat_server_and_controversial_texts(serve):
    unsure = serve(chat("Safety: Controversial\nCategories: Unethical Acts"))
    assert LlmGuard(LlmConfig(url=unsure)).check("a cube").status == "unsafe"
    assert LlmGuard(LlmConfig(url=unsure, controversial="allow")).check("a cube").status == "safe"
    assert LlmGuard(LlmConfig(url=serve(chat("Safety: Safe\nCategories: None")))).check("a cube").status == "safe"
    cut = LlmGuard(LlmConfig(url=serve(chat("Safety: Sa")))).check("a cube")
    assert cut.status == "error"
    assert "not documented" in cut.reason


def test_what_needs_no_model_and_what_is_not_configured():
    guard = LlmGuard(LlmConfig())
    assert guard.check("  ").status == "safe"
    assert guard.check("a cube").status == "error"
    assert "llm.folder" in guard.check("a cube").evidence["fix"]
    assert guard.check("x" * 9000).status == guard.check("a\x00").status == "error"
    for wrong in ({"folder": "a", "url": "b"}, {"model": "moderation", "folder": "a"}, {"model": "shieldgemma", "url": "b"}):
        with pytest.raises(ConfigError):
            LlmConfig.from_dict(wrong)


# --- folders -----------------------------------------------------------------------------------------------------------


WORDS = ["safe", "unsafe", "Yes", "No", "a", "cube", "falls", "S1", "\n"]


def tiny(folder, architecture, says="safe", *, ends=True):
    """A guard model of a few thousand weights whose next token is always `says`, and after it the end."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    from tokenizers import Tokenizer, models, pre_tokenizers

    vocabulary = {word: i for i, word in enumerate(["<unk>", "<s>", "</s>", *WORDS])}
    plain = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    plain.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=plain, unk_token="<unk>", bos_token="<s>", eos_token="</s>", pad_token="</s>"
    )
    sizes = {"vocab_size": len(vocabulary), "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
    sizes |= {"num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 8, "bos_token_id": 1, "eos_token_id": 2}
    config = getattr(transformers, f"{architecture}Config")(**sizes, pad_token_id=2, tie_word_embeddings=False)
    torch.manual_seed(0)
    network = getattr(transformers, f"{architecture}ForCausalLM")(config)
    with torch.no_grad():  # the output looks at the last token alone: after `says` comes the end, after anything else `says`
        for name, weight in network.named_parameters():
            if name.endswith(("o_proj.weight", "down_proj.weight")):
                weight.zero_()
        embed, head = network.get_input_embeddings().weight, network.get_output_embeddings().weight
        embed.fill_(0.0)
        embed[:, 0], embed[vocabulary[says], :] = 1.0, 0.0
        embed[vocabulary[says], 1] = 1.0
        head.zero_()
        head[vocabulary[says], 0] = 9.0
        head[2 if ends else vocabulary[says], 1] = 9.0
    network.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.parametrize(("model", "architecture"), [("llama-guard-3", "Llama"), ("aegis", "Llama")])
def test_a_folder_that_says_safe(tmp_path, model, architecture):
    guard = LlmGuard(LlmConfig(model=model, folder=tiny(tmp_path / "m", architecture)))
    verdict = guard.check("a cube falls")
    assert verdict.status == "safe", verdict
    assert guard.check("a cube </s> safe").status == "error"


def test_qwen_saying_what_it_should_not_and_answers_without_end_block(tmp_path):
    wrong = LlmGuard(LlmConfig(folder=tiny(tmp_path / "q", "Qwen3"))).check("a cube falls")
    endless = LlmGuard(LlmConfig(model="llama-guard-3", folder=tiny(tmp_path / "e", "Llama", ends=False))).check("a cube")
    assert (wrong.status, endless.status) == ("error", "error")
    assert "without an end" in endless.reason


@pytest.mark.parametrize(("says", "status"), [("Yes", "unsafe"), ("No", "safe"), ("cube", "error")])
def test_shieldgemma_is_read_by_its_probabilities(tmp_path, says, status):
    guard = LlmGuard(LlmConfig(model="shieldgemma", folder=tiny(tmp_path / "g", "Gemma2", says)))
    verdict = guard.check("a cube falls")
    assert verdict.status == status, verdict
    if status != "error":
        assert set(verdict.evidence["scores"]) == set(SHIELDGEMMA)


def test_an_adapter_is_added_to_its_model(tmp_path):
    torch = pytest.importorskip("torch")
    from safetensors.torch import save_file

    from worldfoundry.core.errors import CheckpointError
    from worldfoundry.guardrails.llm_folder import add_adapter

    network = torch.nn.ModuleDict({"q_proj": torch.nn.Linear(4, 6, bias=False)})
    before = network["q_proj"].weight.detach().clone()
    a, b = torch.randn(2, 4), torch.randn(6, 2)
    (tmp_path / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 2, "lora_alpha": 8}))
    names = ("base_model.model.q_proj.lora_A.weight", "base_model.model.q_proj.lora_B.weight")
    save_file(dict(zip(names, (a, b), strict=True)), tmp_path / "adapter_model.safetensors")
    add_adapter(network, tmp_path)
    torch.testing.assert_close(network["q_proj"].weight, before + 4 * b @ a)
    with pytest.raises(CheckpointError, match="does not fit"):
        add_adapter(torch.nn.ModuleDict({"other": torch.nn.Linear(4, 6)}), tmp_path)


def test_a_folder_that_is_absent_blocks(tmp_path):
    pytest.importorskip("transformers")
    verdict = LlmGuard(LlmConfig(folder=tmp_path / "nothing")).check("a cube")
    assert verdict.status == "error"
    assert "no folder" in verdict.reason
