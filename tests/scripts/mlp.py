"""The usual shape: model, loader, loss, optimizer; evaluation after each epoch."""

# mypy: ignore-errors

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

torch.manual_seed(0)
x = torch.randn(96, 8)
data = TensorDataset(x, (x[:, :3].sum(1) > 0).long())
loader = DataLoader(data, batch_size=16, shuffle=True)
model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Dropout(0.1), nn.Linear(16, 2))
optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
loss_func = nn.CrossEntropyLoss()

for _ in range(2):
    model.train()
    for inputs, targets in loader:
        loss = loss_func(model(inputs), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        print("loss", loss.item())
    model.eval()
    with torch.no_grad():
        print("valid", loss_func(model(data.tensors[0]), data.tensors[1]).item())
