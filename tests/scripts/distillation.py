"""Knowledge distillation: a teacher is trained, then it teaches a student in evaluation mode, without gradients."""

# mypy: ignore-errors

import torch
from torch import nn, optim


class DeepNN(nn.Module):
    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2))
        self.classifier = nn.Sequential(nn.Linear(32, 16), nn.ReLU(), nn.Dropout(0.1), nn.Linear(16, 3))

    def forward(self, x):
        return self.classifier(torch.flatten(self.features(x), 1))


class LightNN(nn.Module):
    def __init__(self):
        super().__init__()
        self.classifier = nn.Sequential(nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 3))

    def forward(self, x):
        return self.classifier(torch.flatten(x, 1))


torch.manual_seed(42)
train_loader = [(torch.rand(8, 1, 4, 4), torch.randint(0, 3, (8,))) for _ in range(3)]


def train(model, epochs, learning_rate):
    criterion, optimizer = nn.CrossEntropyLoss(), optim.Adam(model.parameters(), lr=learning_rate)
    model.train()
    for _ in range(epochs):
        for inputs, labels in train_loader:
            optimizer.zero_grad()
            loss = criterion(model(inputs), labels)
            loss.backward()
            optimizer.step()
            print("loss", loss.item())


def train_knowledge_distillation(teacher, student, epochs, learning_rate, T=2.0):
    ce_loss, optimizer = nn.CrossEntropyLoss(), optim.Adam(student.parameters(), lr=learning_rate)
    teacher.eval()
    student.train()
    for _ in range(epochs):
        for inputs, labels in train_loader:
            optimizer.zero_grad()
            with torch.no_grad():
                teacher_logits = teacher(inputs)
            student_logits = student(inputs)
            soft_targets = nn.functional.softmax(teacher_logits / T, dim=-1)
            soft_prob = nn.functional.log_softmax(student_logits / T, dim=-1)
            soft_loss = (
                torch.sum(soft_targets * (soft_targets.log() - soft_prob)) / soft_prob.size()[0] * (T**2)
            )
            loss = 0.25 * soft_loss + 0.75 * ce_loss(student_logits, labels)
            loss.backward()
            optimizer.step()
            print("loss", loss.item())


nn_deep, nn_light = DeepNN(), LightNN()
train(nn_deep, epochs=2, learning_rate=0.001)
train_knowledge_distillation(nn_deep, nn_light, epochs=2, learning_rate=0.001)
