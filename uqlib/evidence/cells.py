"""What a cell of parameters assigns, read without running it, and without numpy or torch."""

import ast


def assigned(node: ast.stmt) -> list[str]:
    """The names that a plain assignment sets, with or without an annotation; none if it is another statement."""
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    names = [each.id for each in targets if isinstance(each, ast.Name)]
    return names if len(names) == len(targets) and getattr(node, "value", None) is not None else []
