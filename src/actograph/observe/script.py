"""`load_script`, `load_module`, `execute`: a Python program run as ``__main__`` in this process.

No idea of training or recording. The program finds itself as `python SCRIPT` and `python -m MODULE` would have it:
`sys.argv`, `sys.path[0]` and ``__main__``, so that pickle and child processes started with "spawn" find its classes.
"""

from __future__ import annotations

import builtins
import importlib.machinery
import importlib.util
import io
import sys
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, ModuleType, TracebackType

from actograph.errors import UsageError

# where frames of ours are that stand between the script's: a mode of torch sees what the first forward calls
OBSERVE = Path(__file__).parent
OWN_FRAMES = (
    str(OBSERVE),
    str(OBSERVE.parent / "hooks" / "functional.py"),
)  # by path: importing it loads torch


@dataclass(frozen=True)
class Program:
    """A program that is ready to run."""

    name: str  # for people and for the run
    code: CodeType
    argv0: str
    file: str
    spec: importlib.machinery.ModuleSpec | None  # of a module; a script has none
    loader: object


def load_script(path: str) -> Program:
    """Compile a script and put its folder at the head of the search path.

    Raises UsageError when it does not exist or is not Python.
    """
    file = Path(path).absolute()
    if not file.is_file():
        remedy = "give a .py file, or -m and a module's name" if file.is_dir() else "check the path"
        raise UsageError(f"no script {path}{' (it is a folder)' if file.is_dir() else ''}; {remedy}")
    try:
        with io.open_code(str(file)) as source:
            code = compile(source.read(), str(file), "exec", dont_inherit=True)
    except (SyntaxError, ValueError) as error:
        raise UsageError(f"{path} is not a Python script ({error}); nothing was run") from error
    except OSError as error:
        raise UsageError(f"{path} cannot be read ({error.strerror}); nothing was run") from error
    _search_first(file.resolve().parent)
    loader = importlib.machinery.SourceFileLoader("__main__", str(file))
    return Program(file.stem, code, path, str(file), None, loader)


def load_module(name: str) -> Program:
    """Find a module, or a package's ``__main__``, with the working folder at the head of the search path.

    Raises UsageError when it is not found or is not Python.
    """
    _search_first(Path.cwd())
    try:
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.submodule_search_locations is not None:
            spec = importlib.util.find_spec(f"{name}.__main__")
        code = spec.loader.get_code(spec.name) if spec is not None and spec.loader is not None else None  # type: ignore[attr-defined]
    except (ImportError, SyntaxError, ValueError, AttributeError) as error:
        raise UsageError(f"module {name} cannot be run ({error}); nothing was run") from error
    if spec is None or code is None:
        raise UsageError(f"no module {name} that can be run; check the name and the working folder")
    file = spec.origin or name
    return Program(name.rpartition(".")[2], code, file, file, spec, spec.loader)


def execute(program: Program, args: list[str]) -> BaseException | None:
    """Run a program to its end; return the exception that ended it, its traceback as without us.

    ``__main__`` and `sys.argv` stay the program's: what it has registered to be called at exit may need them.
    """
    main = ModuleType("__main__")
    spec = program.spec
    main.__dict__.update(
        __file__=program.file,
        __spec__=spec,
        __loader__=program.loader,
        __package__=None if spec is None else spec.parent,
        __cached__=None if spec is None else spec.cached,
        __builtins__=builtins,
    )
    sys.modules["__main__"] = main
    sys.argv[:] = [program.argv0, *args]
    try:
        exec(program.code, main.__dict__)
    except BaseException as error:
        return error.with_traceback(_without_us(error.__traceback__))
    return None


def _search_first(folder: Path) -> None:
    if not sys.flags.safe_path:
        sys.path[0] = str(folder)


def _without_us(trace: TracebackType | None) -> TracebackType | None:
    """Return a traceback without the frames of this package."""
    while trace is not None and _is_ours(trace):
        trace = trace.tb_next
    at = trace
    while at is not None:
        while at.tb_next is not None and _is_ours(at.tb_next):
            at.tb_next = at.tb_next.tb_next
        at = at.tb_next
    return trace


def _is_ours(trace: TracebackType) -> bool:
    return trace.tb_frame.f_code.co_filename.startswith(OWN_FRAMES)
