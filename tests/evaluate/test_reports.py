from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from voxmlx.evaluate.html_report import html_report
from voxmlx.evaluate.manifest import Utterance
from voxmlx.evaluate.plots import Line, histogram, line_plot, ticks
from voxmlx.evaluate.rates import align
from voxmlx.evaluate.results import (
    Evaluation,
    ResultsError,
    compare_results,
    from_dict,
    read_results,
    to_dict,
)
from voxmlx.evaluate.run import make_record
from voxmlx.evaluate.text_report import (
    delay_table,
    diff_lines,
    markdown_report,
    markdown_table,
    rate_table,
    worst,
)

TEXTS = [("en", "the cat sat", "the cat sat"), ("en", "a <b> c d", "a x c"), ("de", "ja", "nein")]


def evaluation(model="m", bits=4.5, delays=(160, 480), latencies=(), **changes) -> Evaluation:
    result = Evaluation(model, bits, 1.5, "data", "none")
    for delay in delays:
        for i, (language, reference, hypothesis) in enumerate(TEXTS):
            utterance = Utterance(f"u{i}", Path("x"), reference, language)
            hypothesis = reference if delay > 1000 else hypothesis
            result.records.append(make_record(utterance, hypothesis, delay, 2.0, "none", latencies))
        result.elapsed_s[delay] = 1.5
    return result


def test_table_has_a_row_for_each_delay_and_language():
    table = rate_table(evaluation())
    assert [row[:2] for row in table[1:4]] == [["160", "all"], ["160", "de"], ["160", "en"]]
    row = dict(zip(table[0], table[1], strict=True))
    assert (row["WER %"], row["sub"], row["ins"], row["del"]) == ("37.50", "2", "0", "1")
    assert row["RTF"] == "0.250"
    assert "latency s (50/90 %)" not in row


def test_latencies_are_shown_where_measured():
    table = rate_table(evaluation(latencies=(0.5, 0.6, 0.7)))
    assert table[0][-1] == "latency s (50/90 %)"
    assert table[1][-1] == "0.60 / 0.70"


def test_diff_stands_under_one_another():
    assert diff_lines(align("a bb c", "a x c d")) == ("a BB c *", "a X  c D")


def test_worst_come_first_and_right_ones_not_at_all():
    assert [r.id for r in worst(evaluation(delays=(480,)).records, 5)] == ["u1", "u2"]


def test_markdown_shows_rates_and_diffs():
    text = markdown_report(evaluation())
    assert "| 480 | all | 3 | 37.50 |" in text
    assert "A <B> C D\nA X   C *".lower() in text.lower()


def test_json_round_trip(tmp_path):
    result = evaluation(latencies=(0.5,))
    result.failures["bad"] = "bad.wav: no"
    assert from_dict(json.loads(json.dumps(to_dict(result)))) == result
    assert to_dict(result)["summaries"][0]["wer"] == 0.375
    (tmp_path / "x.json").write_text("{}")
    with pytest.raises(ResultsError, match="expected results of 'voxmlx eval --json'"):
        read_results(tmp_path / "x.json")
    with pytest.raises(ResultsError, match="cannot be read"):
        read_results(tmp_path / "none.json")


def test_comparison_is_by_utterance_and_delay():
    a, b = evaluation(), evaluation(delays=(480,))
    assert list(compare_results(a, b)) == [480]
    n, difference = compare_results(a, b)[480]
    assert (n, difference.value, difference.significant) == (3, 0.0, False)
    best = evaluation(delays=(1200,))
    assert compare_results(b, best)[1200][1].value == -0.375
    with pytest.raises(ResultsError, match="no delay in common"):
        compare_results(a, best)
    other = evaluation()
    other.records[0] = make_record(Utterance("u0", Path("x"), "other", "en"), "", 160, 1.0, "none")
    with pytest.raises(ResultsError, match="u0: the references differ"):
        compare_results(a, other)
    with pytest.raises(ResultsError, match="normalizers differ"):
        compare_results(a, Evaluation("m", 4, 1, "data", "basic"))


def test_several_models_side_by_side():
    table = delay_table([evaluation("float", 32), evaluation("int4", 4.5, delays=(480, 2400))])
    assert table == [
        ["delay ms", "float", "int4"],
        ["bits", "32", "4.5"],
        ["MB", "1.5", "1.5"],
        ["160", "37.50", ""],
        ["480", "37.50", "37.50"],
        ["2400", "", "0.00"],
    ]
    assert markdown_table(table).count("\n") == 7


def test_html_page_holds_everything_and_escapes():
    page = html_report([evaluation("float", 32, latencies=(0.5, 0.8)), evaluation("in<t>4", 4)])
    assert "Error against delay" in page and "Error against bits" in page
    assert "Latency of words" in page
    assert "<del>&lt;b&gt;</del> <ins>x</ins>" in page
    assert "in<t>4" not in page and "http" not in page.replace("http://www.w3.org/2000/svg", "")


def test_plots_are_well_formed():
    lines = [
        Line("a & b", [80, 160], [50.0, 20.0], [45.0, 18.0], [55.0, 22.0]),
        Line("c", [80], [0]),
    ]
    for svg in (line_plot(lines, "x", "y"), histogram([0.1, 0.2, 0.2], "s"), histogram([1.0], "s")):
        ElementTree.fromstring(svg)
    assert line_plot([], "x", "y") == histogram([], "s") == ""


@pytest.mark.parametrize(
    "low, high, expected",
    [
        (0, 100, [0, 20, 40, 60, 80, 100]),
        (0, 7, [0, 1, 2, 3, 4, 5, 6, 7]),
        (0.1, 0.45, [0.1, 0.2, 0.3, 0.4]),
    ],
)
def test_ticks_are_round(low, high, expected):
    assert ticks(low, high) == expected
