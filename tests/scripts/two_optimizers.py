"""Two optimizers that share one loss: a sparse one for the embedding, one for the rest; the second comes last."""

# mypy: ignore-errors

import torch
from torch import nn

torch.manual_seed(9)
embedding = nn.Embedding(30, 8, sparse=True)
head = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))
sparse = torch.optim.SparseAdam(embedding.parameters(), lr=1e-2)
dense = torch.optim.AdamW(head.parameters(), lr=1e-2)
for _ in range(6):
    tokens, targets = torch.randint(0, 30, (16,)), torch.randint(0, 4, (16,))
    loss = nn.functional.cross_entropy(head(embedding(tokens)), targets)
    sparse.zero_grad()
    dense.zero_grad()
    loss.backward()
    sparse.step()
    dense.step()
    print("loss", loss.item())
