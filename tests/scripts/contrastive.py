"""Contrastive learning: two views through one encoder and one head, each called by itself; then a linear probe."""

# mypy: ignore-errors

import torch
from torch import nn
from torch.nn import functional as F

torch.manual_seed(8)
encoder = nn.Sequential(nn.Linear(10, 16), nn.BatchNorm1d(16), nn.ReLU())
projector = nn.Sequential(nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 4))
optimizer = torch.optim.Adam([*encoder.parameters(), *projector.parameters()], lr=1e-2)


def nt_xent(z1, z2, temperature=0.5):
    z = F.normalize(torch.cat([z1, z2]), dim=1)
    similarity = (z @ z.T / temperature).masked_fill(torch.eye(len(z), dtype=torch.bool), -1e9)
    n = len(z1)
    return F.cross_entropy(similarity, torch.cat([torch.arange(n) + n, torch.arange(n)]))


for _ in range(5):
    x = torch.randn(8, 10)
    view1, view2 = x + 0.1 * torch.randn_like(x), x * (1 + 0.1 * torch.randn_like(x))
    loss = nt_xent(projector(encoder(view1)), projector(encoder(view2)))
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    print("loss", loss.item())

for parameter in encoder.parameters():
    parameter.requires_grad_(False)
encoder.eval()
probe = nn.Linear(16, 3)
optimizer = torch.optim.SGD(probe.parameters(), lr=0.1)
for _ in range(4):
    x, y = torch.randn(8, 10), torch.randint(0, 3, (8,))
    loss = F.cross_entropy(probe(encoder(x)), y)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    print("loss", loss.item())
