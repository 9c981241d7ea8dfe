"""The verbs of a notebook: begin, record, kept, table, beside, forest, strips, against, show, finding, tell, done.

A notebook goes this way:

    run = begin("zhou2025/one_pair", globals(), draws=[100, 2000])
    gain = scores - scores.sel(variant="base")
    run.record("{measure}_gain", gain, setting="CIFAR-10")
    run.forest(gain, rows="measure", name="gain", what="Gain")
    run.tell("{measure}", gain)  # the prose has aurc, aurc.phrase, ...
    run.done()
"""

import base64
import difflib
import re
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from html import escape
from types import SimpleNamespace
from typing import Any

from uqlib.base import provenance
from uqlib.base.extras import named
from uqlib.base.scales import check_scale
from uqlib.evidence import ledger, verdicts
from uqlib.evidence.ledger import Ledger
from uqlib.evidence.parameters import NO_PARAMETERS, Allowed, changed_words, check_allowed, fill_by_scale
from uqlib.evidence.records import Run, read_record, start_run
from uqlib.files.whole import in_checkout, sha256_of_file, write_text
from uqlib.metrics.compare import cells
from uqlib.metrics.outcomes import MEASURES
from uqlib.report import charts, plots, tables, telling

with named():
    import pandas as pd

PLAIN = (bool, int, float, str, list, dict, type(None))
KEPT = ("value", "low", "high", "level", "splits", "seeds", "examples")  # of a result that is read back
EVIDENCE = "§"  # ends the name of what stands behind a fact; the book shows it beside the number
PRINTED = 3  # numbers of the paper, and claims, that evidence names


class Report:
    """A notebook's run: what it finds is recorded, shown and told through this."""

    def __init__(self, run: Run, paper: Ledger | None):
        self.run, self.paper = run, paper
        self.labels: dict[Any, str] = {}  # names in print, by value; a notebook fills it
        self.behind: dict[str, str] = {}  # evidence, by the name of what is told, or by a text that is
        self._told: dict[str, tuple[pd.DataFrame, str, str]] = {}  # cells, their evidence and unit, by name
        self._known: dict[
            tuple[float, ...], set[str]
        ] = {}  # what is recorded of a cell, and what the paper reports for it
        self.changed = ""  # the parameters that are not those of the claims, as words that follow a verdict
        self.claimed = {claim.quantity for row in paper.rows for claim in row.claims} if paper else None

    def record(
        self, quantity: str, found: Any, *, setting: str, examples: int | None = None, unclaimed: bool = False
    ) -> None:
        """Record every cell with its interval, under the quantity that a claim of the ledger names.

        Args:
            quantity, setting: templates of the names of the cells, such as "{measure}_{variant}_minus_base"; `{title}` is the
                measure's name in print.
            found: an array of `metrics.compare`, or cells. Columns `splits`, `seeds` and `examples` are recorded too, and
                `covers`: of what units, with commas, an interval says how others would come out. Where there are intervals
                it must be there.
            examples: of one repetition, where the cells do not say.
            unclaimed: whether the paper's ledger has no claim about the quantity, and the numbers are kept all the same.

        Raises:
            ValueError: if a template names what the cells do not have, no claim names the quantity, or a result of that
                quantity and setting is there already.
        """
        frame = cells(found)
        for template in (quantity, setting):
            telling.template_fields(template.replace("{title}", ""), frame)
        for row in frame.to_dict("records"):
            words = row | ({"title": MEASURES[row["measure"]].name} if row.get("measure") in MEASURES else {})
            name = quantity.format(**words)
            self._check_claimed(name, unclaimed)
            self._note_known(row, name)
            ends = {
                k: None if (x := row.get(k)) is None or x != x else float(x) for k in ("value", "low", "high", "level")
            }
            counted = {
                k: int(v)
                for k, v in {"examples": examples, **row}.items()
                if k in ("splits", "seeds", "examples") and v == v and v
            }
            covers = []
            if ends["low"] is not None:
                if not isinstance(units := row.get("covers"), str):
                    raise ValueError(
                        f"{name} has intervals, and nothing says of what; add a column covers, such as 'examples, splits'"
                    )
                covers = units.split(", ")
            self.run.add(name, SimpleNamespace(**ends), setting=setting.format(**words), covers=covers, **counted)

    def kept(self, quantity: str, setting: str) -> pd.DataFrame:
        """Cells of the record of this notebook that travels with the book (data/records): what `record` was given, read back.

        For a page whose data cannot travel: its text then says what was found where they were.

        Args:
            quantity, setting: the templates that they were recorded under; each name in them becomes a column.

        Returns:
            A row a result, in their order; none if there is no such record. `attrs["date"]` says when it was made. The
            column seeds is there only where a result rests on more than one.
        """
        record = self._kept_record()
        patterns = [re.sub(r"\\{(\w+)\\}", r"(?P<\1>.+?)", re.escape(each)) for each in (quantity, setting)]
        rows = []
        for result in record["results"] if record else ():
            names = [re.fullmatch(*both) for both in zip(patterns, (result.quantity, result.setting), strict=True)]
            if all(names):
                about = {k: getattr(result, k) for k in KEPT} | {"covers": ", ".join(result.covers) or None}
                rows.append({k: v for each in names if each for k, v in each.groupdict().items()} | about)
        asked = re.findall(r"\{(\w+)\}", quantity + setting)
        frame = pd.DataFrame(rows, columns=[*asked, *KEPT, "covers"])
        if (frame["seeds"] == 1).all():  # so says a record too where nothing was trained
            frame = frame.drop(columns="seeds")
        frame.attrs["date"] = record["provenance"]["date"][:10] if record else ""
        return frame

    def table(
        self,
        found: Any,
        *,
        rows: str | Sequence[str],
        columns: str | Sequence[str],
        caption: str,
        name: str = "",
        **style: Any,
    ) -> tables.Shown:
        """Cells as a table, names in print, with the cells as CSV; `style`: digits, percent, ends, signed."""
        if not len(frame := cells(found)):
            return _nothing(caption)
        down, across = ([each] if isinstance(each, str) else list(each) for each in (rows, columns))
        wide = tables.spread(frame, down, across, labels=self.labels, **style | {"ends": True})
        fold, made = not style.get("ends", True), self._made(frame)
        return tables.show_table(
            wide, caption=caption, name=name or "_".join(down + across), data=frame, fold=fold, made=made
        )

    def frame(self, frame: pd.DataFrame, *, caption: str, name: str = "table", digits: int = 2) -> tables.Shown:
        """Any data frame as a table, with itself as CSV."""
        return tables.show_table(frame, caption=caption, name=name, digits=digits, made=self._made())

    def beside(
        self, row: str | Sequence[str], found: Any, *, setting: str, quantity: str = "{measure}", minus: str = "", **options: Any
    ) -> tables.Shown:  # fmt: skip
        """Cells as a table beside what rows of the paper's ledger report; see `tables.with_paper`, and `table` for the rest."""
        rows = [self._row(each) for each in ([row] if isinstance(row, str) else row)]
        whole = ledger.replace(rows[0], reported=tuple(number for each in rows for number in each.reported))
        frame = tables.with_paper(cells(found), whole, setting, quantity, minus)
        for cell in frame.query("paper != '–'").to_dict("records"):
            self._note_known(cell, f"paper:{cell['paper']} in {' and '.join(dict.fromkeys(r.place for r in rows))}")
        return self.table(frame, **options)

    def placed(self, row: str, found: Any, *, setting: str, quantity: str, minus: str, **where: Any) -> str:
        """The gains that a row of the paper's ledger reports beside our intervals, in words; see `telling.placed`.

        Args:
            row: of the ledger.
            found: cells of `minus` less another variant each, in fractions.
            setting: template of the settings of the reported numbers.
            quantity: reported, in points.
            minus: the variant from whose number the others are taken.
            where: which of the cells, by the columns.
        """
        frame, reported, told = cells(found), self._row(row), []
        for cell in frame.to_dict("records"):
            if all(cell[name] == value for name, value in where.items()):
                ours, other = (setting.format(**(cell | {"variant": each})) for each in (minus, cell["variant"]))
                gain = reported.number(ours, quantity).value - reported.number(other, quantity).value
                told.append(f"over {telling.label(cell['variant'], self.labels)} {telling.placed(gain, cell)}")
        text = "; ".join(told) or telling.NOTHING
        self.behind[text] = (
            f"{reported.place} of the paper, {quantity} in points, beside ours{telling.rests_on(frame)}."
        )
        return text

    def reported(
        self,
        row: str,
        *,
        caption: str,
        rows: str = "setting",
        columns: str | Sequence[str] = "quantity",
        pattern: str = "",
    ) -> tables.Shown:
        """What a row of the paper's ledger reports, as a table of its own; for `pattern` see `tables.reported_frame`."""
        frame = tables.reported_frame(self._row(row), pattern)
        parts = frame[[columns] if isinstance(columns, str) else list(columns)]
        across = parts.apply(lambda names: ", ".join(telling.label(name, self.labels) for name in names), axis=1)
        wide = frame.assign(across=across).pivot(index=rows, columns="across", values="paper")
        wide = wide.reindex(index=tables.in_order(frame[rows].unique()), columns=across.unique())
        whose = self._row(row)
        made = f"{self._made()} · {escape(f'{whose.place}: {whose.source}' if whose.source else f'{whose.place} of the paper')}"
        return tables.show_table(wide, caption=caption, name=row, data=frame, made=made)

    def forest(self, found: Any, *, rows: str, name: str, what: str, title: str = "", **options: Any) -> tables.Shown:
        """Draw, keep and show a forest of intervals; `what` it shows begins the alternative text. See `charts.forest`."""
        if not len(frame := cells(found)):
            return _nothing(what)
        figure = charts.forest(frame, rows=rows, labels=self.labels, **options)
        return self.show(
            figure, name, what, frame, title, percent=options.get("percent", True), signed=options.get("zero", True)
        )

    def strips(self, found: Any, *, rows: str, name: str, what: str, title: str = "", **options: Any) -> tables.Shown:
        """Draw, keep and show many values as dots with their medians. See `charts.strips`."""
        if not len(frame := cells(found)):
            return _nothing(what)
        figure = charts.strips(frame, rows=rows, labels=self.labels, **options)
        return self.show(figure, name, what, frame, title, percent=options.get("percent", True))

    def against(
        self, found: Any, *, cost: str, name: str, what: str, title: str = "", of: str = "", **options: Any
    ) -> tables.Shown:
        """Draw, keep and show values against a cost; `of` names the cells, and so the lowest and the highest. See `charts.against`."""
        if not len(frame := cells(found)):
            return _nothing(what)
        figure = charts.against(frame, cost=cost, labels=self.labels, **options)
        if of:
            values = (100 if options.get("percent", True) else 1) * frame["value"]
            plots.name_ends(figure.axes[0], frame[cost].tolist(), values.tolist(), frame[of].tolist())
        return self.show(
            figure, name, what, frame, title, percent=options.get("percent", True), signed=options.get("zero", True)
        )

    def heat(
        self, frame: pd.DataFrame, *, name: str, what: str, found: Any = None, title: str = "", **options: Any
    ) -> tables.Shown:
        """Draw, keep and show a table of numbers as colours, made of the cells `found`. See `charts.heat`."""
        return _nothing(what) if frame.empty else self.show(charts.heat(frame, **options), name, what, found, title)

    def show(self, figure: Any, name: str, what: str, found: Any = None, title: str = "", **style: Any) -> tables.Shown:
        """Keep a figure beside the record and show it, with an alternative text made from its cells, and these as CSV.

        Args:
            figure: of matplotlib; it is closed.
            name: of its file.
            what: it shows, in words; of a figure without cells this is the whole alternative text.
            found: the cells that it shows, or any data frame; the first are told, the second only linked.
            title: the finding, which the cells complete, or `finding` has of others; see `charts.entitle`.
            style: of the numbers in the alternative text: digits, percent, ends, signed.
        """
        frame = None if found is None else cells(found)
        if title:
            charts.entitle(figure, title, frame, labels=self.labels, **style)
        plots.fit(figure)
        wide, phone = self._save(figure, name), ""
        if plots.narrow(figure):
            phone = f'<source media="(max-width: 600px)" srcset="{self._save(figure, f"{name}.narrow")}">'
        plots.plt.close(figure)
        alt = (
            charts.describe(frame, what, labels=self.labels, **style)
            if frame is not None and "value" in frame
            else what
        )
        picture = f'<picture id="fig-{name}">{phone}<img alt="{escape(alt)}" src="{wide}"></picture>'
        return tables.Shown(picture, name=name, data=frame, plain=alt, made=self._made(frame))

    def _save(self, figure: Any, name: str) -> str:
        """Keep a figure beside the record, and return it as an address that holds all of it."""
        path = self.run.save_figure(figure, name)
        write_text(path, plots.adapted(path.read_text(encoding="utf-8")))
        return f"data:image/svg+xml;base64,{base64.b64encode(path.read_bytes()).decode()}"

    def finding(self, template: str, found: Any, **style: Any) -> str:
        """A sentence that cells complete, such as the title of a figure; see `telling.finding`."""
        return telling.finding(template, cells(found), labels=self.labels, **style)

    def tell(self, name: str, found: Any, *, better: str = "", **style: Any) -> None:
        """Give the prose its numbers and phrases: NAME, NAME.phrase, ...; see `telling.facts`.

        Args:
            name: a template of the names of the cells; each of its values makes a group that is told by itself.
            found: an array of `metrics.compare`, or cells.
            better: "higher" or "lower", where no measure says so.
            style: digits, percent, ends, signed.
        """
        frame = cells(found)
        fields = telling.template_fields(name, frame)
        for own, part in telling.grouped(name, frame):
            left = [each for each in telling.left_alone(found, part) if each not in fields]
            told = telling.facts(part, better, labels=self.labels, left=left, **style)
            self.note(**{f"{own}{end}": value for end, value in told.items()})
            text = telling.evidence_text(part, better, labels=self.labels, **style)
            if ": " not in text.partition(";")[0]:  # no cell says of what the number is
                text = f"{re.sub('[._]+', ' ', own)}: {text}"
            self._told[own] = part, text, telling.unit_text(part, **style)

    def note(self, **facts: Any) -> None:
        """Give the prose plain facts by name: numbers, to be formatted there, texts, and numbers that the ledger reports."""
        with named():
            from myst_nb import glue
        for name, value in facts.items():
            if isinstance(value, ledger.Reported):
                self.behind[name] = (
                    f"{self._place(value)} of the paper: {telling.label(value.quantity)}, {telling.label(value.setting)}."
                )
                value = value.value
            elif isinstance(value, str) and value in self.behind:
                self.behind[name] = self.behind[value]
            elif name in self.run.parameters and value == self.run.parameters[name]:
                self.behind[name] = "A parameter of the notebook."
            glue(name, value.item() if hasattr(value, "item") else value, display=False)

    def done(self) -> tables.Shown:
        """Save the record; show what it says of the paper's claims, and give the prose each verdict as `claim.ID`.

        Where parameters are not those of the notebook as it is published, a verdict says so: the claim is about others.
        """
        self.run.save()
        own = [row for row in self.paper.rows if row.notebook == self.run.notebook] if self.paper else []
        here = {result.quantity for result in self.run.results}
        record = (
            self._kept_record() if self.run.lacks else None
        )  # a claim that nothing here speaks of is not open for that
        results = [*self.run.results, *(r for r in (record or {"results": ()})["results"] if r.quantity not in here)]
        found = [
            each for row in own for claim in row.claims
            for each in verdicts.judge_row(ledger.replace(row, claims=(claim,)), results)
        ]  # fmt: skip
        self.note(**{f"claim.{each.claim.id}": each.verdict + self.changed for each in found})
        self._note_evidence(found)
        lines = [
            {"claim": each.claim.text, "verdict": each.verdict + self.changed, "surely in": each.certain, "by value in": each.likely,
             "surely not in": each.against, "of": len(each.results)} for each in found
        ]  # fmt: skip
        if not lines:
            return tables.Shown("", name="claims", data=None, plain="The ledger has no claim about this notebook.")
        told = pd.DataFrame(lines).set_index("claim")
        return tables.show_table(told, caption="What this run says of the claims", name="claims", made=self._made())

    def _note_known(self, cell: dict[Any, Any], what: str) -> None:
        """A cell with an interval is known again by its numbers, wherever it is told."""
        if (low := cell.get("low")) is not None and low == low:
            self._known.setdefault((cell["value"], low, cell["high"]), set()).add(what)

    def _note_evidence(self, found: Sequence[verdicts.Verdict]) -> None:
        """Glue what stands behind each fact under its name and EVIDENCE: cells, the paper's numbers, claims of the ledger."""
        claims = [claim for row in self.paper.rows for claim in row.claims] if self.paper else []
        for name, (frame, text, unit) in self._told.items():
            keys = [(row.get("value"), row.get("low"), row.get("high")) for row in frame.to_dict("records")]
            known = sorted(set().union(*(self._known.get(key, ()) for key in keys)))
            printed = [each.removeprefix("paper:") for each in known if each.startswith("paper:")]
            about = [claim for claim in claims if claim.quantity in known]
            printed += [f"{telling.effect_text(claim, unit)}" for claim in about if claim.effect is not None]
            paper = f" Paper: {'; '.join(printed[:PRINTED])}." if printed else ""
            self.behind[name] = text + paper + "".join(f" {{claim:{claim.id}}}" for claim in about[:PRINTED])
        for v in found:
            settings = telling.counted(len(v.results), "settings")
            counts = f"certain in {v.certain}, by value in {v.likely} of {settings}"
            self.behind[f"claim.{v.claim.id}"] = f"{v.claim.text}: {counts}. {{claim:{v.claim.id}}}"
        self.behind[""] = self._provenance()
        with named():
            from myst_nb import glue
        for name, text in self.behind.items():
            glue(f"{name}{EVIDENCE}", text, display=False)

    def _provenance(self) -> str:
        seed = self.run.parameters.get("seed")
        seeded = "" if seed is None else f"seed {seed}, "
        return f"{seeded}scale {self.run.scale}, {datetime.now(UTC):%Y-%m-%d}"

    def _made(self, frame: pd.DataFrame | None = None) -> str:
        """By what a figure or table was made, and what the numbers of its cells rest on, as HTML."""
        command = f"made by <code>uqlib run notebooks/{escape(self.run.notebook)}.ipynb</code>, {self._provenance()}"
        rests = telling.rests_on(frame) if frame is not None and "value" in frame else ""
        return command + escape(rests.replace("; ", " · ", 1))

    def _place(self, number: ledger.Reported) -> str:
        return next((row.place for row in (self.paper.rows if self.paper else ()) if number in row.reported), "a table")

    def _kept_record(self) -> dict[str, Any] | None:
        place = f"data/records/{self.run.notebook}.json"
        if (path := in_checkout(place)) is None:
            return None
        provenance.note_input(place, sha256_of_file(path))
        return read_record(path)

    def _row(self, id: str) -> ledger.Row:
        if self.paper is None:
            raise ValueError(f"{self.run.notebook} is of no paper with a ledger, so there is no row {id!r}")
        return self.paper[id]

    def _check_claimed(self, quantity: str, unclaimed: bool) -> None:
        if self.claimed is None or unclaimed or quantity in self.claimed:
            return
        near = difflib.get_close_matches(quantity, self.claimed, 3, 0.5)
        raise ValueError(
            f"no claim of the ledger names the quantity {quantity!r}; {'nearest: ' + ', '.join(near) if near else 'none is near'}. "
            "Pass unclaimed=True to keep numbers that no claim is about"
        )


def _nothing(what: str) -> tables.Shown:
    """In place of a table or figure where there are no cells."""
    plain = f"{what}: {telling.NOTHING}."
    return tables.Shown(f"<p>{escape(plain)}</p>", name="", data=None, plain=plain)


def begin(
    notebook: str,
    namespace: dict[str, Any],
    *,
    allowed: Mapping[str, Allowed] | None = None,
    aside: Collection[str] = (),
    **scales: Any,
) -> Report:
    """Begin a run: parameters checked and filled in by the scale, style set, and all that is read from here on noted.

    Args:
        notebook: PAPER/NAME.
        namespace: `globals()` of the notebook, right after its parameters and imports. What is 0 or empty there is set.
        allowed: by parameter what it may be, beyond its type: an interval such as "(0, 1]" or "(0, 9]" of a number, the least whole number, a
            range of whole numbers, or the names to choose from. Of a list, each entry; it must have one.
        aside: parameters that no claim rests on, such as those of a live part beside what is kept.
        scales: by parameter its values at smoke, cpu and gpu, such as `draws=[100, 2000]`; the last one goes on.

    Raises:
        ValueError: if a parameter is not allowed, a scale gives a parameter that the notebook does not have, not one to three
            values, or the scale is unknown.
        TypeError: if a parameter is of another type than its values.
    """
    scale, given = check_scale(namespace.get("scale", "cpu")), dict(namespace)
    fill_by_scale(notebook, namespace, scale, scales)
    for name, rule in (allowed or {}).items():
        check_allowed(name, namespace[name], rule)
    plots.use_style()
    provenance.INPUTS.clear()
    parameters = {
        name: value for name, value in namespace.items()
        if type(value) in PLAIN and name.islower() and not name.startswith("_") and name not in NO_PARAMETERS
    }  # fmt: skip
    run = start_run(notebook, scale=scale, parameters=parameters, path=namespace.get("record", ""))
    run.inputs = provenance.INPUTS
    paper, _, _ = notebook.rpartition("/")
    try:
        report = Report(run, ledger.read_ledger(ledger.find(paper)) if paper else None)
    except FileNotFoundError:  # a draft of somebody's own has no ledger
        report = Report(run, None)
    report.changed = changed_words(notebook, given, aside)
    return report
