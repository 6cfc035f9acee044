"""Weights from elsewhere find their place in a network, or it is said why not."""

import argparse
import collections
import pathlib

import numpy as np
import pytest
import torch
from checkpoint_makers import NAME, SPEC, A, B, loaded, network, same
from safetensors.torch import save_file, save_model
from torch import nn
from valleys.errors import ValleysError
from valleys.models import checkpoints


def test_another_architecture_is_named_by_its_first_differences():
    state = network(spec={**SPEC, "hidden": [16, 8]}).state_dict()
    with pytest.raises(
        ValleysError, match=r"mine\.pt does not fit the model: it has beside.* and 3 more and has"
    ):
        checkpoints.fit(network(), state, "mine.pt")
    state = network(spec={**SPEC, "hidden": [17]}).state_dict()
    with pytest.raises(ValleysError, match=r"has .*\(17, 64\) for \(16, 64\)"):
        checkpoints.fit(network(), state, "mine.pt")
    state = {"a": torch.zeros(1)}
    with pytest.raises(ValleysError, match=r"lacks .* and 4 more and has beside the model's a$"):
        checkpoints.fit(network(), state, "mine.pt")


def below(state, prefix):
    return {f"{prefix}{name}": tensor for name, tensor in state.items()}


SEVERAL = {
    "the paper's code": ({"state_dict": A, "swa_state_dict": B, "optimizer": {}}, "swa_state_dict"),
    "model and ema": ({"model": A, "ema": B}, "ema"),
    "timm": ({"state_dict": below(A, "module."), "state_dict_ema": below(B, "module.")}, "state_dict_ema"),
    "nested": ({"model": {"raw": A, "ema": B}}, "model.ema"),
    "nested, by slashes": ({"model": {"raw": A, "ema": B}}, "model/ema"),
    "a GAN of twins": ({"net_g": A, "net_d": B}, "net_d"),
    "prefixes": ({"state_dict": below(A, "student.") | below(B, "teacher.")}, "teacher"),
    "key and prefix": ({"state_dict": below(A, "student.") | below(B, "teacher.")}, "state_dict:teacher."),
    "prefixes, of a wrapper": (
        {"state_dict": below(A, "module.encoder_q.") | below(B, "module.encoder_k.")},
        "encoder_k",
    ),
    "nested, the last key": ({"callbacks": {"EMA": {"ema_weights": B}}, "state_dict": A}, "ema_weights"),
    "flat, one without": (dict(A) | below(B, "ema."), "ema"),
    "a list": ({"models": [A, B]}, "models.1"),
    "gradients": ({"model": A, "grads": B}, "grads"),
    "keys with the marks of places": ({"a/b": A, "a.c": B}, "a.c"),
}


@pytest.mark.parametrize("case", SEVERAL)
def test_of_several_sets_of_weights_one_is_chosen(tmp_path, case):
    content, choice = SEVERAL[case]
    path, model = tmp_path / "last.pt", network(2)
    torch.save(content, path)
    with pytest.raises(ValleysError, match=r"has weights of the model in 2 places: .*by its key") as e:
        loaded(path, model)
    assert same(model, network(2).state_dict())
    assert str(e.value).count("'") >= 4  # both are listed
    told = loaded(f"{path}#{choice}", model)
    assert same(model, B)
    assert told.startswith("weights under ")
    assert "left aside: " in told


def test_a_part_of_a_place_chooses_where_one_place_has_it(tmp_path):
    path, model = tmp_path / "last.pt", network(2)
    torch.save({"best": {"model": A, "ema": B}, "last": {"model": B}}, path)
    with pytest.raises(
        ValleysError, match=r"has 'model' in 2 places; choose one of best\.model, last\.model$"
    ):
        loaded(f"{path}#model", model)
    loaded(f"{path}#ema", model)
    assert same(model, B)
    torch.save({"ema": A, "model": {"ema": B}}, path)  # a whole place comes first
    loaded(f"{path}#ema", model)
    assert same(model, A)


def test_the_root_of_a_file_is_chosen_by_nothing(tmp_path):
    model = network(2)
    torch.save(dict(A) | below(B, "ema."), tmp_path / "last.pt")
    loaded(f"{tmp_path}/last.pt#", model)
    assert same(model, A)


def test_safetensors_with_several_sets(tmp_path):
    path, model = tmp_path / "all.safetensors", network(2)
    save_file(below(A, "model.") | below(B, "ema."), path)
    with pytest.raises(
        ValleysError, match=r"in 2 places: 'ema', 'model'; choose one .*all\.safetensors#model$"
    ):
        loaded(path, model)
    loaded(f"{path}#ema", model)
    assert same(model, B)
    read = checkpoints.read(f"{path}#ema")
    assert read.keys() == B.keys()
    assert torch.equal(read[NAME], B[NAME])
    with pytest.raises(ValleysError, match="it holds nothing under 'swa'; it has ema, model"):
        loaded(f"{path}#swa", model)


def test_what_is_the_same_or_does_not_fit_makes_nothing_ambiguous(tmp_path):
    path, model = tmp_path / "last.pt", network(2)
    torch.save({"state_dict": A, "swa_state_dict": {n: t.clone() for n, t in A.items()}}, path)
    assert loaded(path, model) == (
        "weights under 'state_dict', the same as under 'swa_state_dict'; left aside: 'swa_state_dict'"
    )
    torch.save({"D": nn.Linear(3, 3).state_dict(), "G": A}, path)
    assert loaded(path, model) == "weights under 'G'; left aside: 'D'"
    assert same(model, A)


def test_read_warns_of_other_sets(tmp_path, caplog):
    path = tmp_path / "last.pt"
    torch.save({"model": A, "ema": B, "optimizer": {"state": {0: {"exp_avg": torch.ones(2)}}}}, path)
    state, model = checkpoints.read(path), network(2)
    assert f"it has ema too, which {path}#ema would read" in caplog.text
    told = checkpoints.fit(model, state, "last.pt")
    assert told.startswith("weights under 'model'; left aside: 'ema'")  # which are not called the same
    assert same(model, A)
    caplog.clear()
    torch.save({"model": A, "optimizer": {"state": {0: {"exp_avg": torch.ones(2)}}}}, path)
    checkpoints.read(path)
    checkpoints.read(f"{path}#model")
    assert not caplog.text


def test_a_file_may_have_the_mark_in_its_name(tmp_path):
    path, model = tmp_path / "run#3.pt", network(2)
    torch.save({"a": A, "b": B}, path)
    loaded(f"{path}#b", model)
    assert same(model, B)
    torch.save(A, path)
    loaded(path, model)
    assert same(model, A)


BESIDE = {
    "a loss in Lightning": {"state_dict": below(A, "model.") | {"criterion.weight": torch.ones(2)}},
    "a metric in Lightning": {"state_dict": below(A, "model.") | {"train_acc.correct": torch.tensor(3)}},
    "a head": {"state_dict": below(A, "backbone.") | {"head.weight": torch.ones(2, 2)}},
    "DeepSpeed": {"state_dict": below(A, "_forward_module.model.")},
    "wrappers in any order": below(A, "module._orig_mod.model."),
    "an average of DDP": {"module.n_averaged": torch.tensor(3)} | below(A, "module.module."),
    "a loss beside": dict(A) | {"criterion.weight": torch.ones(2)},
    "metrics beside": dict(A) | {"acc.tp": torch.ones(2, dtype=torch.int64), "acc.total": torch.tensor(3.0)},
    "thop": dict(A) | {"total_ops": torch.zeros(1), "features.0.total_params": torch.zeros(1)},
    "numbers and text": dict(A) | {"epoch": 3, "arch": "mlp", "best": None, "args": {"lr": 0.1}},
    "layers compiled alone": {n.replace("features.0.", "features.0._orig_mod."): t for n, t in A.items()},
    "numpy": {n: t.numpy() for n, t in A.items()},
    "numpy numbers": {"state_dict": A, "best_acc": np.float64(0.9), "losses": np.arange(3.0)},
    "arguments": {"state_dict": A, "args": argparse.Namespace(lr=0.1, out=pathlib.Path("x"))},
    "a schedule": {
        "state_dict": A,
        "s": torch.optim.lr_scheduler.StepLR(torch.optim.SGD([nn.Parameter(torch.ones(1))], 0.1), 1),
    },
    "kinds of dicts": {
        "state_dict": A,
        "log": collections.defaultdict(list, a=[1]),
        "q": collections.deque([1]),
    },
}


@pytest.mark.parametrize("case", BESIDE)
@pytest.mark.parametrize("zipped", [True, False])
def test_what_is_no_part_of_the_network_is_left_aside(tmp_path, case, zipped):
    model, path = network(1), tmp_path / "last.ckpt"
    torch.save(BESIDE[case], path, _use_new_zipfile_serialization=zipped)
    loaded(path, model)
    assert same(model, A)


@pytest.mark.parametrize(
    ("more", "named"),
    [
        ({"features.9.weight": torch.ones(2, 2)}, "features.9.weight"),
        ({"head.weight": torch.ones(2, 2, dtype=torch.int8)}, "head.weight"),
        ({"features.0.mask": torch.ones(16, 64, dtype=torch.bool)}, "features.0.mask"),
    ],
)
def test_a_greater_network_is_not_taken_for_ours(more, named):
    for prefix in ("", "model."):
        with pytest.raises(ValleysError, match=f"it has beside the model's {named}$"):
            checkpoints.fit(network(), below({**A, **more}, prefix), "mine.pt")


def test_a_name_of_a_tied_tensor_may_be_missing(tmp_path):
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.emb, self.head = nn.Embedding(5, 3), nn.Linear(3, 5, bias=False)
            self.head.weight = self.emb.weight

    theirs, ours = Tied(), Tied()
    save_model(theirs, tmp_path / "tied.safetensors")
    loaded(tmp_path / "tied.safetensors", ours)
    assert torch.equal(ours.head.weight, theirs.emb.weight)
    checkpoints.fit(ours, {"model.emb.weight": theirs.emb.weight + 1}, "x")
    assert torch.equal(ours.head.weight, theirs.emb.weight + 1)
    both = {"emb.weight": torch.ones(5, 3), "head.weight": torch.zeros(5, 3)}
    with pytest.raises(ValleysError, match=r"different values for emb\.weight and head\.weight"):
        checkpoints.fit(ours, both, "x")
    ours.head.weight = nn.Parameter(torch.zeros(5, 3))
    with pytest.raises(ValleysError, match=r"it lacks head\.weight$"):
        checkpoints.fit(ours, {"emb.weight": torch.ones(5, 3)}, "x")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: (t * 100).to(torch.int8), "is int8, the model's float32"),
        (lambda t: t > 0, "is bool, the model's float32"),
        (lambda t: t.long(), "is int64, the model's float32"),
        (lambda t: t.to(torch.complex64), "is complex64, the model's float32"),
        (lambda t: t.to(torch.float8_e4m3fn), "is float8_e4m3fn, the model's float32"),
        (lambda t: t.double() * 1e300, r"values of up to .*e\+\d+ in float64, beyond the range"),
        (lambda t: torch.quantize_per_tensor(t, 0.1, 0, torch.qint8), r"is quantised \(qint8\)"),
        (lambda t: t.to_sparse(), r"is sparse \(sparse_coo\)"),
        (lambda t: t.to("meta"), "is on the device meta, without values"),
        (lambda t: t * float("inf"), "has values that are not finite"),
    ],
)
def test_other_kinds_of_numbers_are_refused(change, message):
    model = network(1)
    with pytest.raises(ValleysError, match=f"{NAME} .*{message}|{NAME} {message}"):
        checkpoints.fit(model, {**A, NAME: change(A[NAME])}, "x")
    assert same(model, B)


@pytest.mark.parametrize("kind", [torch.float64, torch.float16, torch.bfloat16])
def test_other_precisions_are_rounded(kind):
    model = network(1)
    checkpoints.fit(model, {n: t.to(kind) if t.is_floating_point() else t for n, t in A.items()}, "x")
    assert torch.equal(model.state_dict()[NAME], A[NAME].to(kind).float())


def test_counts_are_whole_numbers():
    name = "features.1.num_batches_tracked"
    model = network(1)
    checkpoints.fit(model, {**A, name: torch.tensor(7.0)}, "x")
    assert model.state_dict()[name] == 7
    with pytest.raises(
        ValleysError, match=f"{name} is float32 with values that the model's int64 cannot have"
    ):
        checkpoints.fit(model, {**A, name: torch.tensor(7.5)}, "x")


def test_values_must_be_finite():
    state = network().state_dict()
    name = next(iter(state))
    state[name][0] = float("nan")
    with pytest.raises(ValleysError, match=f"{name} has values that are not finite"):
        checkpoints.fit(network(), state, "mine.pt")
