"""Callables named in a config: found without an import, named by their code, called with one-line errors."""

import sys
from importlib import metadata
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import pytest
import torch
from torch import nn
from valleys import factories
from valleys.config.experiment import Experiment
from valleys.config.schema import with_defaults
from valleys.costs import sizes
from valleys.costs.jobs import Costs
from valleys.data.sources import load
from valleys.errors import ValleysError
from valleys.landscape.directions import parameter_group
from valleys.models import builder, solutions
from valleys.models.layers import has_batch_norm
from valleys.models.options import validate_spec
from valleys.networks import bn_refresh
from valleys.networks.batch_norm import bn_policy, check_bn

SHAPE, CLASSES = (1, 8, 8), 5

NETS = """
import torch
from torch import nn
from .blocks import block

def build(num_classes, in_channels, width=4):
    return nn.Sequential(block(in_channels, width), nn.Flatten(), nn.LazyLinear(num_classes))

class Outer:
    @staticmethod
    def build(in_shape, classes):
        size = in_shape[0] * in_shape[1] * in_shape[2]
        return nn.Sequential(nn.Flatten(), nn.Linear(size, classes))

class Broken(nn.Module):
    def __init__(self, what):
        super().__init__()
        self.what, self.head = what, nn.Linear(64, 5)
        self.norm = nn.BatchNorm1d(64, track_running_stats=what != "untracked")

    def forward(self, x):
        x = x.flatten(1)
        if self.what == "tuple":
            return self.head(x), x
        if self.what == "twice":
            x = self.norm(x)
        if self.what == "raises":
            return self.head(x[:, :3])
        return self.head(self.norm(x)).argmax(1) if self.what == "labels" else self.head(self.norm(x))

class Norm(nn.BatchNorm1d):
    how = "torch"

    def forward(self, x):
        if self.how == "torch":
            return super().forward(x).relu()
        return (x - self.running_mean) * (self.running_var + self.eps).rsqrt()

def other_norm(how="torch"):
    net = nn.Sequential(nn.Flatten(), Norm(64), nn.Linear(64, 5))
    net[1].how = how
    return net

class Noise(nn.Module):
    def forward(self, x):
        return x + 0 * torch.rand_like(x)

def noisy():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 5), Noise())

def frozen():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 5).requires_grad_(False))

def double():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 5).double(), nn.Identity())

def tied():
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.Linear(64, 64), nn.Linear(64, 5))
    net[2].weight = net[1].weight
    return net

def nothing():
    return nn.Flatten()

def fails(**kwargs):
    raise KeyError("width")

number = 3
"""


@pytest.fixture
def package(tmp_path, monkeypatch, request):
    """A package in the folder of the run, of a name that no other test uses."""
    name = "own_" + "".join(c if c.isalnum() else "_" for c in request.node.name)[:40]
    folder = tmp_path / name
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "nets.py").write_text(NETS)
    (folder / "blocks.py").write_text(
        "from torch import nn\n\ndef block(a, b):\n"
        "    return nn.Sequential(nn.Conv2d(a, b, 3), nn.BatchNorm2d(b), nn.ReLU(inplace=True))\n"
    )
    (folder / "unused.py").write_text("1 / 0\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    return folder


def build(package, attribute, **kwargs):
    spec = {"factory": f"{package.name}.nets:{attribute}", "kwargs": kwargs}
    return builder.build(spec, in_shape=SHAPE, classes=CLASSES)


def test_the_code_is_named_without_an_import(package):
    factory = f"{package.name}.nets:build"
    before = factories.code(factory)
    assert len(before) == 16
    assert package.name not in sys.modules
    assert f"{package.name}.nets" not in sys.modules
    (package / "unused.py").write_text("2 / 0\n")
    assert factories.code(factory) == before
    for name in ("nets", "blocks", "__init__"):  # itself, what it imports, what runs on the way
        path = package / f"{name}.py"
        text = path.read_text()
        path.write_text(text + "# edited\n")
        assert factories.code(factory) != before, name
        path.write_text(text)
    assert factories.code(factory) == before


def test_the_code_does_not_depend_on_the_folder(package, tmp_path, monkeypatch):
    factory = f"{package.name}.nets:build"
    before = factories.code(factory)
    other = tmp_path / "elsewhere"
    other.mkdir()
    package.rename(other / package.name)
    monkeypatch.chdir(other)
    assert factories.code(factory) == before


def test_a_folder_without_init_is_a_package(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    nested = tmp_path / "shelf" / "inner"
    nested.mkdir(parents=True)
    (nested / "nets.py").write_text("from . import more\n")
    (nested / "more.py").write_text("a = 1\n")
    before = factories.code("shelf.inner.nets:build")
    (nested / "more.py").write_text("a = 2\n")
    assert factories.code("shelf.inner.nets:build") != before


def test_code_on_the_path_counts_and_installed_packages_do_not(tmp_path, monkeypatch):
    (tmp_path / "own_on_path.py").write_text("a = 1\n")
    monkeypatch.chdir(Path(__file__).parent)
    with pytest.raises(ValleysError, match=r"module 'own_on_path' is neither in .*nor installed"):
        factories.code("own_on_path:a")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert factories.code("own_on_path:a") is not None
    for installed in ("torchvision.models:resnet18", "json:loads", "valleys.models:build"):
        assert factories.code(installed) is None


def test_a_file_that_is_not_python_is_named(package):
    (package / "blocks.py").write_text("def block(:\n")
    with pytest.raises(ValleysError, match=r"blocks\.py, line 1 is not Python"):
        factories.code(f"{package.name}.nets:build")


@pytest.mark.parametrize(
    "name", ["nets", "nets:", ":build", "my nets:build", "a..b:c", "a:b()", 3, "./nets.py:build"]
)
def test_a_name_that_is_none_is_refused(name):
    with pytest.raises(ValleysError, match=r"model.factory: .* names no callable"):
        validate_spec({"factory": name})


def test_a_block_with_a_factory_takes_kwargs_and_nothing_else():
    assert validate_spec({"factory": "a.b:c"}) == {"factory": "a.b:c", "kwargs": {}}
    with pytest.raises(ValleysError, match=r"model.width: 8 is set beside factory"):
        validate_spec({"factory": "a.b:c", "width": 8})
    with pytest.raises(ValleysError, match=r"model.kwargs: 8 is not a mapping"):
        validate_spec({"factory": "a.b:c", "kwargs": 8})
    with pytest.raises(ValleysError, match=r"'a b' cannot be the name"):
        validate_spec({"factory": "a.b:c", "kwargs": {"a b": 1}})


def test_a_factory_gets_what_its_signature_names(package):
    model = build(package, "build")
    assert model(torch.zeros(3, *SHAPE)).shape == (3, CLASSES)
    assert model[0][0].out_channels == 4
    assert build(package, "build", width=6)[0][0].out_channels == 6
    assert build(package, "Outer.build")(torch.zeros(3, *SHAPE)).shape == (3, CLASSES)
    with pytest.raises(ValleysError, match=r"shape \(2, 7\); it must map images .* to logits \(2, 5\)"):
        build(package, "build", num_classes=7)


def test_its_weights_follow_the_seed(package):
    spec = {"factory": f"{package.name}.nets:build", "kwargs": {}}
    states = [solutions.fresh(spec, SHAPE, CLASSES, seed=seed).state_dict() for seed in (0, 0, 1)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert not torch.equal(states[0]["2.weight"], states[2]["2.weight"])
    assert solutions.fresh(spec, SHAPE, CLASSES, seed=0).training


def test_the_check_leaves_the_network_and_the_random_state_alone(package):
    model = build(package, "build")
    assert model[0][1].num_batches_tracked == 0
    assert not model[0][1].running_mean.any()
    assert not any(m._forward_hooks for m in model.modules())
    torch.manual_seed(0)
    build(package, "noisy")
    after = torch.rand(1)
    torch.manual_seed(0)
    build(package, "Outer.build")
    assert torch.equal(after, torch.rand(1)), "the dry pass drew from the generator"


WRONG = {
    "no such module": ("package.nowhere:f", {}, "module 'package.nowhere' is neither in"),
    "no such attribute": ("package.nets:biuld", {}, "there is no 'biuld' in package.nets; define it"),
    "another case": ("package.nets:broken", {}, "did you mean 'Broken'"),
    "no callable": ("package.nets:number", {}, "is int, which cannot be called"),
    "raises": ("package.nets:fails", {"a": 1}, r"\(a=1\), raises KeyError: 'width' \(nets.py, line \d"),
    "wrong argument": ("package.nets:build", {"depth": 1}, r"raises TypeError: .*unexpected.*'depth'"),
    "no module": ("package.nets:Outer", {}, "returns Outer; it must be a torch.nn.Module"),
    "raises at import": ("package.unused:f", {}, r"raises ZeroDivisionError.*unused.py, line 1"),
    "returns a tuple": ("package.nets:Broken", {"what": "tuple"}, "the network returns tuple"),
    "returns labels": ("package.nets:Broken", {"what": "labels"}, r"the shape \(2,\) of torch.int64"),
    "fails on images": ("package.nets:Broken", {"what": "raises"}, r"8, 8\), raises RuntimeErr"),
    "norm used twice": ("package.nets:Broken", {"what": "twice"}, "layer norm is used 2 times"),
    "norm untracked": ("package.nets:Broken", {"what": "untracked"}, "keeps no running statistics"),
    "another norm": ("package.nets:other_norm", {"how": "own"}, "layer 1 is a Norm, which normalises in"),
    "tied": ("package.nets:tied", {}, "1.weight and 2.weight are one tensor"),
    "frozen": ("package.nets:frozen", {}, "parameter 1.weight requires no gradient"),
    "double": ("package.nets:double", {}, "raises RuntimeError"),
    "no parameters": ("package.nets:nothing", {}, r"returns the shape \(2, 64\)"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_one_line(package, case):
    factory, kwargs, words = WRONG[case]
    spec = {"factory": factory.replace("package", package.name), "kwargs": kwargs}
    with pytest.raises(ValleysError, match=words.replace("package", package.name)) as caught:
        builder.build(spec, in_shape=SHAPE, classes=CLASSES)
    assert "\n" not in str(caught.value)


def test_a_batch_norm_of_ones_own_is_taken_with_the_statistics_that_it_has(package):
    (package / "nets.py").write_text(
        NETS
        + """
class Hand(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("running_mean", torch.zeros(64))
        self.register_buffer("running_var", torch.ones(64))

    def forward(self, x):
        return nn.functional.batch_norm(x, self.running_mean, self.running_var, training=self.training)

def by_hand():
    return nn.Sequential(nn.Flatten(), Hand(), nn.Linear(64, 5))
"""
    )
    net = build(package, "by_hand")
    with pytest.raises(ValleysError, match="layer 1 is a Hand with statistics of its own"):
        check_bn(net)
    assert bn_policy(net, "frozen") == "frozen"


def test_a_batch_norm_that_also_activates_is_taken(package):
    net = build(package, "other_norm")
    batches = [torch.randn(6, *SHAPE), torch.randn(4, *SHAPE) + 2]
    found = torch.cat(bn_refresh.refresh_bn(net, batches))
    with torch.no_grad():
        torch.testing.assert_close(found, net.train()(torch.cat(batches)), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_torchvision_networks_are_factories():
    spec = {"factory": "torchvision.models:resnet18", "kwargs": {"num_classes": 5}}
    model = builder.build(spec, in_shape=(3, 32, 32), classes=5)
    assert has_batch_norm(model)
    assert parameter_group(model, "classifier") == ["fc.weight", "fc.bias"]
    assert all(model.get_parameter(name).dim() == 4 for name in parameter_group(model, "conv"))
    assert len(parameter_group(model, "bn_weight")) == 20
    wrong = r"resnet18'.*expected input.*to have 3 channels.*; images here have 1 channel of 32 x 32 pixels"
    with pytest.raises(ValleysError, match=wrong) as error:
        builder.build(spec, in_shape=(1, 32, 32), classes=5)
    assert "\n" not in str(error.value)


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("kwargs", [{}, {"weights": None}])
def test_torchvision_networks_get_the_number_of_classes(kwargs):
    """Their constructors take it among ``**kwargs``, which do not say so."""
    spec = {"factory": "torchvision.models:resnet18", "kwargs": kwargs}
    nets = [solutions.fresh(s, (3, 32, 32), 5, seed=1) for s in (spec, spec | {"kwargs": {"num_classes": 5}})]
    assert nets[0].fc.out_features == 5
    assert torch.equal(nets[0].conv1.weight, nets[1].conv1.weight)  # as if it had been written
    with pytest.raises(ValleysError, match=r"Wrong image height.*; images here have 3 channels of 32 x 32"):
        builder.build(
            {"factory": "torchvision.models:vit_b_16", "kwargs": {}}, in_shape=(3, 32, 32), classes=5
        )


TIMM = """
from torch import nn

class Net(nn.Module):
    def __init__(self, depth, num_classes=1000, in_chans=3, drop_rate=0.0):
        super().__init__()
        convolutions = [nn.Conv2d(in_chans if i == 0 else 4, 4, 3, padding=1) for i in range(depth)]
        self.body = nn.Sequential(*convolutions, nn.Dropout(drop_rate), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.head = nn.Linear(4, num_classes)

    def forward(self, x):
        return self.head(self.body(x))

NETS = {"tiny": 1, "small": 2}

def create_model(model_name, pretrained=False, checkpoint_path=None, **kwargs):
    if model_name not in NETS:
        raise RuntimeError(f"Unknown model ({model_name})")
    return Net(NETS[model_name], **kwargs)
"""


@pytest.mark.parametrize("channels", [1, 3])
def test_networks_named_as_timm_does(package, channels):
    (package / "timm.py").write_text(TIMM)

    def made(shape=(channels, 8, 8), **kwargs):
        spec = {"factory": f"{package.name}.timm:create_model", "kwargs": kwargs}
        return builder.build(spec, in_shape=shape, classes=CLASSES)

    net = made(model_name="small", drop_rate=0.5)
    assert (net.head.out_features, net.body[0].in_channels, net.body[2].p) == (CLASSES, channels, 0.5)
    assert made(model_name="tiny", num_classes=CLASSES).body[0].in_channels == channels
    for kwargs, words in (
        ({"model_name": "tni"}, r"with \(model_name='tni'\), raises RuntimeError: Unknown model \(tni\)"),
        ({"model_name": "tiny", "num_classes": 7}, r"\(2, 7\); it must map images .* to logits \(2, 5\)"),
        ({"model_name": "tiny", "in_chans": 2}, f"images here have {channels} channel"),
    ):
        if channels == 3 or "num_classes" not in kwargs:
            with pytest.raises(ValleysError, match=words):
                made(**kwargs)
    spec = {"factory": f"{package.name}.timm:Net", "kwargs": {"depth": 1}}
    assert builder.build(spec, in_shape=(channels, 8, 8), classes=CLASSES).head.out_features == CLASSES


def test_groups_of_other_layers_than_ours():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.position = nn.Parameter(torch.zeros(1, 2, 3))
            self.conv, self.norm = nn.Conv1d(2, 3, 1), nn.RMSNorm(3)
            self.more = nn.InstanceNorm1d(3, affine=True)

    model = Net()
    assert parameter_group(model, "conv") == ["conv.weight"]
    assert parameter_group(model, "bn_weight") == ["norm.weight", "more.weight"]
    with pytest.raises(ValleysError, match="no linear layer, so no classifier"):
        parameter_group(model, "classifier")
    with pytest.raises(ValleysError, match=r"'layer:nrm' is empty: .* layers are position, conv, norm, more"):
        parameter_group(model, "layer:nrm")


@pytest.mark.slow
@pytest.mark.long
def test_a_size_is_measured_ahead_once_in_another_process(package, tmp_path):
    spec = {"factory": f"{package.name}.nets:build", "kwargs": {"width": 3}}
    code = factories.code(spec["factory"])
    asked = sizes.Question(spec, SHAPE, CLASSES, code)
    assert sizes.known(asked, tmp_path) is None
    (found,) = sizes.ahead([asked], tmp_path)
    assert sizes.known(asked, tmp_path) == found
    assert found.parameters == 3 * 9 + 3 + 6 + 36 * 3 * 5 + 5
    assert f"{package.name}.nets" not in sys.modules
    assert len(list((tmp_path / "state").iterdir())) == 1


def test_a_job_notes_the_size_of_what_it_has_built_and_leaves_it_as_it_was(package, tmp_path):
    spec = {"factory": f"{package.name}.nets:build", "kwargs": {"width": 3}}
    code = factories.code(spec["factory"])
    model = solutions.fresh(spec, SHAPE, CLASSES, seed=0)
    model[0][1].eval()  # one layer in another mode than the rest
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    drawn = torch.get_rng_state()
    sizes.note(model, spec | {"code": code}, SHAPE, CLASSES, "classification", tmp_path)
    assert torch.equal(torch.get_rng_state(), drawn)
    assert [m.training for m in model.modules()] == [m is not model[0][1] for m in model.modules()]
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert sizes.known(sizes.Question(spec, SHAPE, CLASSES, code), tmp_path) == sizes.measure(
        spec, SHAPE, CLASSES
    )
    assert sizes.known(sizes.Question(spec, SHAPE, CLASSES, "edited"), tmp_path) is None
    sizes.note(model, {"arch": "mlp"}, SHAPE, CLASSES, "classification", tmp_path)
    assert len(list((tmp_path / "state").iterdir())) == 1


def test_the_size_of_an_installed_network_is_found_again(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    spec = {"factory": "torchvision.models:squeezenet1_1", "kwargs": {"num_classes": 10}}
    config = with_defaults(
        {
            "name": "x",
            "seeds": [0],
            "datasets": {"d": {"source": "cifar10", "root": "x"}},
            "models": {"m": spec},
            "recipes": {"r": {"epochs": 2, "batch_size": 50, "lr": 0.1, "swa": {"start": 1, "lr": 0.1}}},
            "grid": [{"dataset": "d", "model": "m", "recipe": "r"}],
        }
    )
    experiment = Experiment(config)
    assert Costs(experiment).guessed() == ["m"]
    model = solutions.fresh(experiment.models["m"], (3, 32, 32), 10, seed=0)
    sizes.note(model, experiment.models["m"], (3, 32, 32), 10, "classification", experiment.root)
    assert Costs(experiment).guessed() == []
    parameters = sum(p.numel() for p in model.parameters())
    assert Costs(experiment).net("d", "m").parameters == parameters


@pytest.mark.slow
def test_a_network_that_cannot_be_measured_is_assumed(package, tmp_path):
    spec = {"factory": f"{package.name}.nets:fails", "kwargs": {}}
    fails = sizes.Question(spec, (3, 32, 32), 10, "code")
    good = sizes.Question({"factory": f"{package.name}.nets:build", "kwargs": {"width": 3}}, SHAPE, CLASSES)
    found = sizes.ahead([fails, good], tmp_path)
    assert found[0] is None
    assert found[1].parameters > 0  # one that fails takes none of the others with it
    assert sizes.known(fails, tmp_path) is None

    class Broken(nn.Linear):
        def forward(self, x):
            raise KeyError("x")

    own = {"factory": f"{package.name}.nets:build", "kwargs": {}}
    sizes.note(Broken(64, 5), own, SHAPE, CLASSES, "classification", tmp_path)  # no reason to end a job
    assert len(list((tmp_path / "state").iterdir())) == 1


def test_what_a_module_imports_from_elsewhere_on_the_path_counts(package, tmp_path_factory, monkeypatch):
    other = tmp_path_factory.mktemp("elsewhere")
    (other / "own_shared").mkdir()
    (other / "own_shared" / "__init__.py").write_text("from .layers import a\n")
    (other / "own_shared" / "layers.py").write_text("a = 1\n")
    monkeypatch.syspath_prepend(str(other))
    factory = f"{package.name}.nets:build"
    before = factories.code(factory)
    (package / "blocks.py").write_text("from own_shared import a\nimport torch, json\n")
    imported = factories.code(factory)
    assert imported != before
    (other / "own_shared" / "layers.py").write_text("a = 2\n")
    assert factories.code(factory) != imported


def test_a_compiled_module_of_ones_own_counts(package):
    factory = f"{package.name}.nets:build"
    (package / "blocks.py").write_text("from . import fast\n")
    compiled = package / f"fast{EXTENSION_SUFFIXES[0]}"
    seen = {factories.code(factory)}
    for content in (b"\x7fELF 1", b"\x7fELF 2"):
        compiled.write_bytes(content)
        seen.add(factories.code(factory))
    assert len(seen) == 3


@pytest.mark.slow
def test_an_installed_package_is_named_by_its_release(package, monkeypatch):
    assert factories.version("torchvision.models:resnet18") == f"torchvision {released('torchvision')}"
    assert factories.version("sklearn.datasets:load_digits") == f"scikit-learn {released('scikit-learn')}"
    assert factories.version("json:loads") is None
    factory = f"{package.name}.nets:build"
    assert factories.version(factory) == factories.code(factory)
    before = factories.version("torchvision.models:resnet18")

    class Newer:
        name, version = "torchvision", "99.1+cu130"

    monkeypatch.setattr(metadata, "distribution", lambda name: Newer)
    assert factories.version("torchvision.models:resnet18") == "torchvision 99.1" != before


def released(name):
    return metadata.version(name).partition("+")[0]


# --- what a factory may not be ---

STANDARD = ["os:system", "subprocess:run", "builtins:eval", "importlib:import_module", "os.path:join"]
STANDARD += ["shutil:rmtree", "posix:system", "pty:spawn", "runpy:run_path", "__main__:job", "json:loads"]


@pytest.mark.parametrize("factory", STANDARD)
def test_the_standard_library_is_refused_before_anything_is_imported(factory, monkeypatch):
    monkeypatch.setattr(factories.importlib, "import_module", lambda name: pytest.fail(f"imported {name}"))
    kwargs = {"command": "touch owned"}
    for take in (
        lambda: validate_spec({"factory": factory, "kwargs": kwargs}),
        lambda: builder.build({"factory": factory, "kwargs": kwargs}, in_shape=SHAPE, classes=CLASSES),
        lambda: load.load_source({"source": "callable", "factory": factory, "kwargs": kwargs}),
    ):
        with pytest.raises(ValleysError, match=r"factory: .* a module of Python's standard library; name"):
            take()


HIDDEN = """
import functools, operator, os, subprocess, test.support
from os import system
from subprocess import Popen, run as launch
from torch import nn

later = functools.partial(os.system, "touch owned")
twice = functools.partial(functools.partial(system), "touch owned")
caller = operator.methodcaller("system")
registry = {"a": 1}

class Shell(Popen):
    pass

class Mine(dict):
    def __call__(self, classes):
        return build(classes)

class Plain(nn.Sequential):
    @classmethod
    def make(cls, classes):
        return cls(nn.Flatten(), nn.Linear(64, classes))

def build(classes, width=4):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, width), nn.Linear(width, classes))

narrow = functools.partial(build, width=2)
instance = Mine()

@functools.cache
def cached(classes):
    return build(classes)

@functools.wraps(build)
def wrapped(*args, **kwargs):
    return build(*args, **kwargs)
"""


@pytest.fixture
def hidden(package):
    (package / "nets.py").write_text(HIDDEN)
    return f"{package.name}.nets"


@pytest.mark.parametrize(
    "attribute",
    [
        *("os.system", "system", "launch", "Popen", "subprocess.run", "subprocess.os.system", "later"),
        *("twice", "caller", "registry.get", "functools.partial", "test.support.run_code", "os.path.join"),
    ],
)
def test_what_leads_to_the_standard_library_is_refused_and_not_called(hidden, attribute, tmp_path):
    with pytest.raises(ValleysError, match=r"in Python's standard library; name a callable of your own"):
        builder.build({"factory": f"{hidden}:{attribute}", "kwargs": {}}, in_shape=SHAPE, classes=CLASSES)
    assert not (tmp_path / "owned").exists()


def test_installed_packages_do_not_lead_to_it_either():
    for factory in ("torch:os.system", "torch.hub:os.system", "torch.utils.cpp_extension:subprocess.run"):
        with pytest.raises(ValleysError, match=r"in Python's standard library"):
            factories.resolve(factory)
    for factory in ("torch:zeros", "numpy:array", "torchvision.models:resnet18", "torch.nn:Linear"):
        assert callable(factories.resolve(factory))


def test_internal_attributes_are_refused():
    for attribute in ("build.__globals__.get", "__builtins__.eval", "Net.__class__"):
        with pytest.raises(ValleysError, match="is internal to Python"):
            validate_spec({"factory": f"nets:{attribute}"})


@pytest.mark.parametrize("attribute", ["build", "narrow", "instance", "cached", "wrapped", "Plain.make"])
def test_callables_of_the_users_own_are_taken_whatever_they_are_made_of(hidden, attribute):
    spec = {"factory": f"{hidden}:{attribute}", "kwargs": {"classes": CLASSES}}
    assert builder.build(spec, in_shape=SHAPE, classes=CLASSES)(torch.zeros(2, *SHAPE)).shape == (2, CLASSES)
    assert factories.resolve(f"{hidden}:Shell")  # a class of the user's own
