"""Norms of a network's tensors."""

import math

import torch
from valleys.networks import tensors


def test_vector_norm():
    assert tensors.vector_norm({"a": torch.tensor([3.0]), "b": torch.tensor([[4.0]])}) == 5.0
    assert math.isclose(tensors.vector_norm({"a": torch.full((10**6,), 1e-3)}), 1.0, rel_tol=1e-6)
