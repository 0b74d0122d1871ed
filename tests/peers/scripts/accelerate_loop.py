"""Accelerate: its loop with accumulation, clipping and bfloat16, an evaluation after each epoch; the last step is short."""

# mypy: ignore-errors

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

AcceleratorState._reset_state(reset_partial_state=True)  # of a run before this one in the same process
GradientState._reset_state()
accelerator = Accelerator(gradient_accumulation_steps=2, mixed_precision="bf16", cpu=True)
torch.manual_seed(0)
x, y = torch.randn(40, 6), torch.randint(0, 3, (40,))
loader = DataLoader(
    TensorDataset(x, y), batch_size=8, shuffle=True
)  # five batches: two steps and a short one
model = nn.Sequential(nn.Linear(6, 12), nn.GELU(), nn.Linear(12, 3))
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=20)
model, optimizer, loader, scheduler = accelerator.prepare(model, optimizer, loader, scheduler)
for _ in range(2):
    model.train()
    for inputs, targets in loader:
        with accelerator.accumulate(model):
            loss = nn.functional.cross_entropy(model(inputs), targets)
            accelerator.backward(loss)
            if accelerator.sync_gradients:
                accelerator.clip_grad_norm_(model.parameters(), 0.5)
            optimizer.step()
            scheduler.step()
            optimizer.zero_grad()
        print("loss", loss.item())
    model.eval()
    with torch.no_grad():
        print("valid", sum(nn.functional.cross_entropy(model(i), t).item() for i, t in loader))
