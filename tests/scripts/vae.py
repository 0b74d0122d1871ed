"""A VAE that is never called as a whole: only its parts are."""

# mypy: ignore-errors

import torch
from torch import Tensor, nn
from torch.nn import functional


class VAE(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(10, 16), nn.Tanh())
        self.mean, self.log_variance = nn.Linear(16, 3), nn.Linear(16, 3)
        self.decoder = nn.Sequential(nn.Linear(3, 16), nn.Tanh(), nn.Linear(16, 10), nn.Sigmoid())

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        hidden = self.encoder(x)
        return self.mean(hidden), self.log_variance(hidden)


torch.manual_seed(5)
model = VAE()
optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
for _ in range(6):
    x = torch.rand(20, 10)
    mean, log_variance = model.encode(x)
    code = mean + torch.randn_like(mean) * (0.5 * log_variance).exp()
    rebuilt = functional.binary_cross_entropy(model.decoder(code), x, reduction="sum")
    loss = rebuilt - 0.5 * (1 + log_variance - mean.square() - log_variance.exp()).sum()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    print("loss", loss.item())
