"""The ledger: what each paper claims, what it reports, and what our own records say of it.

One TOML file a paper. A row is a table or figure; it has claims, each a condition on a quantity that our runs record,
and reported numbers, each with its place. A verdict is computed from records, never typed.
"""

import re
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from uqlib.files import in_checkout
from uqlib.records import Result
from uqlib.scales import SCALES

VERDICTS = ("confirmed", "direction only", "not confirmed", "not testable here", "open")
CONDITION = re.compile(r"\s*(\|x\|\s*<|<=?|>=?)\s*([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)\s*")


@dataclass(frozen=True)
class Claim:
    """A statement that can fail: `quantity` (as recorded) must satisfy `holds`, e.g. "< 0" or "|x| < 0.002".

    `share` is the part of the settings (pairs, data sets) in which it must hold; 1 where the paper says "all",
    less where it says "nearly all".
    """

    id: str
    text: str
    quantity: str
    holds: str
    share: float = 1.0

    def __post_init__(self) -> None:
        if not CONDITION.fullmatch(str(self.holds)):
            raise ValueError(
                f"claim {self.id}: cannot read the condition {self.holds!r}; write '< 0', '>= 1' or '|x| < 2'"
            )
        if not 0 < self.share <= 1:
            raise ValueError(f"claim {self.id}: share must lie in (0, 1]; it is {self.share}")

    def meets(self, x: float) -> bool:
        operator, bound = CONDITION.fullmatch(self.holds).groups()
        bound = float(bound)
        tests = {"<": x < bound, "<=": x <= bound, ">": x > bound, ">=": x >= bound}
        return abs(x) < bound if operator.startswith("|") else tests[operator]


@dataclass(frozen=True)
class Reported:
    """A number that the paper prints or draws; its row says where and how it was read."""

    setting: str
    quantity: str
    value: float
    unit: str = ""
    decimals: int = 2

    def __str__(self) -> str:
        return f"{self.value:.{self.decimals}f}"


@dataclass(frozen=True)
class Row:
    """A table or figure of the paper."""

    id: str
    shows: str
    notebook: str = ""
    not_testable: str = ""  # the reason, where nothing at hand can test it
    source: str = ""  # of the reported numbers
    claims: tuple[Claim, ...] = field(default=())
    reported: tuple[Reported, ...] = field(default=())

    @property
    def untested(self) -> str:
        """The verdict where no record speaks, either not testable here or open."""
        return "not testable here" if self.not_testable else "open"

    def number(self, setting: str, quantity: str) -> Reported:
        """The reported number; the error lists those that there are."""
        for number in self.reported:
            if (number.setting, number.quantity) == (setting, quantity):
                return number
        known = "; ".join(f"{number.setting}, {number.quantity}" for number in self.reported)
        raise KeyError(f"{self.id} reports no {quantity!r} for {setting!r}; it has {known}")


@dataclass(frozen=True)
class Ledger:
    paper: str
    title: str
    cite: str
    rows: tuple[Row, ...]

    def __getitem__(self, id: str) -> Row:
        for row in self.rows:
            if row.id == id:
                return row
        raise KeyError(f"{self.paper} has no row {id!r}; choose from {', '.join(row.id for row in self.rows)}")


class Verdict(NamedTuple):
    """What our records say of one claim at one scale."""

    claim: Claim
    scale: str
    verdict: str  # one of VERDICTS
    results: tuple[Result, ...]  # the evidence, one a setting
    certain: int  # settings in which the whole interval meets the condition
    likely: int  # settings in which the value does


def load(path: str | Path) -> Ledger:
    """Read a ledger file; an unknown field, a claim without a condition, or an id used twice is an error."""
    with open(path, "rb") as file:
        content = file.read()
    try:
        body = tomllib.loads(content.decode())
        rows = tuple(_row(row) for row in body.pop("row", []))
        ledger = Ledger(**body, rows=rows)
    except (TypeError, AttributeError, tomllib.TOMLDecodeError) as error:
        raise ValueError(f"{path}: {error}") from None
    ids = [row.id for row in rows] + [claim.id for row in rows for claim in row.claims]
    twice = {id for id in ids if ids.count(id) > 1}
    if twice:
        raise ValueError(f"{path}: these ids stand twice: {', '.join(sorted(twice))}")
    return ledger


def find(paper: str) -> Path:
    """The ledger file of a paper, in the checkout around the current folder or around this file."""
    place = f"data/ledger/{paper}.toml"
    if (path := in_checkout(place)) is None:
        raise FileNotFoundError(f"no {place} around {Path.cwd()}; run from a checkout of the book")
    return path


def load_all(folder: str | Path) -> list[Ledger]:
    """Every ledger of a folder, in the order of the file names."""
    return [load(path) for path in sorted(Path(folder).glob("*.toml"))]


def judge(claim: Claim, results: Iterable[Result], scale: str) -> Verdict:
    """The verdict on a claim from the results at one scale.

    In a setting the claim is certain if the whole interval meets the condition, likely if the value does. It is
    confirmed if it is certain in the share of settings that the claim asks for, direction only if it is likely in that
    share, else not confirmed. A result without an interval is never certain: direction only at best.
    """
    found = tuple(result for result in results if result.quantity == claim.quantity and result.scale == scale)
    certain = sum(_certain(claim, result) for result in found)
    likely = sum(claim.meets(result.value) for result in found)
    needed = claim.share * len(found) - 1e-9
    verdict = "confirmed" if certain >= needed else "direction only" if likely >= needed else "not confirmed"
    return Verdict(claim, scale, verdict if found else "open", found, certain, likely)


def verdicts(row: Row, results: Iterable[Result]) -> list[Verdict]:
    """Every claim of a row at every scale that has evidence; a claim with none is open, or not testable here."""
    results = list(results)
    judged = []
    for claim in row.claims:
        with_evidence = [verdict for scale in SCALES if (verdict := judge(claim, results, scale)).results]
        judged += with_evidence or [Verdict(claim, "", row.untested, (), 0, 0)]
    return judged


def _certain(claim: Claim, result: Result) -> bool:
    return result.low is not None and claim.meets(result.low) and claim.meets(result.high)


def _row(body: dict[str, Any]) -> Row:
    claims = tuple(Claim(**claim) for claim in body.pop("claim", []))
    reported = tuple(Reported(**number) for number in body.pop("reported", []))
    return Row(**body, claims=claims, reported=reported)
