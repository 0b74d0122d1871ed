"""Style transfer's shape: the network is frozen, LBFGS changes the image through a closure."""

# mypy: ignore-errors

import torch
from torch import nn

torch.manual_seed(2)
cnn = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Conv2d(6, 6, 3)).eval().requires_grad_(False)
content = torch.rand(1, 3, 9, 9)
with torch.no_grad():
    wanted = cnn(content)
input_img = torch.rand(1, 3, 9, 9).requires_grad_(True)
optimizer = torch.optim.LBFGS([input_img], max_iter=3)
run = [0]
while run[0] <= 9:

    def closure():
        with torch.no_grad():
            input_img.clamp_(0, 1)
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(cnn(input_img), wanted)
        loss.backward()
        run[0] += 1
        print("loss", loss.item())
        return loss

    optimizer.step(closure)
