from __future__ import annotations

import pytest

from tests.cli.conftest import samples, talking_weights
from tests.tiny import tiny_tekken_dict
from tests.tiny_checkpoints import write_folder
from voxmlx.generation.bias import (
    BUDGET,
    MAX_AHEAD,
    START_BUDGET,
    ContextBias,
    make_bias,
    spellings,
)
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


def tokens_of(starts):
    return {piece.tokens for pieces in starts.values() for piece in pieces}


def test_phrases_start_after_a_word_mark_only_as_a_whole(tokenizer):
    rule = ContextBias(["zurich"], tokenizer)
    pad, word = tokenizer.pad_id, tokenizer.word_id
    ids = tuple(tokenizer.encode(" zurich"))
    assert len(ids) > 3
    assert rule.starts(rule.initial) == {} and rule.starts(after(rule, [pad, pad])) == {}
    assert ids in tokens_of(rule.starts(after(rule, [pad, word])))
    for n in range(1, len(ids)):
        state = after(rule, [word, *ids[:n]])
        assert ids[n] not in rule.starts(state)


def test_words_that_follow_without_a_mark_start_with_a_space(tokenizer):
    rule = ContextBias(["zurich"], tokenizer)
    state = after(rule, [tokenizer.word_id, *tokenizer.encode(" hello")])
    found = tokens_of(rule.starts(state))
    assert tuple(tokenizer.encode(" zurich")) in found
    assert tuple(tokenizer.encode("zurich")) not in found


def test_budget_grows_with_the_length_and_the_strength(tokenizer):
    for strength in (1.0, 2.0):
        rule = ContextBias(["zug"], tokenizer, strength)
        assert rule.start_budget == strength * START_BUDGET
        starts = rule.starts(after(rule, [tokenizer.word_id]))
        for piece in (piece for pieces in starts.values() for piece in pieces):
            expected = strength * BUDGET * (3 * len(piece.tokens)) ** 0.5
            assert piece.budget == pytest.approx(expected)


def test_phrase_goes_on_after_pads_and_word_marks(tokenizer):
    rule = ContextBias(["hello world"], tokenizer)
    pad, word = tokenizer.pad_id, tokenizer.word_id
    hello, world = tokenizer.encode(" hello world")
    assert (world,) not in tokens_of(rule.starts(after(rule, [word])))
    assert (world,) in tokens_of(rule.starts(after(rule, [word, hello])))
    assert rule.starts(after(rule, [word, hello, pad])) == {}
    assert (world,) in tokens_of(rule.starts(after(rule, [word, hello, pad, pad, word])))
    assert (world,) not in tokens_of(rule.starts(after(rule, [word, world, word])))


def test_long_phrases_are_tried_in_pieces(tokenizer):
    ids = tokenizer.encode(" zzyzxqqjx")
    assert len(ids) > MAX_AHEAD
    rule = ContextBias(["zzyzxqqjx"], tokenizer)
    first, rest = tuple(ids[:MAX_AHEAD]), tuple(ids[MAX_AHEAD:])
    starts = rule.starts(after(rule, [tokenizer.word_id]))
    assert [p.closed for p in starts[ids[0]] if p.tokens == first] == [False]
    starts = rule.starts(after(rule, [tokenizer.word_id, *first]))
    assert [p.closed for p in starts[rest[0]] if p.tokens == rest] == [True]
    assert rest not in tokens_of(rule.starts(after(rule, [tokenizer.word_id])))


def test_where_words_end(tokenizer):
    rule = ContextBias(["zug"], tokenizer)
    for token in (tokenizer.pad_id, tokenizer.word_id, tokenizer.encode(" hello")[0]):
        assert rule.ends_word(token)
    assert rule.ends_word(tokenizer.encode(",")[0])
    for text in ("s", "é"):
        assert not rule.ends_word(tokenizer.encode(text)[0])


def test_spellings_with_and_without_space(tokenizer):
    assert spellings(" eTh  zurich") == [
        "eTh zurich",
        "eth zurich",
        "ETH ZURICH",
        "Eth zurich",
        "Eth Zurich",
    ]
    rule = ContextBias(["hello"], tokenizer)
    first = rule.starts(after(rule, [tokenizer.word_id]))
    assert tokenizer.encode("hello")[0] in first and tokenizer.encode(" HELLO")[0] in first
    later = rule.starts(
        after(rule, [tokenizer.word_id, *tokenizer.encode(" one"), tokenizer.word_id])
    )
    assert tokenizer.encode("hello")[0] not in later and tokenizer.encode(" hello")[0] in later


def test_scripts_without_spaces_start_anywhere(tokenizer):
    rule = ContextBias(["明日"], tokenizer)
    pad, word = tokenizer.pad_id, tokenizer.word_id
    ids = tokenizer.encode("明日")
    assert len(ids) == 6  # bytes
    text = tokenizer.encode("今")
    one, two = tuple(ids[:3]), tuple(ids[3:])
    for end in ([], [word]):
        starts = rule.starts(after(rule, [word, *text, *end]))
        assert tokens_of(starts) == {one}
        assert not starts[one[0]][0].closed
    assert two in tokens_of(rule.starts(after(rule, [word, *text, word, *one, pad, word])))
    assert two in tokens_of(rule.starts(after(rule, [word, *text, word, *one])))
    assert tokens_of(rule.starts(after(rule, [word, *ids[:1], word]))) == {one}


def test_state_is_a_value(tokenizer):
    rule = ContextBias(["zurich", "zug"], tokenizer)
    tokens = [tokenizer.word_id, *tokenizer.encode(" zurich")[:2]]
    state = after(rule, tokens)
    assert state == after(rule, tokens) and hash(state) == hash(after(rule, tokens))
    before = dict(rule.starts(state))
    rule.next(state, tokenizer.word_id)
    assert rule.starts(state) == before


def test_nothing_costs_nothing(tokenizer):
    assert make_bias([], tokenizer) is None
    assert make_bias(["a"], tokenizer) is not None


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
    text = biased.text.lower()
    assert text.count("yes") + text.count("no") == biased.tokens.count(33)


def test_one_by_one_and_several_at_once_agree(pipeline):
    options = {"context_bias": ["hello world", "zurich"], "bias_strength": 2.0}
    assert transcribe(pipeline, 1, **options).tokens == transcribe(pipeline, **options).tokens
    assert transcribe(pipeline, **options).tokens != transcribe(pipeline).tokens


@pytest.mark.parametrize("strength", [2.0, 1000.0])
def test_flush_settles_and_any_split_agrees(pipeline, strength):
    audio = samples(2.0)
    found = []
    for piece in (len(audio), 592):
        session = pipeline.stream(
            rules=[MarkEveryThird()],
            context_bias=["hello world", "zurich"],
            bias_strength=strength,
            rut_guard=False,
        )
        for half in (audio[:16000], audio[16000:]):
            for start in range(0, len(half), piece):
                session.feed(half[start : start + piece])
                while session.pending:
                    session.step(3)
            session.flush()
            while session.pending:
                session.step(3)
            assert not session.flushing
        session.close()
        while not session.done:
            session.step(3)
        found.append(session.tokens)
    assert found[0] == found[1] != []
