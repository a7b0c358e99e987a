"""Decoding: with a cache, in blocks, in batches and with guesses it is what one token after the other gives.

`Markov` stands in for a network where only the distribution of tokens matters: what follows a token depends on it alone.
"""

import math

import pytest
import torch

from worldfoundry.autoregressive.config import TransformerConfig
from worldfoundry.autoregressive.decoding import Tally, context_length, generate
from worldfoundry.autoregressive.drafts import CopyDraft, MedusaDraft
from worldfoundry.autoregressive.sampling import Race, Sampling
from worldfoundry.autoregressive.transformer import TextContext, Transformer
from worldfoundry.core.errors import UsageError

TINY = TransformerConfig(
    vocab_size=24, dim=12, num_layers=2, num_heads=2, num_kv_heads=1, head_dim=6, ffn_hidden_size=16, latent_shape=(4, 2, 3),
    max_seq_len=32, medusa_heads=3,
)  # fmt: skip
ALL = Sampling(top_p=1.0)


def tiny(**changes):
    network = Transformer(TINY.replace(**changes)).eval().requires_grad_(False)
    generator = torch.Generator().manual_seed(3)
    for parameter in network.parameters():
        parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.7)
    return network


@pytest.fixture(scope="module")
def network():
    return tiny()


def generators(*seeds):
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def prefix(batch=1, length=6):
    return torch.randint(0, TINY.vocab_size, (batch, length), generator=generators(7)[0])


def tokens(network, prefix_BL, num_new, sampling=ALL, seeds=(0,), **options):
    return torch.cat(
        list(generate(network, prefix_BL, num_new, sampling=sampling, generators=generators(*seeds), **options)), 1
    )


# -- plain ----------------------------------------------------------------------------------------------------------


def test_greedy_decoding_is_the_argmax_of_the_whole_forward_pass(network):
    known = prefix()
    for _ in range(8):
        known = torch.cat([known, network(known)[:, -1:].argmax(-1)], dim=1)
    assert torch.equal(tokens(network, prefix(), 8, Sampling(temperature=0)), known[:, 6:])


def test_a_network_with_bov_starts_from_text_alone():
    network = tiny(bov=True, abs_pos_emb=True, context_dim=5)
    text = TextContext(rows_BMD=torch.randn(1, 4, 5, generator=generators(1)[0]), mask_BM=torch.ones(1, 4, dtype=torch.bool))
    known = torch.full((1, 1), TINY.vocab_size)
    for _ in range(6):
        known = torch.cat([known, network(known, text)[:, -1:].argmax(-1)], dim=1)
    none = torch.zeros(1, 0, dtype=torch.long)
    assert torch.equal(tokens(network, none, 6, Sampling(temperature=0), text=text), known[:, 1:])


def test_blocks_come_as_they_complete(network):
    tally = Tally()
    blocks = generate(network, prefix(), 12, sampling=ALL, generators=generators(0), stop_multiple=6, tally=tally)
    assert (next(blocks).shape, tally.tokens) == ((1, 6), 6)
    assert (next(blocks).shape, tally.tokens) == ((1, 6), 12)
    assert next(blocks, None) is None


def test_a_sample_does_not_depend_on_its_batch(network):
    together = tokens(network, prefix(3), 10, seeds=(4, 5, 6))
    for row, seed in enumerate((4, 5, 6)):
        assert torch.equal(tokens(network, prefix(3)[row : row + 1], 10, seeds=(seed,))[0], together[row])


def test_a_seed_repeats_and_another_differs(network):
    one, two, three = (tokens(network, prefix(), 12, seeds=(seed,)) for seed in (1, 1, 2))
    assert torch.equal(one, two)
    assert not torch.equal(one, three)


# -- with guesses ---------------------------------------------------------------------------------------------------

DRAFTS = {"copy": lambda network: CopyDraft(6, 4), "medusa": MedusaDraft}


@pytest.mark.parametrize("draft", DRAFTS)
@pytest.mark.parametrize("sampling", [Sampling(temperature=0), ALL, Sampling(top_p=0.7, temperature=0.5)], ids=str)
def test_guesses_never_change_the_tokens(network, draft, sampling):
    plain = tokens(network, prefix(), 18, sampling)
    assert torch.equal(tokens(network, prefix(), 18, sampling, draft=DRAFTS[draft](network)), plain)


@pytest.mark.parametrize("draft", DRAFTS)
def test_guesses_take_no_random_numbers_beyond_the_end(network, draft):
    """So that whatever is drawn next with a sample's generator does not depend on the draft either."""
    states = []
    for guesses in (None, DRAFTS[draft](network)):
        generator = generators(1)
        list(generate(network, prefix(), 18, sampling=ALL, generators=generator, draft=guesses))
        states.append(generator[0].get_state())
    assert torch.equal(*states)


@pytest.mark.parametrize("draft", DRAFTS)
def test_guesses_never_change_the_tokens_of_a_batch(network, draft):
    plain = tokens(network, prefix(3), 18, seeds=(1, 2, 3))
    assert torch.equal(tokens(network, prefix(3), 18, seeds=(1, 2, 3), draft=DRAFTS[draft](network)), plain)


class Oracle:
    """Knows what comes, but for the places it is told to get wrong."""

    def __init__(self, future_BL, length, wrong=()):
        self.future_BL, self.length = future_BL.clone(), length
        self.future_BL[:, list(wrong)] = (self.future_BL[:, list(wrong)] + 1) % TINY.vocab_size

    def propose(self, known_BL, hidden_BD, race, most):
        done = known_BL.shape[1] - 6
        return self.future_BL[:, done : done + min(self.length, most)]


def test_a_perfect_draft_gives_all_its_guesses_and_one_token_more_per_pass(network):
    future, tally = tokens(network, prefix(), 18), Tally()
    assert torch.equal(tokens(network, prefix(), 18, draft=Oracle(future, 3), tally=tally), future)
    # the prefill has no guesses; 17 tokens in passes of 3 + 1, the last of a single one
    assert (tally.forwards, tally.guessed, tally.confirmed) == (1 + 5, 12, 12)
    assert tally.tokens_per_forward == 18 / 6


def test_a_draft_that_is_always_wrong_costs_nothing_but_time(network):
    future, tally = tokens(network, prefix(), 12), Tally()
    assert torch.equal(tokens(network, prefix(), 12, draft=Oracle(future, 3, range(12)), tally=tally), future)
    assert (tally.forwards, tally.tokens, tally.confirmed) == (12, 12, 0)


def test_a_batch_advances_by_the_fewest_confirmed_guesses(network):
    future, tally = tokens(network, prefix(2), 9, seeds=(1, 2)), Tally()
    draft = Oracle(future, 3)
    draft.future_BL[1, 2] = (draft.future_BL[1, 2] + 1) % TINY.vocab_size
    assert torch.equal(tokens(network, prefix(2), 9, seeds=(1, 2), draft=draft, tally=tally), future)
    assert tally.forwards == 1 + 1 + 2  # prefill: token 0; then 1 and 2 (row 1's guess of 2 fails); 3 to 6; 7 and 8


def test_zero_medusa_heads_guess_what_the_network_expects_next(network):
    """A head of zeros hands on the network's own last layer: its first guess is what the network would draw there."""
    zero = tiny()
    zero.medusa.merged.weight.zero_()
    seen = []

    class Spy(MedusaDraft):
        def propose(self, known_BL, hidden_BD, race, most):
            guesses = super().propose(known_BL, hidden_BD, race, most)
            seen.append((guesses, zero.logits(hidden_BD).argmax(-1)))
            return guesses

    tokens(zero, prefix(), 6, Sampling(temperature=0), draft=Spy(zero))
    assert seen[0][0].shape == (1, 3)
    assert all((guesses == expected).all() for guesses, expected in seen)


def test_copying_waits_for_a_whole_frame_and_has_a_length():
    draft, known, race, none = CopyDraft(6, 4), torch.arange(13)[None], Race(ALL, []), torch.empty(1, 0)
    assert draft.propose(known[:, :5], none, race, 9).shape == (1, 0)
    assert draft.propose(known, none, race, 9).tolist() == [[7, 8, 9, 10]]
    assert draft.propose(known, none, race, 2).tolist() == [[7, 8]]
    with pytest.raises(UsageError, match="between 1 and 6"):
        CopyDraft(6, 7)
    with pytest.raises(UsageError, match="no Medusa heads"):
        MedusaDraft(tiny(medusa_heads=0))


# -- the distribution -----------------------------------------------------------------------------------------------

STATES, LENGTH = 4, 1500
CHI_SQUARE_12 = 32.9  # 0.1 % of the chi-square distribution of 4 · 3 degrees of freedom


class Markov:
    """p(next | token) is a row of a table. `medusa` makes of a token the table of two steps on, and errs a little."""

    def __init__(self, table_VV):
        self.table_VV, self.wrong_VV = table_VV, 0.6 * table_VV @ table_VV + 0.4 * table_VV.flip(1)
        self.config = TransformerConfig(
            vocab_size=STATES, latent_shape=(LENGTH + 1, 1, 1), max_seq_len=LENGTH + 1, num_layers=1, dim=6, num_heads=1,
            num_kv_heads=1, head_dim=6, ffn_hidden_size=1, medusa_heads=2,
        )  # fmt: skip

    def parameters(self):
        return iter([self.table_VV])

    def hidden(self, tokens_BL, text, cache):
        cache.length += tokens_BL.shape[1]
        return self.table_VV[tokens_BL]

    def logits(self, p_BLV):
        return p_BLV.log()

    def medusa(self, p_BLV):
        return torch.stack([p_BLV @ self.wrong_VV, p_BLV @ self.table_VV], dim=2)


@pytest.fixture(scope="module")
def chain():
    return Markov(torch.softmax(torch.randn(STATES, STATES, generator=generators(2)[0]) * 1.2, dim=-1))


def chi_square(chain, tokens_L):
    """Of the transitions against the table; given the tokens before, each is an independent draw."""
    seen = torch.zeros(STATES, STATES).index_put_((tokens_L[:-1], tokens_L[1:]), torch.ones(len(tokens_L) - 1), accumulate=True)
    want = seen.sum(1, keepdim=True) * chain.table_VV
    return float(((seen - want) ** 2 / want).sum())


@pytest.mark.parametrize(("name", "draft"), [("copy", lambda c: CopyDraft(1, 1)), ("medusa", MedusaDraft)])
def test_speculation_keeps_the_distribution(chain, name, draft):
    tally = Tally()
    drawn = tokens(chain, torch.zeros(1, 1, dtype=torch.long), LENGTH, draft=draft(chain), seeds=(5,), tally=tally)
    assert chi_square(chain, drawn[0]) < CHI_SQUARE_12
    assert 0.2 < tally.confirmed / tally.guessed < 0.9  # both outcomes were exercised


@pytest.mark.parametrize("error", ["residual not renormalised", "bonus token not drawn"])
def test_the_bound_would_catch_the_usual_errors(chain, error):
    """Two wrong verifications of a copied token, by hand: what replaces a refused guess may be the guess again; and a confirmed
    guess is handed out, and copied once more instead of a token drawn after it."""
    generator, drawn = generators(5)[0], [0]

    def draw(p_V):
        return int(torch.multinomial(p_V, 1, generator=generator))

    while len(drawn) < LENGTH:
        guess, p_V = drawn[-1], chain.table_VV[drawn[-1]]
        accepted = float(torch.rand(1, generator=generator)) < float(p_V[guess])
        if error == "residual not renormalised":
            drawn.append(guess if accepted else draw(p_V))
        else:
            others = p_V.clone()
            others[guess] = 0
            drawn += [guess, guess] if accepted else [draw(others / others.sum())]
    assert chi_square(chain, torch.tensor(drawn)) > 2 * CHI_SQUARE_12


# -- bad input ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bad", "num_new", "options", "message"),
    [
        (torch.tensor([[3, 24]]), 6, {}, "Token 24 is outside the vocabulary of 24 tokens"),
        (torch.tensor([[-1, 2]]), 6, {}, "Token -1 is outside"),
        (torch.zeros(1, 20, dtype=torch.long), 6, {}, "more than the context of 24 tokens"),
        (torch.zeros(1, 6, dtype=torch.long), 7, {"stop_multiple": 6}, "7 new tokens are no whole number of blocks of 6"),
        (torch.zeros(1, 6, dtype=torch.long), 0, {}, "0 new tokens"),
        (torch.zeros(1, 0, dtype=torch.long), 6, {}, "the prefix is empty"),
        (torch.zeros(1, 6), 6, {}, "Tokens are integers"),
        (torch.zeros(2, 6, dtype=torch.long), 6, {}, "2 samples need a generator each"),
    ],
)
def test_what_cannot_be_continued_is_said_at_once(network, bad, num_new, options, message):
    with pytest.raises(UsageError, match=message) as raised:
        generate(network, bad, num_new, sampling=ALL, generators=generators(0), **options)
    assert "\n" not in str(raised.value)


def test_the_context_of_one_dimension_is_the_table(network):
    assert context_length(TINY) == math.prod(TINY.latent_shape)
    assert context_length(TINY.replace(rope="1d")) == 32
    assert context_length(TINY.replace(bov=True)) == 24
