"""MAML's shape: an inner step by `torch.autograd.grad` on weights that `functional_call` uses, an outer step through it."""

# mypy: ignore-errors

import torch
from torch import nn
from torch.func import functional_call

torch.manual_seed(6)
model = nn.Sequential(nn.Linear(1, 16), nn.Tanh(), nn.Linear(16, 1))
meta_optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
for _ in range(5):
    outer_loss = 0.0
    for _ in range(2):
        amplitude = torch.rand(1)
        x = torch.randn(10, 1)
        y = amplitude * torch.sin(x)
        weights = dict(model.named_parameters())
        inner_loss = nn.functional.mse_loss(functional_call(model, weights, (x[:5],)), y[:5])
        grads = torch.autograd.grad(inner_loss, list(weights.values()), create_graph=True)
        fast = {
            name: weight - 0.1 * grad for (name, weight), grad in zip(weights.items(), grads, strict=True)
        }
        outer_loss = outer_loss + nn.functional.mse_loss(functional_call(model, fast, (x[5:],)), y[5:])
    meta_optimizer.zero_grad()
    outer_loss.backward()
    meta_optimizer.step()
    print("loss", outer_loss.item())
