"""Masked language modelling with torch's encoder and a padding mask; in evaluation torch has a fast path."""
# mypy: ignore-errors

import torch
from torch import Tensor, nn


class Encoder(nn.Module):
    def __init__(self, size: int = 16) -> None:
        super().__init__()
        self.tokens, self.places = nn.Embedding(17, size), nn.Embedding(8, size)
        layer = nn.TransformerEncoderLayer(size, 2, 32, dropout=0.1, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(size, 16)

    def forward(self, tokens: Tensor, padding: Tensor) -> Tensor:
        x = self.tokens(tokens) + self.places(torch.arange(tokens.shape[1]))
        return self.head(self.encoder(x, src_key_padding_mask=padding))


torch.manual_seed(30)
model = Encoder()
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
for _ in range(6):
    tokens = (torch.randint(0, 16, (8, 1)) + torch.arange(8)) % 16
    padding = torch.arange(8) >= torch.randint(5, 9, (8, 1))
    masked = (torch.rand(8, 8) < 0.3) & ~padding
    labels = torch.where(masked, tokens, -100)
    model.train()
    logits = model(torch.where(masked, 16, tokens), padding)
    loss = nn.functional.cross_entropy(logits.transpose(1, 2), labels)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    model.eval()
    with torch.no_grad():
        outputs = model(torch.where(masked, 16, tokens), padding)
    print("loss", loss.item(), nn.functional.cross_entropy(outputs.transpose(1, 2), labels).item())
