from __future__ import annotations

import pytest


def test_phrases_reach_every_command(cli, model, recording, tmp_path, monkeypatch):
    seen = []
    import voxmlx.streaming.session as session

    def spy(phrases, tokenizer, strength):
        seen.append(list(phrases))

    monkeypatch.setattr(session, "make_bias", spy)
    (tmp_path / "names.txt").write_text("Ada Lovelace\n\n Zürich \n")
    options = ("-m", model, "--bias", "one", "--keyword", "two", "--bias-file")
    options = (*options, tmp_path / "names.txt")
    (recording.parent / "text.tsv").write_text(f"{recording.name}\thello\n")
    assert cli("transcribe", recording, *options).code == 0
    assert cli("batch", recording, "-o", tmp_path / "out", *options).code == 0
    assert cli("eval", recording.parent, *options).code == 0
    assert cli("live", recording, "--realtime", *options).code == 0
    assert seen == [["one", "two", "Ada Lovelace", "Zürich"]] * 4


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("--bias", " "), "--bias: a phrase is blank"),
        (("--bias-file", "none.txt"), "--bias-file none.txt: cannot be read"),
    ],
)
def test_mistakes_are_named(cli, model, recording, arguments, message):
    outcome = cli("transcribe", recording, "-m", model, *arguments)
    assert (outcome.code, message in outcome.err) == (2, True)
