"""Hugging Face's Trainer: BERT with warm-up, clipping and evaluation; then a model of one's own with accumulation."""

# mypy: ignore-errors

import tempfile

import torch
from tests.peers.adapter import adapters
from torch import nn
from torch.utils.data import Dataset
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    PrinterCallback,
    Trainer,
    TrainingArguments,
    set_seed,
)

CALLBACKS = adapters("transformers")


class Rows(Dataset):
    def __init__(self, number):
        self.ids, self.labels = torch.randint(5, 30, (number, 8)), torch.randint(0, 2, (number,))

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        ids = self.ids[index]
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": self.labels[index]}


class OwnModel(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.head = nn.EmbeddingBag(30, 8), nn.Linear(8, 2)

    def forward(self, input_ids, attention_mask, labels):
        logits = self.head(self.embed(input_ids))
        return {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}


def train(model, accumulation, folder):
    arguments = TrainingArguments(
        output_dir=folder,
        num_train_epochs=2,
        per_device_train_batch_size=4,
        gradient_accumulation_steps=accumulation,
        learning_rate=1e-2,
        warmup_steps=2,
        max_grad_norm=0.5,
        logging_steps=1,
        eval_strategy="epoch",
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        use_cpu=True,
        log_level="error",
    )
    trainer = Trainer(
        model=model, args=arguments, train_dataset=Rows(20), eval_dataset=Rows(8), callbacks=CALLBACKS
    )
    trainer.remove_callback(PrinterCallback)  # it prints what took how long
    trainer.train()
    for entry in trainer.state.log_history:
        if "loss" in entry:
            print("loss", entry["loss"], entry["grad_norm"])
        elif "eval_loss" in entry:
            print("valid", entry["eval_loss"])


set_seed(0)
config = BertConfig(
    vocab_size=30, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
    max_position_embeddings=16,
)  # fmt: skip
model = BertForSequenceClassification(config)
own_model = OwnModel()
with tempfile.TemporaryDirectory() as folder:
    train(model, 1, folder)
    train(own_model, 2, folder)
