"""A physics-informed network: derivatives by the inputs inside of the loss, several forwards and two losses to a step."""

# mypy: ignore-errors

import torch
from torch import nn

torch.manual_seed(123)
net = nn.Sequential(nn.Linear(1, 16), nn.Tanh(), nn.Linear(16, 16), nn.Tanh(), nn.Linear(16, 1)).double()
optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
boundary, inside = (
    torch.zeros(1, 1).double().requires_grad_(),
    torch.linspace(0, 1, 20).double().view(-1, 1).requires_grad_(),
)
for _ in range(6):
    optimizer.zero_grad()
    u = net(boundary)
    boundary_loss = (u - 1).pow(2).mean()
    u = net(inside)
    dudt = torch.autograd.grad(u, inside, torch.ones_like(u), create_graph=True)[0]
    d2udt2 = torch.autograd.grad(dudt, inside, torch.ones_like(dudt), create_graph=True)[0]
    physics_loss = (d2udt2 + 4 * dudt + 400 * u).pow(2).mean()
    (boundary_loss + 1e-4 * physics_loss).backward()
    optimizer.step()
    print("loss", (boundary_loss + 1e-4 * physics_loss).item())
