"""Callbacks of other packages, which are stood for by modules of the test."""

import importlib
import sys
from types import ModuleType, SimpleNamespace

import pytest
import torch
from torch import nn

from pytorch_dni import DNI, monitor
from pytorch_dni.monitor import figures

NAMES = {
    "LightningStats": ("_lightning", ["lightning", "lightning.pytorch"], "callbacks", "Callback"),
    "TrainerStats": ("_transformers", [], "transformers", "TrainerCallback"),
}
PACKAGES = ("lightning", "pytorch_lightning", "transformers")


def forget(monkeypatch):
    """Have the packages and the modules that import them imported anew."""
    for name in [*sys.modules]:
        if name.split(".")[0] in PACKAGES:
            monkeypatch.delitem(sys.modules, name)
    for private, *_ in NAMES.values():
        monkeypatch.delitem(sys.modules, f"pytorch_dni.monitor.{private}", raising=False)


@pytest.fixture
def callback(request, monkeypatch):
    """Return a callback's class, with a base class of the test."""
    forget(monkeypatch)
    _, packages, last, base = NAMES[request.param]
    path = ".".join([*packages[-1:], last])
    for name in (*packages, path):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    setattr(sys.modules[path], base, type(base, (), {}))
    yield getattr(monitor, request.param)
    forget(monkeypatch)


@pytest.fixture
def net():
    net = DNI(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)))
    net(torch.randn(6, 4)).square().mean().backward()
    return net


@pytest.mark.parametrize("callback", ["LightningStats"], indirect=True)
def test_lightning_logs_one_batch_of_so_many(callback, net):
    logged = []
    module = nn.ModuleDict({"net": net})
    module.log_dict = logged.append
    stats = callback(every=3, prefix="x")
    for number in range(7):
        trainer = SimpleNamespace(fit_loop=SimpleNamespace(total_batch_idx=number))
        stats.on_train_batch_end(trainer, module, None, None, number)
    assert logged == [figures(module, "x")] * 2
    assert logged[0]


@pytest.mark.parametrize("callback", ["TrainerStats"], indirect=True)
def test_the_trainer_logs_figures_beside_the_loss(callback, net):
    state = SimpleNamespace(log_history=[{"loss": 1.0, "step": 5}])
    logs = {"loss": 1.0}
    callback("x").on_log(None, state, None, logs=logs, model=net)
    assert logs == {"loss": 1.0, **figures(net, "x")}
    assert state.log_history == [{"loss": 1.0, "step": 5, **figures(net, "x")}]
    logs = {"eval_loss": 1.0}
    callback().on_log(None, state, None, logs=logs, model=net)
    assert logs == {"eval_loss": 1.0}


@pytest.mark.parametrize("name", NAMES)
def test_a_missing_package_is_named(name, monkeypatch):
    forget(monkeypatch)
    for package in PACKAGES:
        monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=f"{name} needs .*pip install"):
        getattr(monitor, name)


def test_other_names_are_missing():
    with pytest.raises(AttributeError, match="'Other'"):
        importlib.import_module("pytorch_dni.monitor").Other  # noqa: B018
