"""An LSTM that returns a nested output, its hidden state carried on between batches."""

# mypy: ignore-errors

import torch
from torch import Tensor, nn

State = tuple[Tensor, Tensor]


class Language(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(20, 8)
        self.lstm = nn.LSTM(8, 12, batch_first=True)
        self.head = nn.Linear(12, 20)

    def forward(self, tokens: Tensor, state: State | None) -> tuple[Tensor, State]:
        hidden, state = self.lstm(self.embedding(tokens), state)
        return self.head(hidden), state


torch.manual_seed(2)
text = torch.randint(0, 20, (4, 61))
model = Language()
optimizer = torch.optim.RMSprop(model.parameters(), lr=0.01)
state: State | None = None
for begin in range(0, 60, 10):
    tokens, targets = text[:, begin : begin + 10], text[:, begin + 1 : begin + 11]
    output, new_state = model(tokens, state)
    state = (new_state[0].detach(), new_state[1].detach())
    loss = nn.functional.cross_entropy(output.flatten(0, 1), targets.flatten())
    optimizer.zero_grad(set_to_none=False)
    loss.backward()
    nn.utils.clip_grad_value_(model.parameters(), 0.1)
    optimizer.step()
    print("loss", loss.item())
