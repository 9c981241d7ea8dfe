"""Images in the order of an uncertainty: what a search finds among those that are kept, on sets that nothing learnt from."""

from collections.abc import Mapping

import numpy as np

from uqlib.metrics import abstained_recall, correctness_auroc
from uqlib.metrics.outcomes import Judged
from uqlib.report.lessons.sorted_answers import slices
from uqlib.report.moving import Axis, Choice, Mark, Panel, Slider, View, moving_figure
from uqlib.report.telling import counted

STEPS = 20  # positions of the slider
POINTS = 120  # of a curve


def ranked_figure(said: Mapping[str, Mapping[str, Judged]], *, name: str = "ranked-images") -> str:
    """HTML of a figure: a set of images is put in order by one of several scores, and the most uncertain are left out.

    Args:
        said: by set and score (the same scores for each set), minus the uncertainty of each image, and whether its nearest
            other image is of the same class.
        name: of the figure, as in `moving_figure`.

    Raises:
        ValueError: if the sets do not have the same scores.
    """
    scores = list(next(iter(said.values())))
    if any(list(each) != scores for each in said.values()):
        raise ValueError(f"each set must have the scores {', '.join(scores)}, in this order")

    def seen(images: str, score: str, share: float) -> View:
        judged = said[images][score]
        found = judged.correct[judged.confidence.argsort(descending=True, stable=True)].numpy()
        n, kept = len(found), max(1, round(share * len(found) / 100))
        pick = np.unique(np.linspace(n // 100, n - 1, POINTS).astype(int))
        recall = 100 * np.asarray(abstained_recall(-judged.confidence, judged.correct))
        curve = [
            Mark("line", [0, 100], [recall[-1]] * 2, tone="reference dashed", name="images left out at random"),
            Mark("line", 100 * (pick + 1) / n, recall[pick], tone="own", name="the most uncertain left out"),
            Mark("dots", share, recall[kept - 1], tone="own", size=6),
        ]
        area = correctness_auroc(judged.confidence, judged.correct)
        out = 100 * found[kept:].mean() if kept < n else None
        numbers = {"kept": f"{kept:,} of {n:,}", "found": f"{recall[kept - 1]:.1f} %", "found of all": f"{recall[-1]:.1f} %",
                   "R-AUROC": f"{area:.3f}"}  # fmt: skip
        rest = "" if out is None else f" Of those left out it finds {out:.1f} %."
        reading = (
            f"{images}: of the {kept:,} images that {score} is surest of, a search finds the class of {recall[kept - 1]:.1f} %; "
            f"of all {n:,}, {recall[-1]:.1f} %.{rest}"
        )
        return View([slices(found, share, "misses"), curve], {"this threshold": numbers}, reading)

    across = ("Keep the surest", None)
    shares = [100 * (k + 1) / STEPS for k in range(STEPS)]
    return moving_figure(
        seen,
        [
            Choice("Images of", {each: each for each in said}),
            Choice("In the order of", {each: each for each in scores}),
            Slider("Keep the surest", shares, words="{:g} %", start=80.0),
        ],
        [
            Panel("Misses in the order", Axis("the surest (%)", 0, 100), Axis("missed (%)", 0, 100), drag=across),
            Panel("What is found among the kept", Axis("kept (%)", 0, 100), Axis("Recall@1 (%)", 0, 100), drag=across),
        ],
        name=name,
        title="Images in the order of their uncertainty, and what a search finds among the kept",
        about=counted(len(said), "sets"),
    )  # fmt: skip
