"""Matrix factorisation: sparse embeddings with their own optimizer beside a dense one, rows looked up in bags."""

# mypy: ignore-errors

import torch
from torch import nn


class Factors(nn.Module):
    def __init__(self, users, items, factors):
        super().__init__()
        self.users, self.items = (
            nn.Embedding(users, factors, sparse=True),
            nn.Embedding(items, factors, sparse=True),
        )
        self.history = nn.EmbeddingBag(items, factors, mode="mean")
        self.bias = nn.Parameter(torch.zeros(1))

    def forward(self, user, item, seen):
        return ((self.users(user) + self.history(seen)) * self.items(item)).sum(1) + self.bias


torch.manual_seed(30)
model = Factors(12, 20, 8)
sparse = torch.optim.SparseAdam([model.users.weight, model.items.weight], lr=0.01)
dense = torch.optim.Adam([model.history.weight, model.bias], lr=0.01)
for _ in range(6):
    user, item, seen = torch.randint(0, 12, (16,)), torch.randint(0, 20, (16,)), torch.randint(0, 20, (16, 3))
    loss = nn.functional.mse_loss(model(user, item, seen), torch.rand(16))
    sparse.zero_grad()
    dense.zero_grad()
    loss.backward()
    sparse.step()
    dense.step()
    print("loss", loss.item())
