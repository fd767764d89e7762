from __future__ import annotations

import pytest

from tests.cli.conftest import samples, talking_weights
from tests.tiny import tiny_tekken_dict
from tests.tiny_checkpoints import write_folder
from voxmlx.generation.bias import NEXT_BOOST, START_BOOST, ContextBias, context_rules, spellings
from voxmlx.pipeline import load
from voxmlx.streaming.options import StreamOptions
from voxmlx.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.from_dict(tiny_tekken_dict())


def after(rule, tokens):
    state = rule.initial
    for token in tokens:
        state = rule.next(state, token)
    return state


def test_phrase_is_raised_token_by_token(tokenizer):
    rule = ContextBias(["hello"], tokenizer)
    pad, word = tokenizer.pad_id, tokenizer.word_id
    (whole,) = tokenizer.encode(" hello")
    assert rule.bias(rule.initial) == {}
    assert rule.bias(after(rule, [pad, pad])) == {}
    started = rule.bias(after(rule, [pad, word]))
    assert started[whole] == START_BOOST
    assert set(started.values()) == {START_BOOST}
    assert rule.bias(after(rule, [pad, word, whole])) == {}


def test_next_tokens_are_raised_more_and_leaving_the_phrase_ends_it(tokenizer):
    rule = ContextBias(["zurich"], tokenizer)
    ids = tokenizer.encode(" zurich")
    assert len(ids) > 3
    for n in range(1, len(ids)):
        boosts = rule.bias(after(rule, [tokenizer.word_id, *ids[:n]]))
        assert boosts.get(ids[n]) == NEXT_BOOST
    (other,) = tokenizer.encode(" world")
    assert rule.bias(after(rule, [tokenizer.word_id, *ids[:2], other])) == {}
    assert rule.bias(after(rule, [tokenizer.word_id, *ids])) == {}


def test_phrase_goes_on_after_pads_and_word_marks(tokenizer):
    rule = ContextBias(["hello world"], tokenizer)
    pad, word = tokenizer.pad_id, tokenizer.word_id
    hello, world = tokenizer.encode(" hello world")
    assert rule.bias(after(rule, [word, hello]))[world] == NEXT_BOOST
    assert rule.bias(after(rule, [word, hello, pad])) == {}
    assert rule.bias(after(rule, [word, hello, pad, pad, word]))[world] == NEXT_BOOST


def test_middle_of_a_word_does_not_start_one(tokenizer):
    rule = ContextBias(["zurich"], tokenizer)
    ids = tokenizer.encode(" zurich")
    boosts = rule.bias(after(rule, [tokenizer.word_id, *ids[:2], tokenizer.word_id]))
    assert ids[2] not in boosts and boosts[ids[0]] == START_BOOST


def test_spellings_with_and_without_space(tokenizer):
    assert spellings(" eTh  zurich") == [
        "eTh zurich",
        "eth zurich",
        "ETH ZURICH",
        "Eth zurich",
        "Eth Zurich",
    ]
    rule = ContextBias(["hello"], tokenizer)
    first = rule.bias(after(rule, [tokenizer.word_id]))
    assert tokenizer.encode("hello")[0] in first and tokenizer.encode(" HELLO")[0] in first
    later = rule.bias(
        after(rule, [tokenizer.word_id, *tokenizer.encode(" one"), tokenizer.word_id])
    )
    assert tokenizer.encode("hello")[0] not in later and tokenizer.encode(" hello")[0] in later


def test_scripts_without_spaces_start_anywhere(tokenizer):
    rule = ContextBias(["明日"], tokenizer)
    pad, word = tokenizer.pad_id, tokenizer.word_id
    ids = tokenizer.encode("明日")
    assert len(ids) == 6  # bytes
    text = tokenizer.encode("今")
    assert rule.bias(after(rule, [word, *text, word]))[ids[0]] == START_BOOST
    assert rule.bias(after(rule, [word, *text, word, *ids[:3], pad, word]))[ids[3]] == NEXT_BOOST
    assert rule.bias(after(rule, [word, *ids[:1], word])) == {ids[0]: START_BOOST}


def test_state_is_a_value(tokenizer):
    rule = ContextBias(["zurich", "zug"], tokenizer)
    ids = tokenizer.encode(" zurich")
    tokens = [tokenizer.word_id, *ids[:2]]
    state = after(rule, tokens)
    assert state == after(rule, tokens) and hash(state) == hash(after(rule, tokens))
    before = dict(rule.bias(state))
    rule.next(state, ids[2])
    assert rule.bias(state) == before


def test_nothing_costs_nothing(tokenizer):
    assert context_rules([], tokenizer) == []
    assert len(context_rules(["a"], tokenizer)) == 1


def test_strength_scales(tokenizer):
    rule = ContextBias(["hello"], tokenizer, strength=0.5)
    assert set(rule.bias(after(rule, [tokenizer.word_id])).values()) == {START_BOOST / 2}


def test_mistakes_are_named(tokenizer):
    with pytest.raises(ValueError, match="a phrase is blank"):
        ContextBias([" "], tokenizer)
    with pytest.raises(ValueError, match="bias_strength must be positive, got 0"):
        ContextBias(["a"], tokenizer, strength=0)
    with pytest.raises(TypeError, match="context_bias must be a list of phrases, got 'hello'"):
        StreamOptions(context_bias="hello")


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory):
    return load(write_folder(tmp_path_factory.mktemp("model"), "native", talking_weights()))


class MarkEveryThird:
    """Forces a word mark at every third place; the model itself writes none."""

    initial = 0

    def next(self, state, token_id):
        return (state + 1) % 3

    def bias(self, state):
        return {33: 1e4} if state == 0 else {}


def transcribe(pipeline, n=None, **options):
    session = pipeline.file_session(rules=[MarkEveryThird()], **options)
    session.feed(samples(2.0))
    session.close()
    while not session.done:
        session.step(n)
    return session.result()


def test_bias_reaches_the_logits(pipeline):
    plain = transcribe(pipeline)
    biased = transcribe(pipeline, context_bias=["yes"], keywords=["no"], bias_strength=1000.0)
    assert plain.tokens.count(33) == len(plain.tokens) // 3
    assert not {"yes", "no"} & set(plain.text.split())
    assert biased.text.count("yes") + biased.text.count("no") == biased.tokens.count(33)


def test_one_by_one_and_several_at_once_agree(pipeline):
    options = {"context_bias": ["hello world", "zurich"], "bias_strength": 2.0}
    assert transcribe(pipeline, 1, **options).tokens == transcribe(pipeline, **options).tokens
    assert transcribe(pipeline, **options).tokens != transcribe(pipeline).tokens
