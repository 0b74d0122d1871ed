"""A model with parts that TorchScript has compiled and traced, under DataParallel on the CPU; one number comes out of it."""
# mypy: ignore-errors

import warnings

import torch
from torch import Tensor, nn

warnings.simplefilter("ignore")


class Gate(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[0] > 1:
            return x + torch.relu(self.linear(x))
        return x


class Energy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = nn.Linear(4, 8), nn.Linear(8, 1)
        self.gate = torch.jit.script(Gate())
        self.tail = torch.jit.trace(nn.Sequential(nn.Linear(8, 8), nn.Tanh()), torch.ones(2, 8))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.tail(self.gate(self.stem(x)))).sum()


torch.manual_seed(31)
model = nn.DataParallel(Energy())
optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
for _ in range(6):
    x = torch.rand(5, 4)
    loss = nn.functional.mse_loss(model(x), x.sum())
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    with torch.no_grad():
        nn.functional.mse_loss(model(x), x.sum())
    print("loss", loss.item())
