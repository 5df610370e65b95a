"""Train a tagger of your own on a frozen biLM: a BiLSTM over a learned mix of its layers.

python examples/own_tagger.py MODEL TRAIN DEV      # files of lines "word ... tag", a blank line after a sentence
"""

import sys

import torch
from pytorch_lightning import LightningModule, Trainer, seed_everything
from torch import nn
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader

from biloom import BiLM, BiLMEmbedder


def read(path):
    with open(path, encoding="utf-8") as file:
        blocks = [block.splitlines() for block in file.read().split("\n\n") if block.strip()]
    rows = [[line.split() for line in block if line.strip()] for block in blocks]
    return [([row[0] for row in one], [row[-1] for row in one]) for one in rows]


class Tagger(LightningModule):
    def __init__(self, model, tags):
        super().__init__()
        self.tags = tags
        self.embedder = BiLMEmbedder(model, dropout=0.5)  # add trainable=True to fine-tune the biLM
        self.lstm = nn.LSTM(self.embedder.dim, 64, bidirectional=True, batch_first=True)
        self.top = nn.Linear(128, len(tags))

    def collate(self, sentences):
        words, tags = zip(*sentences, strict=True)
        ids = [torch.tensor([self.tags.index(tag) for tag in row]) for row in tags]
        return self.embedder.batch(words), pad_sequence(ids, batch_first=True)

    def forward(self, texts):
        (vectors,), mask = self.embedder(texts)
        return self.top(self.lstm(vectors)[0]), mask  # (batch, words, tags), (batch, words)

    def training_step(self, batch):
        scores, mask = self(batch[0])
        return nn.functional.cross_entropy(scores[mask], batch[1][mask])

    def validation_step(self, batch):
        scores, mask = self(batch[0])
        right = (scores.argmax(2) == batch[1])[mask].float()
        self.log("accuracy", right.mean(), batch_size=len(right), prog_bar=True)

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=3e-3)


seed_everything(1)
train, dev = read(sys.argv[2]), read(sys.argv[3])
tags = sorted({tag for _, row in train + dev for tag in row})
tagger = Tagger(BiLM.from_pretrained(sys.argv[1]), tags)
trainer = Trainer(max_epochs=2, logger=False, enable_checkpointing=False)
trainer.fit(
    tagger,
    DataLoader(train, 32, shuffle=True, collate_fn=tagger.collate),
    DataLoader(dev, 32, collate_fn=tagger.collate),
)
trainer.save_checkpoint("tagger.ckpt")  # holds the tagger and the layer weights, not the biLM
print(f"accuracy: {float(trainer.callback_metrics['accuracy']):.3f}")
