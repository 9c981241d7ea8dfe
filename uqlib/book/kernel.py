"""A kernel that runs the cells of a notebook through papermill, in memory, and ends with the process that started it."""

import contextlib
import json
import logging
import os
import secrets
import signal
import threading
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from uqlib.book import tracing


class NotRunError(Exception):
    """A run that did not reach its end, with the copy up to there."""

    def __init__(self, what: str, copy: dict[str, Any] | None):
        super().__init__(what)
        self.copy = copy


class _Memory:
    """Where papermill reads and writes: no file lies anywhere before the run has ended."""

    def __init__(self) -> None:
        self.texts: dict[str, str] = {}

    def read(self, path: str) -> str:
        return self.texts[path]

    def write(self, text: str, path: str) -> None:
        self.texts[path] = text

    def listdir(self, path: str) -> list[str]:
        return [path]

    def pretty_path(self, path: str) -> str:
        return path


MEMORY = _Memory()


def run_cells(
    body: dict[str, Any], *, progress: bool = True, reads: str = "", folders: Iterable[str] = ()
) -> dict[str, Any]:
    """Run a notebook whose parameters are set.

    Args:
        body: the notebook; every cell has an id.
        progress: whether a bar says how far it is.
        reads: file in which the kernel notes what it reads, see `tracing`; empty: nothing is noted.
        folders: those below which it does.

    Raises:
        NotRunError: if a cell fails or the kernel dies.

    It runs in a thread: in the main one nbclient would take the signals for itself, and a Ctrl-C would look like a kernel
    that died.
    """
    import nbformat  # not needed to read parameters
    import papermill
    from jupyter_client.manager import AsyncKernelManager
    from jupyter_core.utils import ensure_event_loop
    from nbclient.exceptions import DeadKernelError
    from papermill.iorw import papermill_io

    logging.getLogger("papermill").addHandler(logging.NullHandler())  # what went wrong is said once, by us
    if not any(scheme == "uqlib-memory:" for scheme, _ in papermill_io._handlers):
        papermill_io.register("uqlib-memory:", MEMORY)
    place = f"uqlib-memory:{secrets.token_hex(8)}.ipynb"
    stopped = threading.Event()
    kernels: list[Any] = []
    arguments = [
        "--IPKernelApp.log_level=CRITICAL",
        *([f"--IPKernelApp.exec_lines={_tracer(reads, folders)}"] if reads else []),
    ]

    class Manager(AsyncKernelManager):
        async def _async_start_kernel(self, **options: Any) -> None:
            if stopped.is_set():
                raise RuntimeError("the run was stopped")
            kernels.append(self)
            options["extra_arguments"] = [*options.get("extra_arguments", []), *arguments]
            await super()._async_start_kernel(**options)
            if stopped.is_set():
                _kill(self)

        start_kernel = _async_start_kernel

    def work() -> None:
        loop = ensure_event_loop()
        try:
            papermill.execute_notebook(
                place, place, {}, progress_bar=progress, kernel_name="python3", language="python", log_output=False,
                kernel_manager_class=Manager,
            )  # fmt: skip
        finally:
            loop.close()

    MEMORY.texts[place] = json.dumps(body)
    try:
        with ThreadPoolExecutor(1) as pool:
            try:
                pool.submit(work).result()
            except BaseException:
                stopped.set()
                for kernel in kernels:
                    _kill(kernel)
                raise
        return json.loads(MEMORY.texts[place])
    except papermill.PapermillExecutionError as error:
        what = f"cell {error.cell_index} raised {error.ename}: {error.evalue}"
        raise NotRunError(what, json.loads(MEMORY.texts[place])) from None
    except DeadKernelError:
        run = json.loads(MEMORY.texts[place])
        began = [k for k, cell in enumerate(run["cells"]) if cell["metadata"].get("papermill", {}).get("start_time")]
        what = f"the kernel died in cell {began[-1] if began else 0}; out of memory is the usual reason"
        raise NotRunError(what, run) from None
    except (papermill.PapermillException, nbformat.ValidationError) as error:
        raise NotRunError(f"{type(error).__name__}: {error}", None) from None
    finally:
        del MEMORY.texts[place]


def _kill(kernel: Any) -> None:
    process = getattr(kernel.provisioner, "process", None)
    if process is not None and process.poll() is None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)  # a session of its own, with all that its cells have started


def _tracer(reads: str, folders: Iterable[str]) -> str:
    """A line that runs before the first cell and leaves no name behind."""
    return f"__import__({tracing.__name__!r}, fromlist=['note_reads']).note_reads({reads!r}, {list(folders)!r})"
