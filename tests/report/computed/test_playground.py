"""Drop a file and the reader's own calibration: numbers against uqlib, errors by line and value, what a browser shows and keeps."""

import json
import re
from functools import partial

import numpy as np
import pytest
import torch

from uqlib import metrics
from uqlib.evidence.ledger import Claim, read_ledgers
from uqlib.evidence.verdicts import JudgedLedger, Verdict
from uqlib.metrics import detection
from uqlib.report.computed import playground

SCRIPTS = ("drop.js", "evidence.js", "guess.js", "moving.js")  # as Sphinx loads them


def table(n=400, seed=0, digits=3):
    """Confidence and correct of two models, with ties, and groups."""
    generator = np.random.default_rng(seed)
    truth = generator.uniform(0.05, 0.95, n)
    sure = np.clip(np.stack([truth, truth + generator.normal(0, 0.1, n)]), 0.01, 0.99).round(digits)
    right = np.stack([generator.random(n) < truth, generator.random(n) < truth])
    return sure, right, np.array(["a", "b, c", 'd "e"'])[generator.integers(0, 3, n)]


def csv_of(sure, right, groups=None):
    quoted = lambda text: '"' + text.replace('"', '""') + '"'  # noqa: E731
    lines = ["confidence,correct,confidence_2,correct_2" + (",group" if groups is not None else "")]
    for k in range(sure.shape[1]):
        row = [str(sure[0, k]), str(int(right[0, k])), str(sure[1, k]), str(bool(right[1, k]))]
        lines.append(",".join([*row, *([quoted(groups[k])] if groups is not None else [])]))
    return "\n".join(lines) + "\n"


def of_uqlib(sure, right, statistic, draws=None):
    """A statistic of (confidence, correct) of both models and of their difference, as a value and, with draws, an interval."""
    pairs = [(torch.from_numpy(s), torch.from_numpy(r)) for s, r in zip(sure, right, strict=True)]
    if draws is None:
        return [statistic(*pair) for pair in pairs]
    seeded = lambda: torch.Generator().manual_seed(0)  # noqa: E731
    own = [metrics.interval(statistic, *pair, draws=draws, generator=seeded()) for pair in pairs]
    return [*own, metrics.paired_difference(statistic, pairs[1], pairs[0], draws=draws, generator=seeded())]


def log_loss(sure, right):
    return metrics.nll(torch.stack([1 - sure, sure], 1).log(), right.long())


def brier(sure, right):
    return metrics.brier(torch.stack([1 - sure, sure], 1), right.long()) / 2


STATISTICS = {
    "accuracy": lambda _, right: right.double().mean().item(),
    "nll": log_loss,
    "brier": brier,
    "ece": metrics.ece,
    "aurc": metrics.aurc,
    "auroc": detection.correctness_auroc,
}


@pytest.fixture(scope="module")
def dropped(asked, static):
    """What drop.js makes of a text, in all and in one group."""
    ask = """(script, text, draws, group) => {
      const { parse, judged } = require(script), data = parse(text), rows = data.models[0][0].map((_, i) => i).filter((i) => group === null || data.group[i] === group);
      const models = data.models.map((columns) => columns.map((column) => Float64Array.from(rows, (i) => column[i])));
      return judged(models, draws);
    }"""
    return partial(asked, ask, str(static / "drop.js"))


@pytest.mark.parametrize("group", [None, 'd "e"'])
def test_values_are_those_of_uqlib_and_intervals_too_on_the_same_draws(dropped, group):
    sure, right, groups = table()
    rows = slice(None) if group is None else groups == group
    found = {each["name"]: each for each in dropped(csv_of(sure, right, groups), 100, group)}
    for name, statistic in STATISTICS.items():
        got = found[name]
        values = of_uqlib(sure[:, rows], right[:, rows], statistic)
        assert [each["value"] for each in got["models"]] == pytest.approx(values, abs=1e-12), name
        expected = of_uqlib(sure[:, rows], right[:, rows], statistic, draws=100)
        for each, interval in zip([*got["models"], got["difference"]], expected, strict=True):
            assert each["value"] == pytest.approx(interval.value, abs=1e-12), name
            assert each["ends"] == pytest.approx([interval.low, interval.high], abs=1e-12), name


def test_verdicts_say_which_way_is_better(dropped):
    generator = np.random.default_rng(1)
    right = generator.random(600) < 0.8
    good = np.where(right, 0.9, 0.2)
    bad = generator.uniform(0.01, 0.99, 600).round(3)
    found = {each["name"]: each for each in dropped(csv_of(np.stack([bad, good]), np.stack([right, right])), 200, None)}
    assert {name: each["tone"] for name, each in found.items()} == {"accuracy": "same"} | dict.fromkeys(
        ("nll", "brier", "ece", "aurc", "auroc"), "better"
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "The file is empty. It needs a header line"),
        ("sure,correct\n0.5,1\n0.5,1", 'Line 1, the header, has no column confidence; it has "sure", "correct"'),
        ("confidence,correct,correct_2\n0.5,1,1\n0.5,1,1", "A second model needs both columns"),
        ("confidence,correct\n0.5,1", "The file has 1 answers; at least two are needed."),
        ("confidence,correct\n0.5,1\n1.2,0", 'Line 3, column confidence: "1.2" is no number from 0 to 1. A percentage'),
        (
            "confidence;correct\n0,5;1\n0.2;0",
            'Line 2, column confidence: "0,5" is no number from 0 to 1. A decimal comma',
        ),
        ("confidence,correct\n,1\n0.2,0", 'Line 2, column confidence: "" is no number'),
        ("confidence,correct\n0.5,maybe\n0.2,0", 'Line 2, column correct: "maybe" is neither 1 nor 0'),
        ("confidence,correct\n0.5,2\n0.2,0", 'Line 2, column correct: "2" is neither 1 nor 0'),
        ("confidence,correct\n0.5,\n0.2,0", 'Line 2, column correct: "" is neither 1 nor 0'),
        ("confidence,correct\n0.5,1,7\n0.2,0", 'Line 2 has 3 fields, the header has 2: "0.5,1,7"'),
    ],
)
def test_what_cannot_be_read_is_named_by_line_and_value(asked, static, text, message):
    ask = "(script, text) => { try { require(script).parse(text); return 'read'; } catch (error) { return error.message; } }"
    assert message in asked(ask, str(static / "drop.js"), text)


def test_other_spellings_are_read(asked, static):
    ask = "(script, text) => require(script).parse(text)"
    text = "\ufeffCorrect\tConfidence\r\nTrue\t.5\r\nno\t1e-1\r\n1.0\t1\r\n\r\n"
    found = asked(ask, str(static / "drop.js"), text)
    assert found["models"] == [[[0.5, 0.1, 1], [1, 0, 1]]]
    assert found["group"] is None


def test_draws_shrink_with_the_file_and_never_below_200(asked, static):
    ask = "(script, sizes) => sizes.map(require(script).drawsFor)"
    assert asked(ask, str(static / "drop.js"), [100, 20_000, 40_000, 100_000, 10**6]) == [1000, 1000, 500, 200, 200]


# The pages in a browser


@pytest.fixture
def drop_page(opened):
    sure, right, groups = table()
    fragment = playground.drop_html(list(zip(sure, right, strict=True)), list(groups))
    html = re.search("```{raw} html\n(.*)\n```", fragment, re.DOTALL)[1]
    return opened(html, scripts=SCRIPTS)


def test_the_example_is_judged_and_can_be_saved(drop_page):
    drop_page.get_by_role("button", name="Try the example").click()
    drop_page.wait_for_selector(".drop-result[data-done]", timeout=20_000)
    assert "The example: 400 answers" in drop_page.locator(".drop-result").inner_text()
    assert drop_page.locator(".drop-result > table tbody tr").count() == 6
    assert drop_page.locator(".drop-groups details").count() == 3
    assert drop_page.locator(".drop-save").get_attribute("href").startswith("data:text/csv")


def give(page, text, name="mine.csv"):
    page.locator("input[type=file]").set_input_files({"name": name, "mimeType": "text/csv", "buffer": text.encode()})


def test_a_file_is_read_or_refused_by_line(drop_page):
    give(drop_page, "confidence,correct\n0.9,1\n0.8,1\n0.7,oops\n")
    assert 'mine.csv: Line 4, column correct: "oops"' in drop_page.locator(".drop-error").inner_text()
    give(drop_page, "confidence,correct\n0.9,1\n0.8,1\n0.7,1\n1,0\n")
    drop_page.wait_for_selector(".drop-result table")
    text = drop_page.locator(".drop-result").inner_text()
    assert "NLL: none, since line 5 has a confidence of 1" in text


def test_a_hundred_thousand_rows_take_a_second_and_a_half(drop_page):
    sure, right, _ = table(100_000, digits=6)
    text = csv_of(sure, right)
    drop_page.evaluate("""(text) => {
      const file = new File([text], "many.csv"), data = new DataTransfer();
      data.items.add(file);
      window.began = performance.now();
      new MutationObserver(() => { if (document.querySelector(".drop-result table tbody tr") && !window.took) window.took = performance.now() - window.began; })
        .observe(document.body, { childList: true, subtree: true });
      document.querySelector(".drop-zone").dispatchEvent(new DragEvent("drop", { dataTransfer: data, bubbles: true, cancelable: true }));
    }""", text)  # fmt: skip
    drop_page.wait_for_function("window.took", timeout=30_000)
    assert "100,000 answers" in drop_page.locator(".drop-result").inner_text()
    assert drop_page.evaluate("window.took") < 8000  # 1.5 s on an idle machine; the bound leaves room for a busy one


# The reader's forecasts


def verdict_of(k, came):
    claim = Claim(id=f"demo-{k}", text=f"Claim {k} about <b> & `code`", quantity=f"q{k}", holds="> 0")
    return Verdict(claim, "cpu", "confirmed" if came else "undecided", (None,) * 3, 2, 3, 0)


CAME = [k % 3 == 0 for k in range(30)]


@pytest.fixture
def questions():
    verdicts = [verdict_of(k, came) for k, came in enumerate(CAME)]
    return (
        "".join(map(playground.guess_html, verdicts))
        + '<div><div class="guess-result moving"></div><button class="guess-forget">Forget</button></div>'
    )


def test_claims_that_refer_to_another_are_left_out_and_each_finding_asked_once(repository):
    texts = [
        "The duo has a lower AURC",
        "The same for ECE",
        "Another claim on that quantity",
        "It is so everywhere",
        "x" * 300,
    ]
    quantities = ["a", "b", "a", "c", "d"]
    claims = [
        Claim(id=f"c{k}", text=text, quantity=q, holds="> 0")
        for k, (text, q) in enumerate(zip(texts, quantities, strict=True))
    ]
    verdicts = [Verdict(claim, "cpu", "confirmed", (None,), 1, 1, 0) for claim in claims]
    untried = Verdict(Claim(id="o", text="Not run", quantity="z", holds="> 0"), "cpu", "open", (), 0, 0, 0)
    judged = [JudgedLedger(read_ledgers(repository / "data/ledger")[0], (*verdicts, untried), 0)]
    assert [v.claim.id for v in playground.guesses(judged)] == ["c0"]
    assert playground.guesses_page(judged).count('class="guess"') == 1


def test_the_score_is_that_of_its_definition(asked, static):
    ask = """(guess, moving, pairs) => { const { judged } = require(guess); return judged(pairs, require(moving)); }"""
    generator = np.random.default_rng(0)
    chance, came = generator.integers(0, 21, 40) / 20, (generator.random(40) < 0.4).astype(int)
    pairs = [[float(p), int(y)] for p, y in zip(chance, came, strict=True)]
    found = asked(ask, str(static / "guess.js"), str(static / "moving.js"), pairs)
    losses, rate = (chance - came) ** 2, came.mean()
    assert found["brier"] == pytest.approx(losses.mean())
    assert found["base"] == pytest.approx(rate * (1 - rate))
    loss, hit = torch.from_numpy(losses), torch.from_numpy(came).double()
    seeded = lambda: torch.Generator().manual_seed(0)  # noqa: E731
    own = metrics.interval(lambda x: x.mean(), loss, draws=2000, generator=seeded())
    assert found["interval"] == pytest.approx([own.low, own.high])
    gain = metrics.interval(
        lambda x, y: x.mean() - y.mean() * (1 - y.mean()), loss, hit, draws=2000, generator=seeded()
    )
    assert found["gain"] == pytest.approx([gain.low, gain.high])
    assert sum(each["count"] for each in found["bins"]) == 40
    from scipy.stats import binomtest

    for each in found["bins"]:
        wilson = binomtest(round(each["share"] * each["count"]), each["count"]).proportion_ci(method="wilson")
        assert [each["low"], each["high"]] == pytest.approx([wilson.low, wilson.high])


def test_a_forecast_is_asked_before_the_finding_is_shown_and_kept(opened, questions):
    page = opened(questions, scripts=SCRIPTS)
    first = page.locator(".guess").first
    assert not first.locator("details").is_visible()
    assert "No answer yet, of 30 findings" in page.locator(".guess-result").inner_text()
    slider = first.get_by_role("slider")
    slider.focus()
    for _ in range(4):
        page.keyboard.press("ArrowRight")
    assert slider.get_attribute("aria-valuetext") == "70 percent"
    first.get_by_role("button").click()
    assert first.locator("details p").is_visible()
    assert "You said 70 %. It is confirmed." in first.inner_text()
    assert "1 of 30 answered" in page.locator(".guess-result").inner_text()
    assert "0.090" in page.locator(".guess-result").inner_text()
    page.reload()
    assert "You said 70 %" in page.locator(".guess").first.inner_text()
    page.get_by_role("button", name="Forget").click()
    assert "No answer yet" in page.locator(".guess-result").inner_text()
    assert not page.locator(".guess details").first.is_visible()
    page.reload()
    assert "No answer yet" in page.locator(".guess-result").inner_text()


def test_all_are_shown_a_dozen_at_a_time_and_the_curve_follows(opened, questions):
    page = opened(questions, scripts=SCRIPTS)
    assert page.locator(".guess:visible").count() == 12
    page.get_by_role("button", name="Show 12 more").click()
    page.get_by_role("button", name="Show 6 more").click()
    assert page.locator(".guess:visible").count() == 30
    assert not page.locator(".guess-more").is_visible()
    for k, box in enumerate(page.locator(".guess").all()):
        box.get_by_role("slider").fill("90" if CAME[k] else "10")
        box.get_by_role("button", name="Show what was found").click()
    text = page.locator(".guess-result").inner_text()
    assert "Your Brier score is 0.010" in text
    assert "better than the base rate" in text
    assert page.locator(".guess-result path.mv-dots").get_attribute("d").count("M") == 2


def test_a_browser_that_keeps_nothing_still_works_and_says_so(opened, questions):
    page = opened(questions, scripts=())
    page.evaluate(
        "Object.defineProperty(window, 'localStorage', { get() { throw new DOMException('no', 'SecurityError'); } })"
    )
    for name in ("evidence.js", "moving.js", "guess.js"):
        page.add_script_tag(path=f"{page.repository}/book/_static/{name}")
    page.evaluate("document.dispatchEvent(new Event('DOMContentLoaded'))")
    assert "does not let this page keep anything" in page.locator(".guess-result").inner_text()
    page.locator(".guess").first.get_by_role("button").click()
    assert "You said 50 %" in page.locator(".guess").first.inner_text()


def test_what_is_kept_and_is_no_probability_is_dropped(asked, static):
    ask = """(guess, kept) => { const store = require(guess).storeOf(() => ({ getItem: () => kept })); return ["a", "b", "c"].map((k) => store.get(k) ?? null); }"""
    kept = json.dumps({"a": 0.3, "b": "x", "c": 7})
    assert asked(ask, str(static / "guess.js"), kept) == [0.3, None, None]
    assert asked(ask, str(static / "guess.js"), "{broken") == [None, None, None]


def test_without_a_script_claims_and_findings_can_be_read(opened, questions):
    page = opened(questions, scripts=SCRIPTS, java_script_enabled=False)
    first = page.locator(".guess").first
    assert "Claim 0 about <b> & code" in first.inner_text()
    first.locator("summary").click()
    assert "confirmed" in first.locator("details p").inner_text()
    assert page.locator(".guess:visible").count() == 30
