"""The quickstart's shape: a dataset and loaders, a train and a test function, epochs, the weights saved and loaded again."""

# mypy: ignore-errors

import io

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

torch.manual_seed(11)
images, labels = torch.rand(48, 1, 7, 7), torch.randint(0, 4, (48,))
train_dataloader = DataLoader(TensorDataset(images[:32], labels[:32]), batch_size=8, shuffle=True)
test_dataloader = DataLoader(TensorDataset(images[32:], labels[32:]), batch_size=8)
device = torch.accelerator.current_accelerator().type if torch.accelerator.is_available() else "cpu"


class NeuralNetwork(nn.Module):
    def __init__(self):
        super().__init__()
        self.flatten = nn.Flatten()
        self.linear_relu_stack = nn.Sequential(
            nn.Linear(49, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 4)
        )

    def forward(self, x):
        x = self.flatten(x)
        return self.linear_relu_stack(x)


def train(dataloader, model, loss_fn, optimizer):
    size = len(dataloader.dataset)
    model.train()
    for batch, (X, y) in enumerate(dataloader):
        pred = model(X.to(device))
        loss = loss_fn(pred, y.to(device))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        print("loss", loss.item(), batch + 1, size)


def test(dataloader, model, loss_fn):
    model.eval()
    test_loss, correct = 0, 0
    with torch.no_grad():
        for X, y in dataloader:
            pred = model(X.to(device))
            test_loss += loss_fn(pred, y.to(device)).item()
            correct += (pred.argmax(1) == y).type(torch.float).sum().item()
    print(f"accuracy {correct / len(dataloader.dataset)}, average {test_loss / len(dataloader)}")


model = NeuralNetwork().to(device)
print(model)
loss_fn = nn.CrossEntropyLoss()
optimizer = torch.optim.SGD(model.parameters(), lr=1e-1)
for _ in range(2):
    train(train_dataloader, model, loss_fn, optimizer)
    test(test_dataloader, model, loss_fn)
saved = io.BytesIO()
torch.save(model.state_dict(), saved)
saved.seek(0)
model = NeuralNetwork().to(device)
model.load_state_dict(torch.load(saved, weights_only=True))
model.eval()
with torch.no_grad():
    print("predicted", model(images[:1])[0].argmax(0).item())
