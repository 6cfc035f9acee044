"""Networks of Hugging Face's library, made from a configuration: GPT-2, and a vision transformer.

Nothing is downloaded. It needs ``pip install transformers``.
"""

import torch
from torch import Tensor
from valleys.torchvision_compat import declare_operators

declare_operators()  # where torchvision was built for another torch than the one that is there
from transformers import (  # noqa: E402
    GPT2Config,
    GPT2LMHeadModel,
    ViTConfig,
    ViTForImageClassification,
)
from valleys import Landscape  # noqa: E402

torch.manual_seed(0)
EPOCHS = 30


def trained(model: torch.nn.Module, batches: list[dict[str, Tensor]]) -> torch.nn.Module:
    """Train a network on batches of its keyword arguments, by the loss that it returns itself."""
    adam = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(EPOCHS):
        for batch in batches:
            adam.zero_grad()
            model(**batch).loss.backward()
            adam.step()
    return model


# Counting texts, half of them cut short: what is no token has the label -100, and no attention.
ids = (torch.randint(0, 20, (48, 1)) + torch.arange(16)) % 20
mask = torch.ones_like(ids)
mask[::2, 10:] = 0
texts = [
    {"input_ids": i, "attention_mask": m, "labels": i.masked_fill(m == 0, -100)}
    for i, m in zip(ids.split(16), mask.split(16), strict=True)
]
sizes = {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 16, "bos_token_id": 0, "eos_token_id": 0}
gpt = trained(GPT2LMHeadModel(GPT2Config(vocab_size=20, **sizes)), texts)


def next_token(model: torch.nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Return the sum of the losses of a batch's tokens, and how many count: GPT-2 returns their mean."""
    count = (batch["labels"][:, 1:] != -100).sum()
    return model(**batch).loss * count, count


landscape = Landscape(gpt, texts, next_token, progress=False)
print(f"GPT-2: {landscape.loss()['train_loss']:.3f} nats a token")
print(landscape.line("filter", points=11))
print(landscape.hessian(1, tolerance=1e-2))

# Images of a bright half each: which one?
classes = torch.randint(0, 2, (60,))
images = 0.3 * torch.randn(60, 1, 16, 16)
images[classes == 0, :, :8] += 1
images[classes == 1, :, 8:] += 1
pictures = [
    {"pixel_values": x, "labels": y} for x, y in zip(images.split(20), classes.split(20), strict=True)
]
sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
vit = ViTForImageClassification(ViTConfig(**sizes, image_size=16, patch_size=4, num_channels=1, num_labels=2))

# Its outputs are an object; a loss that is known by name finds the scores in it.
landscape = Landscape(trained(vit, pictures), pictures, "cross_entropy", progress=False)
print(f"ViT: {landscape.loss()['train_loss']:.3f} nats an image")
print(landscape.line("gaussian", points=11))
print(landscape.search(restarts=1, steps=20))
