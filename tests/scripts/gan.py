"""A GAN as in the DCGAN tutorial: two models, two optimizers, three backwards a round."""

# mypy: ignore-errors

import torch
from torch import nn


def network(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, 16), nn.LeakyReLU(0.2), nn.Linear(16, outputs))


torch.manual_seed(4)
generator, discriminator = network(4, 2), network(2, 1)
adam = torch.optim.Adam
optimizer_g = adam(generator.parameters(), lr=1e-3, betas=(0.5, 0.999))
optimizer_d = adam(discriminator.parameters(), lr=1e-3, betas=(0.5, 0.999))
criterion = nn.BCEWithLogitsLoss()
ones, zeros = torch.ones(16, 1), torch.zeros(16, 1)
for _ in range(6):
    discriminator.zero_grad()
    loss_real = criterion(discriminator(torch.randn(16, 2) + 3.0), ones)
    loss_real.backward()
    fake = generator(torch.randn(16, 4))
    loss_fake = criterion(discriminator(fake.detach()), zeros)
    loss_fake.backward()
    optimizer_d.step()
    generator.zero_grad()
    loss_generator = criterion(discriminator(fake), ones)
    loss_generator.backward()
    optimizer_g.step()
    print("loss", loss_real.item(), loss_fake.item(), loss_generator.item())
