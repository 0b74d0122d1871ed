"""Run scripts one after another, plainly or under ``actograph run``, and print what each has left, as JSON.

``python -m tests.observe.harness FOLDER SCRIPT...`` observes each into ``FOLDER/<name>``; with "-" for FOLDER plainly.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import random
import runpy
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from actograph.cli.main import app

STATEFUL = (nn.Module, torch.optim.Optimizer)
OPTIONS = ["--every", "1", "--grad"]


def main(folder: str, scripts: list[str]) -> None:
    torch.set_num_threads(1)
    print(json.dumps({Path(script).stem: leftovers(folder, script) for script in scripts}))


def leftovers(folder: str, script: str) -> dict[str, str]:
    """Return what a script prints, and hashes of its weights, its optimizers' states and all random states."""
    random.seed(0)
    np.random.seed(0)
    with contextlib.redirect_stdout(io.StringIO()) as output, contextlib.redirect_stderr(io.StringIO()):
        left = runpy.run_path(script, run_name="__main__") if folder == "-" else observed(folder, script)
    states = [plain(value.state_dict()) for value in left.values() if isinstance(value, STATEFUL)]
    assert states
    randoms = plain(
        [torch.get_rng_state(), np.random.get_state(legacy=False)["state"]["key"].tolist(), random.getstate()]
    )
    return {"output": output.getvalue(), "states": digest(states), "random": digest(randoms)}


def observed(folder: str, script: str) -> dict[str, Any]:
    app(["run", *OPTIONS, "--out", f"{folder}/{Path(script).stem}", script], standalone_mode=False)
    return dict(vars(sys.modules["__main__"]))


def digest(data: object) -> str:
    return hashlib.sha256(repr(data).encode()).hexdigest()


def plain(value: object) -> object:
    """Return data whose ``repr`` tells every bit."""
    if isinstance(value, torch.Tensor):
        return value.dtype, value.shape, value.detach().contiguous().reshape(-1).view(torch.uint8).tolist()
    if isinstance(value, dict):
        return {key: plain(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(one) for one in value]
    return value


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
