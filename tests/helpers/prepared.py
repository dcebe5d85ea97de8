"""Commands that start at once: `vitsearch` and `python` as two programs of a folder, each run in a
fork of one process that has loaded the libraries, with the arguments, files, folder and environment
of who calls it. For tests of what commands do, not of how they start.
"""

import atexit
import gc
import json
import os
import pkgutil
import runpy
import selectors
import shlex
import signal
import socket
import subprocess
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from helpers.cli import environment
from helpers.paths import TESTS

CLIENT = TESTS / "helpers" / "prepared_client.py"
PROGRAMS = ("vitsearch", "python")
LEFT_OUT = ("vitsearch.__main__", "vitsearch.cluster", "vitsearch.milvus", "vitsearch.agents")
THREADED = ("onnxruntime", "grpc", "ray")  # start threads when they are loaded; a fork has none
# beside what modules of the package load: libraries of the examples and the docs, and the parts of
# transformers that are loaded when they are first named
LIBRARIES = (
    "matplotlib.pyplot",
    "skimage.data",
    "pandas",
    "datasets",
    "sklearn.linear_model",
    "torchvision.transforms",
    "transformers.models.clip.modeling_clip",
    "transformers.models.vit.modeling_vit",
)


@contextmanager
def prepared(folder: Path) -> Iterator[Path]:
    """Start the process, and yield the folder of the programs; no model hub can be reached."""
    address = folder / "socket"
    for name in PROGRAMS:
        words = (sys.executable, "-IS", CLIENT, address, name)
        program = folder / name
        program.write_text(f'#!/bin/sh\nexec {shlex.join(map(str, words))} "$@"\n')
        program.chmod(0o755)
    with subprocess.Popen(
        [sys.executable, "-m", "helpers.prepared", address],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment() | {"HF_HUB_OFFLINE": "1"},
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        yield folder
        process.communicate()  # it ends with its input


# -- inside the process ----------------------------------------------------------------------------


def _load() -> None:
    import vitsearch

    sys.modules.update(dict.fromkeys(THREADED))  # so that they cannot be loaded
    for module in pkgutil.walk_packages(vitsearch.__path__, "vitsearch."):
        if not module.name.startswith(LEFT_OUT):
            with suppress(ImportError):  # of a library that is not installed
                import_module(module.name)
    for name in LIBRARIES:
        with suppress(ImportError):
            import_module(name)
    for name in THREADED:
        del sys.modules[name]
    gc.collect()
    gc.freeze()


def _serve(address: str) -> "_Order":
    """Fork for each call until there is no more input; returns the call, in the fork alone."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.socket(socket.AF_UNIX))
        waiting = stack.enter_context(selectors.DefaultSelector())
        listener.bind(address)
        listener.listen(64)
        waiting.register(listener, selectors.EVENT_READ)
        waiting.register(sys.stdin.fileno(), selectors.EVENT_READ)
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        while True:
            for key, _ in waiting.select():
                if key.fileobj is listener:
                    caller, _ = listener.accept()
                    order = _Order(caller)
                    child = os.fork()
                    if not child:
                        caller.close()
                        return order
                    caller.sendall(b"%d\n" % child)
                    waiting.register(os.pidfd_open(child), selectors.EVENT_READ, (child, caller))
                    order.close()
                elif key.data is None:
                    sys.exit()
                else:
                    child, caller = key.data
                    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
                    with caller, suppress(OSError):  # it has gone
                        caller.sendall(b"%d\n" % code)
                    waiting.unregister(key.fd)
                    os.close(key.fd)


class _Order:
    """A call of a program: what it is called with."""

    def __init__(self, caller: socket.socket) -> None:
        length, self.files, _, _ = socket.recv_fds(caller, 8, 3)
        text = caller.makefile("rb").read(int(length))
        self.facts: dict[str, Any] = json.loads(text)

    def close(self) -> None:
        for file in self.files:
            os.close(file)

    def run(self) -> None:
        """Become that program."""
        for number, file in enumerate(self.files):
            os.dup2(file, number)
        self.close()
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.chdir(self.facts["folder"])
        os.environ.clear()
        os.environ.update(self.facts["environment"])
        arguments = self.facts["arguments"]
        if self.facts["program"] == "vitsearch":
            from vitsearch.__main__ import main

            sys.argv = ["vitsearch", *arguments]
            main()
        elif arguments[0] == "-c":
            sys.argv, sys.path[0] = ["-c", *arguments[2:]], ""
            module = sys.modules["__main__"] = ModuleType("__main__")
            exec(compile(arguments[1], "<string>", "exec"), vars(module))
        else:
            sys.argv, sys.path[0] = arguments, os.path.dirname(arguments[0])
            runpy.run_path(arguments[0], run_name="__main__")


def _end(code: object) -> None:
    """End as Python does, but without taking apart all that was loaded."""
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    if isinstance(code, str):
        sys.stderr.write(f"{code}\n")
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(code if isinstance(code, int) else int(code is not None))


if __name__ == "__main__":
    _load()
    order = _serve(sys.argv[1])
    try:
        order.run()
    except SystemExit as ended:
        _end(ended.code)
    except BaseException:
        traceback.print_exc()
        _end(1)
    _end(None)
