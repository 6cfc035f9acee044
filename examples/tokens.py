"""A language model: the valley of a small transformer that has learnt the letters of this file."""

from pathlib import Path

import torch
from torch import Tensor, nn
from valleys import Landscape, losses

LETTERS = 64  # a text


class Tiny(nn.Module):
    """A causal transformer of one block."""

    def __init__(self, letters: int, width: int = 32) -> None:
        super().__init__()
        self.embed, self.place = nn.Embedding(letters, width), nn.Embedding(LETTERS, width)
        self.block = nn.TransformerEncoderLayer(width, 2, 64, dropout=0.0, batch_first=True, norm_first=True)
        self.head = nn.Linear(width, letters)

    def forward(self, ids: Tensor) -> Tensor:
        """Map letters (N, T) to logits (N, T, letters)."""
        length = ids.shape[1]
        x = self.embed(ids) + self.place(torch.arange(length))
        mask = nn.Transformer.generate_square_subsequent_mask(length)
        return self.head(self.block(x, src_mask=mask, is_causal=True))


torch.manual_seed(0)
text = Path(__file__).read_text(encoding="utf-8")
known = sorted(set(text))
cut = [text[i : i + LETTERS] for i in range(0, len(text), LETTERS)]
ids = [torch.tensor([known.index(letter) for letter in piece]) for piece in cut]
# The last text is shorter than the others; letters that are not there have the label -100.
padded = nn.utils.rnn.pad_sequence(ids, batch_first=True)
labels = nn.utils.rnn.pad_sequence(ids, batch_first=True, padding_value=-100)
data = [{"ids": padded[i : i + 8], "labels": labels[i : i + 8]} for i in range(0, len(padded), 8)]

model = Tiny(len(known))
adam = torch.optim.AdamW(model.parameters(), lr=3e-3)
for _ in range(60):
    for batch in data:
        total, count = losses.next_token(model(batch["ids"]), batch["labels"])
        adam.zero_grad()
        (total / count).backward()
        adam.step()

landscape = Landscape(model, data, losses.next_token, progress=False)
print(f"{landscape.loss()['train_loss']:.3f} nats a letter")
for found in (
    landscape.line("filter", points=11),
    landscape.hessian(1, tolerance=1e-3),
    landscape.trace(probes=5),
):
    print(found)
