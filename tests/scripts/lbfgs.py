"""LBFGS: forwards and backwards happen inside the optimizer's step."""

# mypy: ignore-errors

import torch
from torch import Tensor, nn

torch.manual_seed(6)
x = torch.linspace(-2, 2, 32).unsqueeze(1)
y = x.sin()
model = nn.Sequential(nn.Linear(1, 8), nn.Tanh(), nn.Linear(8, 1))
optimizer = torch.optim.LBFGS(model.parameters(), lr=0.5, max_iter=4)


def closure() -> Tensor:
    optimizer.zero_grad()
    loss = nn.functional.mse_loss(model(x), y)
    loss.backward()
    return loss


for _ in range(6):
    print("loss", float(optimizer.step(closure)))
