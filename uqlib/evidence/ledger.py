"""The ledger: what each paper claims and what it reports.

One TOML file a paper. A row is a table or figure; it has claims, each a condition on a quantity that our runs record,
and reported numbers, each with its place.
"""

import math
import re
from collections import Counter
from pathlib import Path
from typing import Any

from uqlib.base.extras import named
from uqlib.base.options import check_choice, check_fraction, check_number, check_whole
from uqlib.evidence.records import UNITS, Result
from uqlib.files.typed import TomlTable, read_toml
from uqlib.files.whole import in_checkout

with named():
    from msgspec import field
    from msgspec.structs import force_setattr, replace

CONDITION = re.compile(r"\s*(\|x\|\s*<|<=?|>=?)\s*([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)\s*")
ID = re.compile(r"[A-Za-z0-9][\w.-]*", re.ASCII)  # of a paper, row or claim: it becomes an anchor, a file name
NOTEBOOK = re.compile(r"[a-z0-9_]+/[a-z0-9_]+", re.ASCII)
CITE = re.compile(r"[A-Za-z0-9][\w:./+-]*", re.ASCII)


class Claim(TomlTable, frozen=True):
    """A statement that can fail: `quantity` (as recorded) must satisfy `holds`, e.g. "< 0" or "|x| < 0.002".

    `share` is the part of the settings (pairs, data sets) in which it must hold; 1 where the paper says "all",
    less where it says "nearly all". `unit` is what the claim is about: that it holds for other examples, other trainings,
    other networks. An interval that does not cover the unit cannot make it certain. Results of other papers' notebooks say
    nothing of it.
    """

    id: str
    text: str
    quantity: str
    holds: str
    share: float = 1.0
    unit: str = "examples"  # one of records.UNITS
    ours: bool = False  # a claim that the paper does not make: a control, or a proxy of a figure that the eye judges
    fact: str = (
        ""  # claims that bear one name rest on the same finding, and count once; by default each quantity is one
    )
    by_construction: str = ""  # why it cannot fail, where that is so
    not_testable: str = ""  # why nothing at hand can test it, where its row can be tested otherwise
    effect: float | None = None  # what the paper reports of the quantity, in its unit
    effect_error: float | None = None  # its standard error
    effect_at: str = ""  # place in the paper, and how it was computed
    forecast: float | None = None  # the probability that it is confirmed, given before any run
    paper: str = ""  # whose notebooks count; the ledger sets it, and a claim without one takes all

    def __post_init__(self) -> None:
        _check_pattern(self.id, ID, "the id of a claim", "letters, digits, _ . and -")
        condition = CONDITION.fullmatch(str(self.holds))
        if not condition or not math.isfinite(float(condition[2])) or "\n" in self.holds:
            raise ValueError(
                f"claim {self.id}: cannot read the condition {self.holds!r}; write '< 0', '>= 1' or '|x| < 2'"
            )
        check_fraction(self.share, f"claim {self.id}: share", within="(0, 1]")
        check_choice(self.unit, UNITS, f"unit of claim {self.id}")
        for name in ("effect", "effect_error"):
            if (number := getattr(self, name)) is not None:
                check_number(number, f"claim {self.id}: {name}", least=None if name == "effect" else 0)
        if self.forecast is not None:
            check_fraction(self.forecast, f"claim {self.id}: forecast")
        if (self.effect is None) != (not self.effect_at) or (self.effect is None and self.effect_error is not None):
            raise ValueError(
                f"claim {self.id}: effect and effect_at go together; say what the paper reports, and where"
            )

    def concerns(self, result: Result) -> bool:
        """Whether a result is of the claim's quantity, and of a notebook of its paper."""
        own = not (self.paper and result.notebook) or result.notebook.startswith(f"{self.paper}/")
        return own and result.quantity == self.quantity

    @property
    def condition(self) -> tuple[str, float]:
        """The operator, and the bound."""
        found = CONDITION.fullmatch(self.holds)
        assert found is not None  # or there were no such claim
        return re.sub(r"\s", "", found[1]), float(found[2])

    def meets(self, x: float) -> bool:
        """Whether a value satisfies the condition."""
        operator, bound = self.condition
        tests = {"<": x < bound, "<=": x <= bound, ">": x > bound, ">=": x >= bound}
        return abs(x) < bound if operator.startswith("|") else tests[operator]


class Reported(TomlTable, frozen=True):
    """A number that the paper prints or draws; its row says where and how it was read."""

    setting: str
    quantity: str
    value: int | float
    unit: str = ""
    decimals: int = 2

    def __post_init__(self) -> None:
        check_number(self.value, f"the value of {self.quantity} for {self.setting}")
        check_whole(self.decimals, f"decimals of {self.quantity} for {self.setting}", least=0, most=20)

    def __str__(self) -> str:
        return f"{self.value:.{self.decimals}f}".replace("-", "−")


class Row(TomlTable, frozen=True):
    """A table or figure of the paper."""

    id: str
    shows: str
    title: str = ""  # in a few words, after the paper's name of it: "Table 2: accuracy and ECE of seven losses"
    notebook: str = ""
    not_testable: str = ""  # the reason, where nothing at hand can test it
    source: str = ""  # of the reported numbers
    claims: tuple[Claim, ...] = field(name="claim", default=())
    reported: tuple[Reported, ...] = ()

    def __post_init__(self) -> None:
        _check_pattern(self.id, ID, "the id of a row", "letters, digits, _ . and -")
        if self.notebook:
            _check_pattern(self.notebook, NOTEBOOK, f"row {self.id}: notebook", "PAPER/NAME of a-z, 0-9 and _")

    @property
    def place(self) -> str:
        """What the paper calls it, such as "Table 2"; the id where the ledger gives no title."""
        return self.title.partition(":")[0] or self.id

    def number(self, setting: str, quantity: str) -> Reported:
        """The reported number; the error lists those that there are."""
        for number in self.reported:
            if (number.setting, number.quantity) == (setting, quantity):
                return number
        known = "; ".join(f"{number.setting}, {number.quantity}" for number in self.reported)
        raise KeyError(f"{self.id} reports no {quantity!r} for {setting!r}; it has {known}")


class Ledger(TomlTable, frozen=True):
    """What one paper claims and reports."""

    paper: str
    title: str
    cite: str
    rows: tuple[Row, ...] = field(name="row", default=())
    gist: str = ""  # what the paper promises, in a sentence of plain words
    arxiv: str = ""  # its number there
    code: str = ""  # where the authors' code lies

    def __post_init__(self) -> None:
        _check_pattern(self.paper, ID, "paper", "letters, digits, _ . and -")
        _check_pattern(self.cite, CITE, "cite", "one key of references.bib")
        ids = Counter([*(row.id for row in self.rows), *(claim.id for row in self.rows for claim in row.claims)])
        if twice := sorted(id for id, times in ids.items() if times > 1):
            raise ValueError(f"these ids stand twice: {', '.join(twice)}; give each row and claim its own")
        if foreign := [c for row in self.rows for c in row.claims if c.paper not in ("", self.paper)]:
            raise ValueError(f"claim {foreign[0].id}: leave out paper; it is that of the ledger, {self.paper}")
        rows = (replace(r, claims=tuple(replace(c, paper=self.paper) for c in r.claims)) for r in self.rows)
        force_setattr(self, "rows", tuple(rows))

    def __getitem__(self, id: str) -> Row:
        for row in self.rows:
            if row.id == id:
                return row
        raise KeyError(f"{self.paper} has no row {id!r}; choose from {', '.join(row.id for row in self.rows)}")


def read_ledger(path: str | Path) -> Ledger:
    """Read a ledger file.

    Raises:
        ValueError: if a field is missing, unknown or of another type, a claim has no condition that can be read, an id is
            used twice, or the file is no TOML; names file, row, claim and field.
    """
    return read_toml(path, Ledger)


def find(paper: str) -> Path:
    """The ledger file of a paper, in the checkout around the current folder or around this file."""
    place = f"data/ledger/{_check_pattern(paper, ID, 'paper', 'letters, digits, _ . and -')}.toml"
    if (path := in_checkout(place)) is None:
        raise FileNotFoundError(f"no {place} around {Path.cwd()}; run from a checkout of the book")
    return path


def read_ledgers(folder: str | Path) -> list[Ledger]:
    """Every ledger of a folder, in the order of the file names."""
    return [read_ledger(path) for path in sorted(Path(folder).glob("*.toml"))]


def _check_pattern(text: Any, pattern: re.Pattern, name: str, what: str) -> str:
    if not isinstance(text, str) or not pattern.fullmatch(text):
        raise ValueError(f"{name} must be {what}; it is {text!r:.60}")
    return text
