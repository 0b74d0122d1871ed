"""fastai: a Learner with metrics, clipping and its own optimizer; a rate finder, one cycle, then an optimizer of torch."""

# mypy: ignore-errors

import contextlib
import io
import tempfile
from functools import partial

import torch
from fastai.basics import (
    CrossEntropyLossFlat,
    DataLoader,
    DataLoaders,
    Learner,
    OptimWrapper,
    accuracy,
    set_seed,
)
from fastai.callback.schedule import Learner as _  # noqa: F401  adds lr_find and fit_one_cycle
from fastai.callback.training import GradientClip
from tests.peers.adapter import adapters
from torch import nn


def report(learn):
    for train_loss, valid_loss, metric in learn.recorder.values:
        print("loss", train_loss)
        print("valid", valid_loss, metric)


set_seed(0)
x, y = torch.randn(40, 6), torch.randint(0, 3, (40,))
rows = list(zip(x, y, strict=True))
model = nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Dropout(0.1), nn.Linear(12, 3))
with tempfile.TemporaryDirectory() as folder:
    loaders = DataLoaders(
        DataLoader(rows, bs=8, shuffle=True), DataLoader(rows[:20], bs=10), device=torch.device("cpu")
    )
    learn = Learner(
        loaders, model, loss_func=CrossEntropyLossFlat(), metrics=accuracy, path=folder,
        cbs=[GradientClip(0.5), *adapters("fastai")],
    )  # fmt: skip
    learn.logger = lambda *_: None
    with learn.no_bar(), contextlib.redirect_stdout(io.StringIO()):
        learn.lr_find(num_it=5, show_plot=False)
        learn.fit_one_cycle(2, 0.05)
    report(learn)
    print("rates", *learn.recorder.lrs)
    learn.opt_func, learn.opt = partial(OptimWrapper, opt=torch.optim.SGD), None
    with learn.no_bar():
        learn.fit(2, 0.01)
        report(learn)
        learn.validate()
