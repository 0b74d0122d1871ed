"""How a training loss got under way: how long it stood where it began, and what level it began at for its number of classes.

No idea of causes. Steps count by their learning rate, so that a warm-up is no delay.
"""

from __future__ import annotations

import math

import numpy as np

from actograph.rules.losses import CLEARLY, MIN_BLOCK, LossCurve
from actograph.rules.starts import Flow
from actograph.runlog.facts import FactKind
from actograph.runlog.view import RunView

FIRST_FALL = 0.05  # of the level at the start: a loss that is lower by so much has left it
FIRST_LOSSES = 3  # whose median is the level before anything was learned
