"""Gradients of four batches make a step; two of a kind of module, one of them called twice."""

# mypy: ignore-errors

import torch
from torch import Tensor, nn


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.shared, self.head = nn.Linear(6, 6), nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.shared(torch.relu(self.shared(x)))))


torch.manual_seed(8)
model = Twice()
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
for batch in range(24):
    loss = nn.functional.cross_entropy(model(torch.randn(8, 6)), torch.randint(0, 2, (8,))) / 4
    loss.backward()
    if batch % 4 == 3:
        optimizer.step()
        optimizer.zero_grad()
    print("loss", loss.item())
