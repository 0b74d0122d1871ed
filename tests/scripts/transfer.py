"""Transfer learning: a frozen trunk, a new head, phases with `set_grad_enabled`, the best weights kept and put back."""

# mypy: ignore-errors

import copy

import torch
from torch import nn, optim
from torch.optim import lr_scheduler

torch.manual_seed(5)


class Pretrained(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)
        self.relu = nn.ReLU(inplace=True)
        self.conv2, self.bn2 = nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(8, 100)

    def forward(self, x):
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.relu(self.bn2(self.conv2(x)))
        return self.fc(torch.flatten(self.avgpool(x), 1))


model = Pretrained()
for param in model.parameters():
    param.requires_grad = False
model.fc = nn.Linear(model.fc.in_features, 2)
batches = {
    phase: [(torch.randn(8, 3, 8, 8), torch.randint(0, 2, (8,))) for _ in range(number)]
    for phase, number in (("train", 3), ("val", 2))
}
criterion = nn.CrossEntropyLoss()
optimizer = optim.SGD(model.fc.parameters(), lr=0.01, momentum=0.9)
scheduler = lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.1)


def train_model(num_epochs):
    best_weights, best_accuracy = copy.deepcopy(model.state_dict()), -1.0
    for _ in range(num_epochs):
        for phase in ("train", "val"):
            if phase == "train":
                model.train()
            else:
                model.eval()
            running_loss, running_corrects = 0.0, 0
            for inputs, labels in batches[phase]:
                optimizer.zero_grad()
                with torch.set_grad_enabled(phase == "train"):
                    outputs = model(inputs)
                    _, preds = torch.max(outputs, 1)
                    loss = criterion(outputs, labels)
                    if phase == "train":
                        loss.backward()
                        optimizer.step()
                        print("loss", loss.item())
                running_loss += loss.item() * inputs.size(0)
                running_corrects += torch.sum(preds == labels.data)
            if phase == "train":
                scheduler.step()
            epoch_accuracy = running_corrects.double() / (8 * len(batches[phase]))
            print(phase, running_loss, epoch_accuracy.item())
            if phase == "val" and epoch_accuracy > best_accuracy:
                best_accuracy, best_weights = epoch_accuracy, copy.deepcopy(model.state_dict())
    model.load_state_dict(best_weights)
    return model


model = train_model(2)
