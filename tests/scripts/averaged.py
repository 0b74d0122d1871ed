"""A schedule that steps with each batch, an average of the weights, its batch statistics renewed; all in `main()`."""

# mypy: ignore-errors

import argparse
import sys

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn, update_bn
from torch.utils.data import DataLoader, TensorDataset


def parse_args():
    parser = argparse.ArgumentParser()
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--lr", type=float, default=0.05)
    return parser.parse_args([])


def make_model():
    return nn.Sequential(nn.Linear(4, 16), nn.BatchNorm1d(16), nn.SiLU(), nn.Linear(16, 2))


def evaluate(model, loader):
    was_training = model.training
    model.eval()
    with torch.inference_mode():
        losses = [nn.functional.cross_entropy(model(x), y).item() for x, y in loader]
    model.train(was_training)
    return sum(losses) / len(losses)


def main():
    args = parse_args()
    if args.epochs == 0:
        return None
    torch.manual_seed(12)
    loader = DataLoader(
        TensorDataset(torch.randn(24, 4), torch.randint(0, 2, (24,))), batch_size=8, shuffle=True
    )
    model = make_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=args.lr, momentum=0.9, nesterov=True)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=args.lr, epochs=args.epochs, steps_per_epoch=len(loader)
    )
    ema_model = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9))
    for _ in range(args.epochs):
        for x, y in loader:
            optimizer.zero_grad(set_to_none=True)
            loss = nn.functional.cross_entropy(model(x), y, label_smoothing=0.1)
            loss.backward()
            optimizer.step()
            scheduler.step()
            ema_model.update_parameters(model)
            print("loss", loss.item())
        print("val", evaluate(model, loader), evaluate(ema_model, loader))
    update_bn(loader, ema_model)
    print("averaged", evaluate(ema_model, loader))
    return model, ema_model


if __name__ == "__main__":
    result = main()
    if result is None:
        sys.exit(1)
    model, ema_model = result
