"""What a run is told: parameters filled in by the scale, checked, and set beside those that the claims are about."""

import ast
import json
from collections.abc import Collection, Mapping
from typing import Any

from uqlib.base.options import check_choice, check_fraction, check_number, check_whole
from uqlib.base.scales import at_scale
from uqlib.evidence.cells import assigned
from uqlib.files.whole import in_checkout

NO_PARAMETERS = ("scale", "record")  # nor are names of capitals, which are constants
NO_CLAIMS = (*NO_PARAMETERS, "seed", "draws")  # say how surely, not what
Allowed = str | int | range | Collection[str]  # see check_allowed


def fill_by_scale(notebook: str, namespace: dict[str, Any], scale: str, scales: Mapping[str, Any]) -> None:
    """Set what is 0 or empty in a namespace to its value at a scale.

    Args:
        notebook: PAPER/NAME, for errors.
        namespace: of the notebook.
        scale: that is run.
        scales: by parameter its values at smoke, cpu and gpu; the last one goes on.

    Raises:
        ValueError: if a parameter is not there, it has not one to three values, or a number is negative.
        TypeError: if a parameter is of another type than its values.
    """
    for name, values in scales.items():
        if name not in namespace:
            raise ValueError(
                f"{notebook} has no parameter {name!r} for scale {scale} to set; add it to the parameters cell"
            )
        if not isinstance(values, list | tuple) or not 1 <= len(values) <= 3:
            raise ValueError(
                f"{name} must have its values at smoke, cpu and gpu in a list, one to three; it is {values!r}"
            )
        smoke, cpu, gpu = [*values, values[-1], values[-1]][:3]
        value = namespace[name] or at_scale(scale, smoke=smoke, cpu=cpu, gpu=gpu)
        if isinstance(smoke, int) and not isinstance(smoke, bool):
            check_whole(value, name, least=0)
        elif not isinstance(value, type(smoke)):
            raise TypeError(f"{name} must be of type {type(smoke).__name__}, such as {smoke!r}; it is {value!r}")
        namespace[name] = value


def check_allowed(name: str, value: Any, rule: Allowed) -> None:
    """Refuse a parameter that makes no sense.

    Args:
        name: what errors call it.
        value: a number, a name, or a list, each entry of which is checked; it must have one.
        rule: an interval such as "(0, 1]" or "[0, inf)", the least whole number, a range of whole numbers, or the names to choose from.

    Raises:
        ValueError: if it is not allowed.
        TypeError: if it is of another type.
    """
    if isinstance(value, list | tuple):
        if not value:
            raise ValueError(f"{name} is empty; it needs an entry or more")
        for k, each in enumerate(value):
            check_allowed(f"{name}[{k}]", each, rule)
    elif isinstance(rule, str):
        low, high = (float(end) for end in rule[1:-1].split(","))
        if (low, high) == (0, 1):
            check_fraction(value, name, within=rule)
        else:
            least, above = (low, None) if rule[0] == "[" else (None, low)
            check_number(value, name, least=least, above=above, most=high)
    elif isinstance(rule, range):
        check_whole(value, name, least=rule.start, most=rule[-1])
    elif isinstance(rule, int):
        check_whole(value, name, least=rule)
    else:
        check_choice(value, rule, name)


def changed_words(notebook: str, given: Mapping[str, Any], aside: Collection[str]) -> str:
    """What of the parameters is not as the notebook in the checkout has it, which is what its claims are about.

    Args:
        notebook: PAPER/NAME.
        given: the parameters, before anything was filled in.
        aside: those that no claim rests on.

    Returns:
        Words that follow a verdict, such as " (with share = 0.5)"; none where all is as it stands, or where there is no checkout.
    """
    if (path := in_checkout(f"notebooks/{notebook}.ipynb")) is None:
        return ""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    source = "".join("".join(cell["source"]) for cell in cells if "parameters" in cell["metadata"].get("tags", ()))
    found: dict[str, Any] = {}
    for node in ast.parse(source).body:
        for name in assigned(node):
            found[name] = ast.literal_eval(getattr(node, "value"))  # noqa: B009
    asked = {name: value for name, value in found.items() if name not in (*NO_CLAIMS, *aside)}
    changed = [f"{name} = {given[name]}" for name, value in asked.items() if given.get(name, value) != value]
    return f" (with {', '.join(changed)})" if changed else ""
