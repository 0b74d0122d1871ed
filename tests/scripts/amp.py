"""Mixed precision with a scaler, which torch has for the CPU too; gradients unscaled before they are clipped."""

# mypy: ignore-errors

import torch
from torch import nn

torch.manual_seed(7)
model = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 1))
optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
scaler = torch.amp.GradScaler("cpu", init_scale=1024.0, growth_interval=3)
for step in range(7):
    x, y = torch.randn(16, 6), torch.randn(16, 1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = nn.functional.mse_loss(model(x).float(), y)
    if step == 2:
        loss = loss * float("inf")  # the scaler leaves this step out
    optimizer.zero_grad()
    scaler.scale(loss).backward()
    scaler.unscale_(optimizer)
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    scaler.step(optimizer)
    scaler.update()
    print("loss", loss.item(), scaler.get_scale())
