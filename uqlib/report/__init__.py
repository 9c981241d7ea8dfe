"""What a notebook reports with: tables, figures, figures that move, numbers for the prose; and a classifier judged in one call."""

__all__ = ["Report", "report"]


def __getattr__(name: str) -> object:
    """`report` and what it returns, imported when they are asked for: other parts need neither pandas nor matplotlib."""
    if name in __all__:
        from uqlib.report import one_call

        return getattr(one_call, name)
    raise AttributeError(f"module 'uqlib.report' has no attribute {name!r}")
