"""The two figures of the chapters: their numbers against uqlib's own, their fragments, and how they behave in a browser."""

import base64
import json
import re

import numpy as np
import pytest
import torch

from uqlib import difficulty, losses, metrics
from uqlib.base.splits import split
from uqlib.combine.duos import VARIANTS, DuoFit, decide, fit_duo
from uqlib.metrics import detection
from uqlib.report.explorer import STRENGTHS, TEMPERATURES, difficulty_explorer, duo_explorer

NAMES = ("ResNet-56", "ResNet-20", "ResNet-8")
WEIGHTS = [(0.3, 0.2), (1, 0), (0, 0.4), (1, 1), (0.05, 0), (2.5, 0.7)]
ASK = """(spec, all) => {
  const { decide, score, binned, bytes } = module.exports, { live } = spec;
  const integers = (text) => new Int16Array(Uint8Array.from(atob(text), (c) => c.charCodeAt(0)).buffer);
  const networks = live.networks.map((text) => Float64Array.from(integers(text), (code) => code * live.step));
  const labels = integers(live.labels);
  return all.map((weights) => {
    const ranks = decide({ classes: live.classes, labels }, networks[0], networks[1], weights);
    const { losses, risks, ...found } = score(ranks);
    return { ...found, nll: losses[0], risks: Array.from(risks), bins: binned(ranks) };
  });
}"""


def drawn(n=3000, classes=10, spread=4.0, seed=0):
    """Logits of a network and two sidekicks that know something of the labels, and the labels."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(classes, (n,), generator=generator)
    hint = spread * torch.nn.functional.one_hot(labels, classes)
    return [hint + scale * torch.randn(n, classes, generator=generator) for scale in (2.0, 3.0, 5.0)], labels


@pytest.fixture(scope="module")
def case():
    members, labels = drawn()
    fits = [fit_duo(members[0][:500], small[:500], labels[:500]) for small in members[1:]]
    return [each[500:] for each in members], labels[500:], fits


@pytest.fixture(scope="module")
def fragment(case):
    return duo_explorer(*case, names=NAMES, seed=0)


def spec_of(fragment):
    return json.loads(re.search(r'<script type="application/json">(.*)</script>', fragment)[1])


def unpacked(spec):
    """What the page holds: logits as it sees them, and labels."""
    live = spec["live"]
    read = lambda text: np.frombuffer(base64.b64decode(text), "<i2")  # noqa: E731
    tables = [torch.from_numpy(read(text) * live["step"]).reshape(-1, live["classes"]) for text in live["networks"]]
    return tables, torch.from_numpy(read(live["labels"]).astype(int))


def of_uqlib(large, small, labels, weights):
    logits = weights[0] * large.double() + weights[1] * small.double()
    probs, correct = logits.softmax(-1), logits.argmax(-1) == labels
    confidence = probs.amax(-1)
    return {
        "accuracy": metrics.accuracy(logits.argmax(-1), labels),
        "nll": metrics.nll(logits, labels),
        "ece": metrics.ece(confidence, correct),
        "aurc": metrics.aurc(confidence, correct),
        "auroc": detection.correctness_auroc(confidence, correct),
        "risks": metrics.selective_risks(confidence, correct).tolist(),
    }


def test_every_number_is_that_of_uqlib(fragment, asked):
    spec = spec_of(fragment)
    tables, labels = unpacked(spec)
    for weights, found in zip(WEIGHTS, asked(ASK, spec, WEIGHTS), strict=True):
        for name, value in of_uqlib(*tables[:2], labels, weights).items():
            # the same float64 logits on both sides: what remains is rounding of 1000 sums
            assert found[name] == pytest.approx(value, abs=1e-9), (name, weights)


def test_the_reliability_diagram_has_the_bins_of_uqlib(fragment, asked):
    (found,) = asked(ASK, spec_of(fragment), [(0.3, 0.2)])
    (large, small, _), labels = unpacked(spec_of(fragment))
    probs = (0.3 * large + 0.2 * small).softmax(-1)
    bins = metrics.bin_by_width(probs.amax(-1), probs.argmax(-1) == labels)
    assert [each["count"] for each in found["bins"]] == bins.count.tolist()
    assert [each["right"] for each in found["bins"]] == bins.correct.tolist()
    assert [each["sure"] for each in found["bins"]] == pytest.approx(bins.confidence.tolist(), abs=1e-9)


PLAIN = DuoFit((0.5, 0.5), (0, 0), 0, (0, 0), 0, (1, 1), (0, 0), 0)


def test_a_confidence_on_an_edge_belongs_to_the_bin_below(asked):
    ask = "(sure, right) => { const { ranked, score } = module.exports; return score(ranked(sure, right)).ece; }"
    # every edge of the 15 bins as a double, and its neighbours
    edges = [k / 15 for k in range(1, 16)]
    sure = [x for edge in edges for x in (np.nextafter(edge, 0), edge, min(1.0, np.nextafter(edge, 1)))] + [0.0, 0.0]
    right = [k % 3 == 0 for k in range(len(sure))]
    assert asked(ask, sure, right) == pytest.approx(metrics.ece(np.array(sure), np.array(right)), abs=1e-12)


def test_ties_share_what_they_expect(asked):
    # whole numbers and two classes: a handful of distinct confidences
    generator = torch.Generator().manual_seed(3)
    large, small = torch.randint(-3, 4, (2, 400, 2), generator=generator).double()
    labels = (large[:, 1] + torch.randn(400, generator=generator) > large[:, 0]).long()
    spec = spec_of(duo_explorer([large, small], labels, [PLAIN], names=NAMES[:2], seed=0))
    weights = (0.5, 0.25)
    confidence = (weights[0] * large + weights[1] * small).softmax(-1).amax(-1)
    assert len(confidence.round(decimals=12).unique()) < 40
    (found,) = asked(ASK, spec, [weights])
    tables, held = unpacked(spec)
    expected = of_uqlib(*tables, held, weights)
    # argmax of two equal logits is the first class on both sides
    for name in ("accuracy", "aurc", "auroc", "risks"):
        assert found[name] == pytest.approx(expected[name], abs=1e-9), name


def test_intervals_are_those_of_uqlib_on_the_same_draws(fragment, asked):
    ask = """(spec, state) => {
      const show = module.exports.answers(spec)(state, module.exports.decode(spec)(state));
      return { cells: show.cells, reading: show.reading, interval: show.interval };
    }"""
    spec = spec_of(fragment)
    (large, _, tiny), labels = unpacked(spec)
    state = [1, 60, 30, 15]
    weights = [state[k] * spec["controls"][k]["step"] for k in (1, 2)]
    found = asked(ask, spec, state)
    logits = [weights[0] * large + weights[1] * tiny, spec["live"]["alone"] * large]
    hits = [(each.softmax(-1).amax(-1), each.argmax(-1) == labels) for each in logits]
    asked_of = [(metrics.ece, hits), (metrics.aurc, hits), (detection.correctness_auroc, hits)]
    for row, (metric, (own, other)) in zip((2, 3, 4), asked_of, strict=True):
        generator = torch.Generator().manual_seed(0)
        ends = metrics.paired_difference(metric, own, other, draws=200, generator=generator)
        digits = spec["live"]["metrics"][row]["digits"]
        said = " to ".join(f"{100 * end:.{digits}f}".replace("-", "\u2212") for end in ends[1:3])
        assert found["cells"][row][2] == [said], metric
    preds = [each.argmax(-1) for each in logits]
    ends = metrics.paired_difference(
        metrics.accuracy, (preds[0], labels), (preds[1], labels), draws=200, generator=torch.Generator().manual_seed(0)
    )
    said = " to ".join(f"{1000 * end:.0f}".replace("-", "\u2212") for end in ends[1:3])
    assert f"it would be {said} more" in found["interval"]
    told = re.search("Against the large network, (.*)\\.", found["interval"])[1]
    told = {name: word for word, names in (part.split(": ") for part in told.split("; ")) for name in names.split(", ")}
    assert told == dict(
        zip(("accuracy", "NLL", "calibration", "AURC", "AUROC"), [row[3][0] for row in found["cells"]], strict=True)
    )


def test_rounding_to_hundredths_moves_the_numbers_by_as_much_as_stated(case, fragment, asked):
    (large, small, _), labels, _ = case
    rows, _ = split(len(labels), 1000, seed=0)
    for weights, found in zip(WEIGHTS, asked(ASK, spec_of(fragment), WEIGHTS), strict=True):
        exact = of_uqlib(large[rows], small[rows], labels[rows], weights)
        slack = 0.01 * sum(weights)  # twice half a hundredth a logit: the label's own, and the log-sum-exp
        assert abs(found["nll"] - exact["nll"]) < slack
        logits = weights[0] * large[rows].double() + weights[1] * small[rows].double()
        first, second = logits.topk(2).values.T
        changeable = (first - second < slack).double().mean().item()
        assert abs(found["accuracy"] - exact["accuracy"]) <= changeable + 1e-12


def test_the_fragment_holds_the_rows_of_the_draw(case):
    (large, _, _), labels, fits = case
    spec = spec_of(duo_explorer(*case, names=NAMES, seed=4, rows=200))
    rows, _ = split(len(labels), 200, seed=4)
    held, held_labels = unpacked(spec)
    assert torch.equal(held_labels, labels[rows])
    shifted = large[rows].double() - large[rows].double().amax(-1, keepdim=True)
    assert (held[0] - shifted).abs().max() <= 0.005 + 1e-9
    assert spec["live"]["alone"] == 1 / fits[0].temperatures[0]
    for k, fit in enumerate(fits):
        place = next(each for each in spec["presets"] if each["name"] == "Fitted duo")["at"][k]
        assert place[0] == k
        assert [p * spec["controls"][1 + j]["step"] for j, p in enumerate(place[1:3])] == pytest.approx(fit.weights)


def test_the_fragment_is_small_and_repeats(case, fragment):
    assert len(fragment) < 110_000
    assert fragment == duo_explorer(*case, names=NAMES, seed=0)
    assert fragment != duo_explorer(*case, names=NAMES, seed=1)
    assert "http" not in fragment


def test_arrays_and_lists_are_taken_too_and_all_rows_where_they_are_few(case):
    members, labels = [each[:50] for each in case[0]], case[1][:50]
    kinds = [
        (members, labels),
        ([m.numpy() for m in members], labels.numpy()),
        ([m.tolist() for m in members], labels.tolist()),
    ]
    fragments = {duo_explorer(*kind, case[2], names=NAMES, seed=0) for kind in kinds}
    assert len(fragments) == 1
    assert len(unpacked(spec_of(fragments.pop()))[1]) == 50


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"names": ("one", "two")},
            r"3 networks need as many names and a fit a sidekick; got \('one', 'two'\), 2 fits",
        ),
        ({"fits": []}, "0 fits"),
        (
            {"member_logits": [torch.zeros(3, 10)]},
            "member_logits must hold the logits of the large network, then",
        ),
        ({"member_logits": [torch.zeros(2500, 10), torch.zeros(3, 10)]}, "must have one shape"),
        ({"labels": torch.full((2500,), 10)}, r"labels must lie in \[0, 10\); row 0 is 10"),
        (
            {"member_logits": [100 * each[500:] for each in drawn()[0]]},
            r"member_logits\[0\] spread too far: row .* and 327.67 is the most",
        ),
        (
            {"member_logits": [torch.full((2500, 10), torch.nan)] * 3},
            r"member_logits\[0\] must be finite; row 0, column 0 is nan",
        ),
        ({"rows": 0}, "rows must be a whole number of at least 1; it is 0"),
    ],
)
def test_what_cannot_be_shown_is_refused(case, change, message):
    given = dict(zip(("member_logits", "labels", "fits"), case, strict=True))
    given |= {"names": NAMES, "seed": 0, **change}
    with pytest.raises(ValueError, match=message):
        duo_explorer(**given)


# The figure of difficulty weights

RMD = {"classes": 10, "name": "RMD by MobileNetV2"}


def skewed(n=6000, seed=0):
    """Like the RMD of training images: mean 0, most below, and a long tail of hard ones."""
    generator = np.random.default_rng(seed)
    values = generator.gamma(2.0, 45.0, n) + np.where(generator.random(n) < 0.02, generator.gamma(2.0, 70.0, n), 0)
    return values - values.mean()


@pytest.fixture(scope="module")
def weights_fragment():
    return difficulty_explorer(skewed(), **RMD)


def test_weights_and_confidences_are_those_of_uqlib(weights_fragment, asked):
    spec, values = spec_of(weights_fragment), np.sort(skewed())
    states = [[2, 5, 0], [4, 3, 3], [11, 1, 2], [0, 0, 1], [4, 3, 0]]
    names = ["minmax", "clipped", "zscore", "raw"]
    found = asked("(spec, all) => all.map(module.exports.decode(spec))", spec, states)
    for state, shown in zip(states, found, strict=True):
        temperature, alpha, normaliser = TEMPERATURES[state[0]], STRENGTHS[state[1]], names[state[2]]
        weights = np.asarray(difficulty.weights(values, temperature=temperature, normaliser=normaliser))
        best = np.asarray(losses.optimal_confidence(alpha * weights, 10))
        constant = losses.optimal_confidence(alpha * weights.mean(), 10)
        bars, mean, line = shown["marks"][:3]
        at = np.searchsorted(values, values[0] + (np.array(line["x"]) - 1e-5) * np.ptp(values)).clip(0, len(values) - 1)
        assert line["y"] == pytest.approx(weights[at], abs=2e-3)  # the images on either side of a rounded place
        assert mean["y"] == pytest.approx([weights.mean()] * 2, abs=1e-5)
        assert len(bars["x"]) == 74
        shares = np.array(shown["marks"][5]["y"])
        confidence = 1 - 10 ** -(0.2 + shares * 3.8)
        assert confidence == pytest.approx(np.clip(best[at], 1 - 10**-0.2, 0.9999), abs=2e-3)
        said = dict(zip(("mean", "strength", "heavy", "median", "hardest"), shown["cells"], strict=True))
        number = lambda cell: float(re.sub("[^0-9.]", "", cell[0]))  # noqa: E731
        assert number(said["mean"][0]) == pytest.approx(weights.mean(), abs=1e-3)
        assert number(said["heavy"][0]) == pytest.approx(100 * (weights > 0.5).mean(), abs=0.051)
        assert number(said["hardest"][0]) == pytest.approx(100 * best[-1], abs=0.051)
        assert number(said["median"][0]) == pytest.approx(100 * best[3000], abs=0.051)
        assert number(said["hardest"][1]) == pytest.approx(100 * constant, abs=0.051)


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ([4, 3, 0], "how it scales the distances it does not say"),
        ([4, 3, 3], "1 of 6,000 has a weight above ½"),
        ([11, 3, 0], "nearly constant entropy regularisation"),
        ([4, 0, 0], "This is cross entropy"),
    ],
)
def test_the_sentence_says_what_the_setting_does(weights_fragment, asked, state, words):
    assert words in asked(
        "(spec, state) => module.exports.decode(spec)(state).reading", spec_of(weights_fragment), state
    )


def test_the_figure_of_difficulty_is_small_and_starts_where_something_is_to_be_seen(weights_fragment):
    assert len(weights_fragment) < 110_000
    first = dict(re.findall(r'<th scope="row">(.*?)</th><td[^>]*>(.*?)</td>', weights_fragment))
    assert float(first["Best confidence, hardest image"].split("\u00a0")[0]) < 80


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"difficulty": np.zeros(5000)}, "all but a few of 5,000 difficulties are 0"),
        ({"difficulty": np.array([0.0, np.nan])}, "difficulty must be finite; row 1 is nan"),
        ({"kinds": ["cat"]}, "kinds must have a word for each of 6,000 images, or none at all; it has 1"),
        ({"classes": 1}, "classes must be a whole number of at least 2; it is 1"),
    ],
)
def test_difficulties_that_cannot_be_shown_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        difficulty_explorer(**({"difficulty": skewed(), **RMD} | change))


def test_the_ends_of_the_axis_are_said_in_words():
    kinds = np.where(skewed() > np.quantile(skewed(), 0.96), "cat", "ship").tolist()
    told = difficulty_explorer(skewed(), **RMD, kinds=kinds)
    assert (
        "in the hardest tenth of the images: ship 60\u00a0%, cat 40\u00a0%. At the left, in the easiest: ship 100\u00a0%."
        in told
    )


# In a browser


@pytest.fixture
def duo(opened, fragment):
    return opened(fragment).locator(".moving")


def weights_of(figure):
    return tuple(float(each) for each in figure.locator(".mv-slider i").all_inner_texts()[:2])


def column(figure, k):
    return [
        float(text.replace("\u2212", "-")) for text in figure.locator(f"tbody td:nth-child({2 + k})").all_inner_texts()
    ]


def test_the_table_shows_the_metrics_of_each_preset(duo, case):
    rows, _ = split(len(case[1]), 1000, seed=0)
    for sidekick in (0, 1):
        duo.get_by_role("radio").nth(sidekick).check(force=True)
        parts = case[0][0][rows], case[0][1 + sidekick][rows]
        for name, variant in {"Large alone": "base", "Equal say": "unweighted", "Fitted duo": "ours"}.items():
            button = duo.get_by_role("button", name=name)
            button.click()
            assert button.get_attribute("aria-pressed") == "true"
            assert variant in VARIANTS
            said = decide(variant, *parts, case[2][sidekick])
            right = said.preds == case[1][rows]
            expected = [
                100 * right.double().mean().item(),
                metrics.nll(said.probs.log(), case[1][rows]),
                100 * metrics.ece(said.confidence, right),
                100 * metrics.aurc(said.confidence, right),
                100 * detection.correctness_auroc(said.confidence, right),
            ]
            # a digit of the table, and what rounding of the logits may move: a row or two in 1000
            for cell, value, slack in zip(column(duo, 0), expected, (0.25, 0.006, 0.4, 0.05, 0.3), strict=True):
                assert cell == pytest.approx(value, abs=slack), name


def test_the_script_says_at_first_what_the_page_said_without_it(opened, fragment):
    still = opened(fragment, java_script_enabled=False).locator(".moving")
    before = [column(still, k) for k in (0, 1)]
    assert "get" in still.locator(".mv-reading").inner_text()
    assert [column(opened(fragment).locator(".moving"), k) for k in (0, 1)] == before


def test_another_sidekick_keeps_the_preset_and_takes_its_own_weights(duo, case):
    assert weights_of(duo) == pytest.approx(case[2][0].weights, abs=5e-4)
    duo.get_by_role("radio").nth(1).check(force=True)
    assert weights_of(duo) == pytest.approx(case[2][1].weights, abs=5e-4)
    assert duo.get_by_role("button", name="Fitted duo").get_attribute("aria-pressed") == "true"
    duo.get_by_role("button", name="Both × 2").click()
    assert weights_of(duo) == pytest.approx([2 * each for each in case[2][1].weights], abs=1e-3)
    duo.get_by_role("radio").nth(0).check(force=True)  # no preset any more: the weights stay
    assert weights_of(duo) == pytest.approx([2 * each for each in case[2][1].weights], abs=1e-3)


def test_twice_both_weights_changes_no_label_and_loses_calibration(duo):
    before = column(duo, 0)
    duo.get_by_role("button", name="Both × 2").click()
    after = column(duo, 0)
    assert after[0] == before[0]
    assert after[2] > before[2] + 1
    assert duo.locator("tbody td.mv-worse").count() > 0
    assert "worse:" in duo.locator(".mv-interval").inner_text()


def test_the_sentence_says_what_the_weights_do(duo):
    reading = duo.locator(".mv-reading")
    duo.get_by_role("button", name="Large alone").click()
    assert "Only the large network is heard" in reading.inner_text()
    assert duo.locator(".mv-interval").inner_text() == ""
    duo.get_by_role("button", name="As trained").click()
    assert "Only the large network is heard" in reading.inner_text()
    duo.get_by_role("button", name="Sidekick alone").click()
    assert re.search(r"The sidekick alone gets \d+ fewer of 1,000 right", reading.inner_text())
    duo.get_by_role("button", name="Fitted duo").click()
    own, alone = (column(duo, k)[0] for k in (0, 1))
    assert f"The duo gets {round(10 * (own - alone))} more of 1,000 right" in reading.inner_text()
    for slider in duo.get_by_role("slider").all()[:2]:
        slider.fill("0")
    assert "nobody is heard" in reading.inner_text()


def test_the_lines_of_the_map_lie_where_the_nll_is_what_they_say(case, fragment, asked):
    spec = spec_of(fragment)
    (large, small, _), labels = unpacked(spec)
    shown = asked("(spec) => module.exports.decode(spec)([0, 0, 0, 0])", spec)["marks"]
    limits = [200 * spec["controls"][k]["step"] for k in (1, 2)]
    (line, text), seen = shown[:2], 0
    assert len(text["words"]) >= 2
    levels = [float(each) for each in text["words"]]
    for x, y in zip(line["x"], line["y"], strict=True):
        if x is None:
            continue
        nll = metrics.nll(limits[0] * x * large + limits[1] * y * small, labels)
        nearest = min(levels, key=lambda level: abs(level - nll))
        seen += abs(nll - nearest) < 0.02 * nearest  # between two of 24 radii the NLL is taken as straight
    assert seen > 40
    for word, x, y in zip(levels, text["x"], text["y"], strict=True):
        assert metrics.nll(limits[0] * x * large + limits[1] * y * small, labels) == pytest.approx(word, rel=0.02)


def test_the_map_can_be_clicked_and_the_risk_curve_moves_what_is_kept(duo):
    limits = [
        float(
            duo.page.evaluate(
                f"200 * JSON.parse(document.querySelector('.moving script').textContent).controls[{k}].step"
            )
        )
        for k in (1, 2)
    ]
    box = duo.locator("svg.mv-panel").first.bounding_box()
    height = duo.page.evaluate("+document.querySelector('.mv-panel svg').getAttribute('height')")
    duo.page.mouse.click(box["x"] + 46 + 0.5 * (box["width"] - 58), box["y"] + 26 + 0.75 * height)
    assert weights_of(duo) == pytest.approx((0.5 * limits[0], 0.25 * limits[1]), abs=0.01 * max(limits))
    box = duo.locator("svg.mv-panel").nth(1).bounding_box()
    duo.page.mouse.click(box["x"] + 46 + 0.5 * (box["width"] - 58), box["y"] + 60)
    assert duo.locator(".mv-slider i").last.inner_text() == "50 %"
    assert "Among the 500 images" in duo.locator(".mv-reading").inner_text()


def test_few_images_in_a_bin_are_faded(duo):
    faded = duo.locator("svg.mv-panel").nth(2).locator("path.mv-dots.mv-faded")
    assert faded.get_attribute("d") != duo.locator("svg.mv-panel").nth(2).locator(
        "path.mv-dots.mv-own"
    ).last.get_attribute("d")


@pytest.mark.parametrize("width", [390, 360])
def test_on_a_phone_nothing_is_wider_than_the_screen(opened, fragment, weights_fragment, width):
    page = opened(fragment + weights_fragment, width=width, has_touch=True, is_mobile=True)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    inside = "(f) => [...f.querySelectorAll(':not(svg svg *)')].every((e) => e.getBoundingClientRect().right <= innerWidth + 1)"
    assert all(figure.evaluate(inside) for figure in page.locator(".moving").all())
    page.get_by_role("button", name="Raw").tap()
    assert page.get_by_role("radio", name="raw").is_checked()


def test_an_update_is_quick(opened, fragment, weights_fragment):
    page = opened(fragment + weights_fragment)
    move = """(figure) => {
      const slider = figure.querySelector("input[type=range]"), times = [];
      for (let k = 0; k < 20; k++) {
        const began = performance.now();
        slider.value = k % (+slider.max + 1);
        slider.dispatchEvent(new Event("input"));
        document.body.offsetHeight;
        times.push(performance.now() - began);
      }
      return Math.min(...times);
    }"""
    for figure in page.locator(".moving").all():
        assert figure.evaluate(move) < 50  # some 10 ms on an idle machine; the bound leaves room for a busy one


def test_two_figures_of_a_page_work_apart(opened, fragment, weights_fragment):
    page = opened(fragment + weights_fragment)
    one, two = page.locator(".moving").all()
    assert [figure.locator("svg[role=img]").count() for figure in (one, two)] == [3, 2]
    before = two.locator("tbody").inner_text()
    one.get_by_role("button", name="As trained").click()
    assert weights_of(one) == (1, 0)
    assert two.locator("tbody").inner_text() == before
