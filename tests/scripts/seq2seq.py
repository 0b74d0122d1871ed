"""The translation tutorial's shape: an encoder and a decoder with an optimizer each, the decoder called word by word."""

# mypy: ignore-errors

import random

import torch
from torch import nn, optim

HIDDEN, WORDS, LENGTH, SOS = 12, 15, 6, 0


class EncoderRNN(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding, self.gru = nn.Embedding(WORDS, HIDDEN), nn.GRU(HIDDEN, HIDDEN, batch_first=True)

    def forward(self, input):
        return self.gru(self.embedding(input))


class DecoderRNN(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding, self.gru = nn.Embedding(WORDS, HIDDEN), nn.GRU(HIDDEN, HIDDEN, batch_first=True)
        self.out = nn.Linear(HIDDEN, WORDS)

    def forward(self, encoder_hidden, target):
        decoder_input, hidden = torch.full((len(target), 1), SOS), encoder_hidden
        outputs = []
        for i in range(LENGTH):
            output, hidden = self.gru(torch.relu(self.embedding(decoder_input)), hidden)
            outputs.append(self.out(output))
            is_forced = random.random() < 0.5
            decoder_input = target[:, i : i + 1] if is_forced else outputs[-1].topk(1)[1].squeeze(-1).detach()
        return nn.functional.log_softmax(torch.cat(outputs, dim=1), dim=-1)


random.seed(17)
torch.manual_seed(17)
encoder, decoder = EncoderRNN(), DecoderRNN()
encoder_optimizer = optim.Adam(encoder.parameters(), lr=0.001)
decoder_optimizer = optim.Adam(decoder.parameters(), lr=0.001)
criterion = nn.NLLLoss()
for _ in range(5):
    source, target = torch.randint(0, WORDS, (4, LENGTH)), torch.randint(0, WORDS, (4, LENGTH))
    encoder_optimizer.zero_grad()
    decoder_optimizer.zero_grad()
    _, hidden = encoder(source)
    loss = criterion(decoder(hidden, target).view(-1, WORDS), target.view(-1))
    loss.backward()
    encoder_optimizer.step()
    decoder_optimizer.step()
    print("loss", loss.item())
