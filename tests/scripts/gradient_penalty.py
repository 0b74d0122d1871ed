"""WGAN-GP: several updates of the critic to one of the generator, and a penalty by `torch.autograd.grad` in its loss."""

# mypy: ignore-errors

import torch
from torch import nn

torch.manual_seed(13)
generator = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 2))
critic = nn.Sequential(nn.Linear(2, 16), nn.LeakyReLU(0.2), nn.Linear(16, 1))
optimizer_G = torch.optim.Adam(generator.parameters(), lr=1e-3, betas=(0.5, 0.9))
optimizer_D = torch.optim.Adam(critic.parameters(), lr=1e-3, betas=(0.5, 0.9))
n_critic = 3


def compute_gradient_penalty(real, fake):
    alpha = torch.rand(len(real), 1)
    mixed = (alpha * real + (1 - alpha) * fake).requires_grad_(True)
    (gradients,) = torch.autograd.grad(critic(mixed).sum(), mixed, create_graph=True, retain_graph=True)
    return ((gradients.norm(2, dim=1) - 1) ** 2).mean()


for i in range(12):
    real, z = torch.randn(8, 2), torch.randn(8, 4)
    optimizer_D.zero_grad()
    fake = generator(z)
    d_loss = (
        -critic(real).mean()
        + critic(fake.detach()).mean()
        + 10 * compute_gradient_penalty(real, fake.detach())
    )
    d_loss.backward()
    optimizer_D.step()
    optimizer_G.zero_grad()
    if i % n_critic == n_critic - 1:
        g_loss = -critic(generator(z)).mean()
        g_loss.backward()
        optimizer_G.step()
        print("loss", d_loss.item(), g_loss.item())
