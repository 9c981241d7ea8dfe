"""A kernel that runs the cells of a notebook through papermill, in memory, and ends with the process that started it."""

import contextlib
import functools
import json
import logging
import os
import queue
import secrets
import select
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ClassVar, cast

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
FORKS = "UQLIB_FORKS"  # the variable that names the socket at which `profiles/forks.py` lends forks
PATIENCE = 5  # seconds that a fork has to end once it was told to


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
            # without widgets tqdm warns where it is imported first, and in a fork that is not the notebook
            quiet = filter(None, [os.environ.get("PYTHONWARNINGS"), "ignore:IProgress not found"])
            options["env"] = {**os.environ, "PYTHONWARNINGS": ",".join(quiet)}
            await super()._async_start_kernel(**options)
            if stopped.is_set():
                _kill(self)

        async def _async_launch_kernel(self, kernel_cmd: list[str], **options: Any) -> None:
            if not ForkedKernel.waiting or kernel_cmd[:3] != [sys.executable, "-m", "ipykernel_launcher"]:
                return await super()._async_launch_kernel(kernel_cmd, **options)
            forked, local = ForkedKernel(kernel_cmd[3:], options["env"]), cast(Any, self.provisioner)
            local.process, local.pid, local.pgid = forked, forked.pid, forked.pid
            self._reconcile_connection_info(local.connection_info)

        async def _async_wait(self, pollinterval: float = 0.1) -> None:
            await super()._async_wait(pollinterval / 10)

        def client(self, **options: Any) -> Any:
            found: Any = super().client(**options)
            found.wait_for_ready = functools.partial(_wait_until_ready, found)
            return found

        start_kernel, _launch_kernel = _async_start_kernel, _async_launch_kernel

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


async def _wait_until_ready(client: Any, timeout: float) -> None:
    """Ask a new kernel who it is until it answers on both channels; jupyter_client's own then waits 0.2 s for silence."""
    end = time.monotonic() + timeout
    while time.monotonic() < end and await client.is_alive():
        client.kernel_info()
        with contextlib.suppress(queue.Empty):
            reply = await client.shell_channel.get_msg(timeout=1)
            await client.iopub_channel.get_msg(timeout=0.2)
            return client._handle_kernel_info_reply(reply)
    raise RuntimeError("the kernel did not start; its own words stand above")


def _kill(kernel: Any) -> None:
    process = getattr(kernel.provisioner, "process", None)
    if process is not None and process.poll() is None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)  # a session of its own, with all that its cells have started


def _tracer(reads: str, folders: Iterable[str]) -> str:
    """A line that runs before the first cell and leaves no name behind."""
    return f"__import__({tracing.__name__!r}, fromlist=['note_reads']).note_reads({reads!r}, {list(folders)!r})"


class ForkedKernel:
    """A kernel in a process that was forked for it; to jupyter_client it is the one that it would have started."""

    waiting: ClassVar[list[tuple[int, int]]] = []  # processes, and the streams of their orders
    stdin = stdout = stderr = returncode = None

    def __init__(self, arguments: list[str], environment: Mapping[str, str]) -> None:
        self.pid, stream = self.waiting.pop()
        with open(stream, "w", encoding="utf-8") as orders:
            json.dump([[*arguments, f"--IPKernelApp.parent_handle={os.getpid()}"], dict(environment)], orders)

    def poll(self) -> int | None:
        """The exit code, negative for a signal; None while it runs."""
        if self.returncode is None:
            ended, status = os.waitpid(self.pid, os.WNOHANG)
            self.returncode = os.waitstatus_to_exitcode(status) if ended else None
        return self.returncode

    wait = poll  # only asked for once it has ended


def borrow_fork(arguments: Sequence[str]) -> int | None:
    """Have a command of `uqlib` done by a fork, with the streams, the folder and the environment of this process.

    Returns:
        The exit code; None if nobody lends a fork, and the command is to be done here.

    Raises:
        RuntimeError: if the fork was killed.
    """
    if not (place := os.environ.get(FORKS)):
        return None
    with socket.socket(socket.AF_UNIX) as lender, tempfile.TemporaryFile("w+", encoding="utf-8") as asked:
        try:
            lender.connect(place)
            json.dump([arguments, os.getcwd(), sys.path, dict(os.environ)], asked)
            asked.seek(0)
            socket.send_fds(lender, [b"?"], [0, 1, 2, asked.fileno()])
            if lender.recv(1) != b"+":
                raise OSError(lender.recv(2**12).decode() or "its process is gone")
        except OSError as error:
            print(f"uqlib: no fork was lent ({error}); this command imports for itself", file=sys.stderr)
            return None
        try:
            code = lender.recv(1)
        except ConnectionError:
            code = b""
        except BaseException:  # a signal
            lender.shutdown(socket.SHUT_WR)
            select.select([lender], [], [], PATIENCE)
            raise
    if not code:
        raise RuntimeError("the process in which it was done was killed; out of memory is the usual reason")
    return code[0]
