"""Sizes worked out on paper against networks that torch has built."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from valleys.models.builder import build
from valleys.models.size import measure

IMAGE = (3, 32, 32)
SPECS = [
    ({"arch": "mlp", "hidden": [16, 8]}, (1, 8, 8), 10),
    ({"arch": "mlp", "hidden": [16], "norm": "batch"}, (1, 8, 8), 10),
    ({"arch": "resnet8", "width": 4}, (1, 8, 8), 10),
    ({"arch": "resnet8", "width": 8, "norm": "none", "skip": False}, (1, 9, 7), 10),
    ({"arch": "preresnet", "depth": 20}, IMAGE, 10),
    ({"arch": "preresnet", "depth": 29, "block": "bottleneck", "norm": "layer"}, IMAGE, 100),
    ({"arch": "preresnet", "depth": 110, "block": "bottleneck"}, IMAGE, 10),
    ({"arch": "preresnet", "depth": 164}, IMAGE, 100),
    ({"arch": "vgg16"}, IMAGE, 100),
    ({"arch": "vgg16", "norm": "none"}, (3, 96, 96), 10),
    ({"arch": "densenet_bc", "depth": 100}, IMAGE, 10),
    ({"arch": "densenet_bc", "depth": 22, "compression": 0.7, "norm": "group"}, (3, 33, 33), 10),
    ({"arch": "wrn", "depth": 28, "widen": 10}, IMAGE, 10),
    ({"arch": "wrn", "depth": 10, "widen": 2, "norm": "none"}, IMAGE, 10),
    ({"arch": "resnet50"}, (3, 64, 64), 1000),
    ({"arch": "resnet50", "norm": "none"}, (3, 224, 224), 10),
]


@pytest.mark.parametrize(("spec", "shape", "classes"), SPECS)
def test_sizes_are_those_of_the_network(spec, shape, classes):
    found = measure(spec, shape, classes)
    model = build(spec, in_shape=shape, classes=classes).eval()
    parameters = list(model.parameters())
    assert found.parameters == sum(p.numel() for p in parameters)
    assert found.tensors == len(parameters)
    assert found.buffers == sum(b.numel() for b in model.buffers())

    written = []

    def wrote(module, inputs, output):
        if not any(module.children()):
            written.append(output.numel())

    for module in model.modules():
        if not isinstance(module, torch.nn.Identity | torch.nn.Dropout):
            module.register_forward_hook(wrote)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(torch.zeros(1, *shape))
    assert found.flops == pytest.approx(counter.get_total_flops(), rel=0.01)
    # Besides what modules write there are additions, concatenations and the last mean.
    assert sum(written) <= found.elements <= 1.5 * sum(written)
    assert found.widest >= max(written)
    assert found.layers >= len(written)


def test_published_sizes():
    """Table 1 of He et al. 2016, of Huang et al. 2017, and of Zagoruyko and Komodakis 2016."""
    sizes = [
        (1.7e6, {"arch": "preresnet", "depth": 110}),
        (1.7e6, {"arch": "preresnet", "depth": 164}),
        (0.8e6, {"arch": "densenet_bc", "depth": 100}),
        (36.5e6, {"arch": "wrn", "depth": 28, "widen": 10}),
    ]
    for parameters, spec in sizes:
        assert measure(spec, IMAGE, 10).parameters == pytest.approx(parameters, rel=0.04)
