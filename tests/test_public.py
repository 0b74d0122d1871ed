"""The public names, and the promise that a report opens without torch."""

from __future__ import annotations

import subprocess
import sys

import pytest

import actograph


def test_public_names_are_sorted_and_importable() -> None:
    assert list(actograph.PUBLIC_NAMES) == sorted(
        actograph.PUBLIC_NAMES, key=lambda name: (name.islower(), name)
    )
    for name, module in actograph.PUBLIC_NAMES.items():
        value = getattr(actograph, name)
        assert value.__module__ == module, name
    assert set(actograph.PUBLIC_NAMES) < set(dir(actograph))


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Lerner'"):
        _ = actograph.Lerner


@pytest.mark.parametrize(
    "statement",
    [
        "import actograph",
        "import actograph.layout.bins, actograph.layout.row, actograph.layout.layer",
        "import actograph.runlog.store, actograph.runlog.view",
        "import actograph.rules.catalog, actograph.rules.diagnose",
        "import actograph.show.run, actograph.show.report, actograph.show.terminal, actograph.show.activations",
        "import actograph.cli.main",
        "from actograph import open_run, diagnose, ActivationView",
        "import sys; sys.argv = ['actograph', '--help']; import actograph.cli.main as m\n"
        "try: m.main()\nexcept SystemExit: pass",
    ],
)
def test_reading_a_run_never_imports_torch(statement: str) -> None:
    code = f"{statement}\nimport sys\nassert 'torch' not in sys.modules, 'torch was imported'"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
