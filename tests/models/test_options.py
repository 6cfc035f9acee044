"""What a model's block may say: defaults, and one line for each mistake."""

import subprocess
import sys
from pathlib import Path

import pytest
from valleys.errors import ValleysError
from valleys.models.builder import build
from valleys.models.options import ARCHS, validate_spec

CIFAR = (3, 32, 32)


def test_validate_spec_fills_in_defaults():
    spec = {"arch": "preresnet", "norm": "group"}
    full = validate_spec(spec)
    assert full == {"arch": "preresnet", **ARCHS["preresnet"].options, "norm": "group"}
    assert spec == {"arch": "preresnet", "norm": "group"}
    assert validate_spec(full) == full
    validate_spec({"arch": "mlp"})["hidden"].append(3)
    assert validate_spec({"arch": "mlp"})["hidden"] == [64, 64]
    assert isinstance(validate_spec({"arch": "vgg16", "dropout": 0})["dropout"], float)


@pytest.mark.parametrize("arch", ARCHS)
def test_defaults_are_valid(arch):
    assert validate_spec({"arch": arch}) == {"arch": arch, **ARCHS[arch].options}


@pytest.mark.parametrize(
    ("spec", "parts"),
    [
        ({"arch": "resnet9"}, ["model.arch", "'resnet9'", "did you mean 'resnet8'?", "one of: mlp, resnet8"]),
        ({"arch": None}, ["model.arch", "None", "one of: mlp"]),
        ({}, ["model.arch", "missing", "mlp, resnet8"]),
        ("resnet8", ["'resnet8'", "mapping"]),
        (
            {"arch": "resnet8", "widht": 8},
            ["model: ", "'widht', did you mean 'width'?", "takes: width, skip"],
        ),
        ({"arch": "mlp", "depth": 8}, ["unknown key 'depth'", "'mlp' takes: hidden"]),
        ({"arch": "mlp", 3: 8}, ["unknown key 3"]),
        (
            {"arch": "resnet8", "norm": "bacth"},
            ["model.norm", "'bacth'", "'batch'", "batch, group, layer, none"],
        ),
        ({"arch": "resnet8", "norm": None}, ["model.norm", "None", "did you mean 'none'?"]),
        ({"arch": "resnet8", "activation": "ReLU"}, ["model.activation", "'ReLU'", "did you mean 'relu'?"]),
        (
            {"arch": "resnet8", "norm_init": "normal"},
            ["model.norm_init", "'normal'", "ones, uniform, gaussian"],
        ),
        ({"arch": "resnet8", "width": 0}, ["model.width", "0", "at least 1", "the default is 4"]),
        ({"arch": "resnet8", "width": True}, ["model.width", "True", "whole number"]),
        ({"arch": "resnet8", "width": 4.0}, ["model.width", "4.0", "whole number"]),
        ({"arch": "resnet8", "groups": -1}, ["model.groups", "-1"]),
        ({"arch": "resnet8", "skip": "no"}, ["model.skip", "'no'", "true or false"]),
        ({"arch": "mlp", "hidden": 64}, ["model.hidden", "64", "list", "[64, 64]"]),
        ({"arch": "mlp", "hidden": [64, 0]}, ["model.hidden", "[64, 0]"]),
        ({"arch": "vgg16", "dropout": 1.0}, ["model.dropout", "1.0", "at least 0 and below 1"]),
        ({"arch": "vgg16", "dropout": float("nan")}, ["model.dropout", "nan"]),
        ({"arch": "densenet_bc", "compression": 0}, ["model.compression", "0", "above 0 and at most 1"]),
        ({"arch": "preresnet", "depth": 21}, ["model.depth", "21", "nearest is 20", "6n+2 or 9n+2"]),
        ({"arch": "preresnet", "depth": 2}, ["model.depth", "2", "nearest is 8"]),
        ({"arch": "preresnet", "depth": 163, "block": "bottleneck"}, ["163", "nearest is 164", "9n+2"]),
        ({"arch": "preresnet", "block": "botleneck"}, ["model.block", "'bottleneck'"]),
        ({"arch": "wrn", "depth": 27}, ["model.depth", "27", "nearest is 28", "6n+4"]),
        ({"arch": "densenet_bc", "depth": 101}, ["model.depth", "101", "nearest is 100", "6n+4"]),
    ],
)
def test_bad_spec_is_one_helpful_line(spec, parts):
    for check in (validate_spec, lambda s: build(s, in_shape=CIFAR, classes=10)):
        with pytest.raises(ValleysError) as error:
            check(spec)
        message = str(error.value)
        assert "\n" not in message
        assert all(part in message for part in parts), message


def test_options_import_without_torch():
    code = (
        "import sys; from valleys.models.options import validate_spec; validate_spec({'arch': 'resnet50'});"
        "sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    )
    scripts = Path(__file__).parents[2] / "workflow" / "scripts"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=scripts)
