"""One process that imports what other people wrote and the notebooks use; commands of uqlib are done in forks of it.

To import torch and the rest takes seconds, in each run anew. Here it is done once, and a command that is told of this process
by UQLIB_FORKS (`uqlib.book.kernel`) goes on in a fork. Nothing of uqlib is imported before the fork and nothing has run, so
what a run reads, draws and keeps is what it would in a process of its own.
"""

import atexit
import contextlib
import gc
import importlib
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NoReturn

IMPORTED = (
    "papermill", "jupyter_client.manager", "jupyter_client.asynchronous", "ipykernel_launcher", "ipykernel.kernelapp",
    "numpy", "torch", "scipy.optimize", "scipy.stats", "scipy.interpolate", "sklearn.linear_model", "sklearn.model_selection",
    "sklearn.neural_network", "timm", "jaxtyping", "safetensors.torch", "matplotlib.pyplot", "pandas", "seaborn",
    "xarray", "myst_nb",
)  # fmt: skip
INLINE = "module://matplotlib_inline.backend_inline"  # what a kernel tells matplotlib before that is imported
POOLS = ("OMP_NUM", "GOTO_NUM", "OPENBLAS_NUM", "MKL_NUM", "VECLIB_MAXIMUM", "NUMEXPR_NUM")
ONE_THREAD = {f"{pool}_THREADS": "1" for pool in POOLS}  # as Snakemake tells each job
OWN = {"UQLIB_FORKS", "_", "SHLVL", "PWD", "OLDPWD", "TMPDIR", "TMP", "TEMPDIR", "TEMP"}  # no import reads these
PATIENCE = 5  # seconds that a fork has to end once it was told to
started = []  # each ends when the stream to it is closed, at the latest with this process


def start(log: Path, imported: Sequence[str] = IMPORTED) -> str:
    """Start a process that lends forks until this one ends.

    Args:
        log: what it has to say, and that is nothing.
        imported: modules; those that are not installed are left out.

    Returns:
        What UQLIB_FORKS is to be for those who may borrow one.

    Raises:
        OSError: if this system cannot; then everybody imports alone.
    """
    if sys.platform != "linux":
        raise OSError(f"what was loaded before a fork cannot be trusted after it on {sys.platform}")
    log.parent.mkdir(parents=True, exist_ok=True)
    place = Path(tempfile.mkdtemp(prefix="uqlib-")) / "forks"
    with socket.socket(socket.AF_UNIX) as listener, open(log, "w", encoding="utf-8") as stream:
        listener.bind(str(place))
        listener.listen(128)  # who comes before all is imported waits
        started.append(
            subprocess.Popen(
                [sys.executable, __file__, str(listener.fileno()), str(place.parent), *imported], stdin=subprocess.PIPE,
                stdout=stream, stderr=stream, env=os.environ | ONE_THREAD, start_new_session=True,
                pass_fds=[listener.fileno()],
            )
        )  # fmt: skip
    return str(place)


def serve(listener: socket.socket, imported: Sequence[str]) -> None:
    """Import all this, then lend a fork to each who asks, until the standard input ends. Each ends with who borrowed it."""
    environment = dict(os.environ)
    del sys.path[0]  # the folder of this file
    os.environ.setdefault("MPLBACKEND", INLINE)
    for name in imported:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    gc.collect()
    gc.freeze()  # else the first collection in each fork would copy all of it
    while 0 not in select.select([listener, 0], [], [])[0]:
        borrower = listener.accept()[0]
        streams = socket.recv_fds(borrower, 1, 4)[1]
        if len(streams) == 4 and os.fork() == 0:
            listener.close()
            go_on(borrower, streams, environment)
        for each in (borrower.detach(), *streams):
            os.close(each)


def go_on(borrower: socket.socket, streams: list[int], environment: Mapping[str, str]) -> NoReturn:
    """Be the command that was asked for, if it asks from the environment in which everything was imported."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    with open(streams.pop(), encoding="utf-8") as stream:
        arguments, folder, path, asked = json.load(stream)
    for name in sorted((asked.keys() | environment.keys()) - OWN):
        if asked.get(name) != environment.get(name):
            borrower.sendall(f"-{name} was {environment.get(name)!r} when it began, not {asked.get(name)!r}".encode())
            os._exit(0)
    for number, each in enumerate(streams):
        os.dup2(each, number)
        os.close(each)
    sys.stdin = sys.__stdin__ = open(0, closefd=False)  # noqa: SIM115
    sys.stdout = sys.__stdout__ = open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = sys.__stderr__ = open(2, "w", buffering=1, errors="backslashreplace", closefd=False)  # noqa: SIM115
    os.chdir(folder)
    os.environ.clear()
    os.environ.update({name: value for name, value in asked.items() if name != "UQLIB_FORKS"})
    importlib.invalidate_caches()
    if "torch" in sys.modules:
        sys.modules["numpy"].random.seed()  # by chance, as in a new process; Python does so for its own
        sys.modules["torch"].default_generator.seed()
    kernel = fork_kernel(borrower)
    threading.Thread(target=end_with, args=[borrower], daemon=True).start()
    sys.path[:], sys.argv, code = path, ["uqlib", *arguments], 1
    try:
        borrower.sendall(b"+")
        importlib.import_module("uqlib.book.kernel").ForkedKernel.waiting.append(kernel)
        code = importlib.import_module("uqlib.cli").main(arguments)
        sys.stdout.flush()
    except BaseException:
        traceback.print_exc()
    with contextlib.suppress(OSError):
        borrower.sendall(bytes([code]))
    os._exit(code)


def end_with(borrower: socket.socket) -> None:
    """End this process, as by SIGTERM, when its borrower has ended; that one says nothing, so to read is to wait."""
    with contextlib.suppress(OSError):
        borrower.recv(1)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(PATIENCE)
    os._exit(1)  # the kernel sees it, and ends


def fork_kernel(borrower: socket.socket) -> tuple[int, int]:
    """A process that waits to become a kernel, while there is no thread yet: its number, and the stream of its orders."""
    orders, stream = os.pipe()
    if process := os.fork():
        os.close(orders)
        return process, stream
    os.close(stream)
    borrower.close()
    os.setsid()
    with open(orders, encoding="utf-8") as lines:
        if text := lines.read():
            be_kernel(*json.loads(text))
    os._exit(0)


def be_kernel(arguments: list[str], environment: dict[str, str]) -> None:
    """What `python -m ipykernel_launcher ARGUMENTS` does."""
    from ipykernel import kernelapp

    os.environ.clear()
    os.environ.update(environment)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    sys.argv = [sys.modules["ipykernel_launcher"].__file__, *arguments]
    kernelapp.launch_new_instance()
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # it was told to end; threads of ZeroMQ may still protest, rarely
    atexit._run_exitfuncs()  # and nothing more: what was there before the fork is not taken apart


if __name__ == "__main__":
    try:
        serve(socket.socket(fileno=int(sys.argv[1])), sys.argv[3:])
    finally:
        shutil.rmtree(sys.argv[2])
        os._exit(0)  # nothing is taken apart
