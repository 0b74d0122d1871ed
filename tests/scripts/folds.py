"""Cross-validation: for each fold the model and its optimizer are made anew, by a function that lets go of both."""

# mypy: ignore-errors

import torch
from torch import nn

torch.manual_seed(21)
x, y = torch.randn(30, 5), torch.randn(30, 1)
models = []


def fit(train, held_out, seed):
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Linear(5, 8), nn.ELU(), nn.Linear(8, 1))
    optimizer = torch.optim.RMSprop(net.parameters(), lr=0.01)
    for _ in range(4):
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(net(x[train]), y[train])
        loss.backward()
        optimizer.step()
        print("loss", loss.item())
    net.eval()
    with torch.no_grad():
        return net, nn.functional.mse_loss(net(x[held_out]), y[held_out]).item()


for fold in range(3):
    held_out = torch.arange(30) % 3 == fold
    net, score = fit(~held_out, held_out, seed=fold)
    print("score", score)
