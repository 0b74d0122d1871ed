"""Weights that are computed of others, fake-quantized layers, and a constructor that calls a part to learn a shape."""
# mypy: ignore-errors

import warnings

import torch
from torch import Tensor, nn
from torch.ao.quantization import get_default_qat_qconfig, prepare_qat
from torch.nn.utils import parametrizations, prune

warnings.simplefilter("ignore")


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten())
        size = self.features(torch.zeros(1, 1, 6, 6)).shape[1]
        self.middle = parametrizations.spectral_norm(nn.Linear(size, 8))
        self.turned = parametrizations.orthogonal(nn.Linear(8, 8))
        self.quantized = nn.Sequential(nn.Linear(8, 8))
        self.quantized.qconfig = get_default_qat_qconfig("fbgemm")
        prepare_qat(self.quantized.train(), inplace=True)
        self.head = nn.LazyLinear(3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.quantized(self.turned(self.middle(self.features(x))))))


torch.manual_seed(32)
model = Network()
model(torch.zeros(2, 1, 6, 6))
prune.l1_unstructured(model.head, "weight", amount=0.25)
optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
for _ in range(6):
    x, y = torch.randn(8, 1, 6, 6), torch.randint(0, 3, (8,))
    loss = nn.functional.cross_entropy(model(x), y)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    print("loss", loss.item())
