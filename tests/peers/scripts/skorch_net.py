"""skorch: a classifier with a validation split, gradients clipped by its callback."""

# mypy: ignore-errors

import numpy as np
import torch
from skorch import NeuralNetClassifier
from skorch.callbacks import GradientNormClipping
from tests.peers.adapter import adapters
from torch import nn


class Module(nn.Module):
    def __init__(self):
        super().__init__()
        self.dense0, self.nonlin, self.output = nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 3)

    def forward(self, X):
        return self.output(self.nonlin(self.dense0(X)))


X = np.random.default_rng(0).normal(size=(40, 6)).astype(np.float32)
y = (X[:, 0] > 0).astype(np.int64) + (X[:, 1] > 0)
torch.manual_seed(0)
net = NeuralNetClassifier(
    Module,
    criterion=nn.CrossEntropyLoss,
    max_epochs=2,
    lr=0.1,
    batch_size=8,
    iterator_train__shuffle=True,
    callbacks=[GradientNormClipping(gradient_clip_value=0.2), *adapters("skorch")],
    verbose=0,
)
net.fit(X, y)
model, optimizer = net.module_, net.optimizer_
for batch in net.history[:, "batches", :, "train_loss"]:
    for loss in batch:
        if loss is not None:
            print("loss", loss)
print("valid", *map(float, net.history[:, "valid_loss"]), *net.predict(X).tolist())
