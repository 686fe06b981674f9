"""Options of tasks: errors in one line, and defaults of each mode."""

import copy
import pickle

import pytest
import torch
from torch import nn

from pytorch_dni import Conv2d_DNI, Feedback_DNI, Linear_DNI, LocalError_DNI, LocalLoss_DNI
from tasks import adding_task, argmax_task, copy_task, mnist, sequences
from tasks.errors import TaskError
from tasks.modes import Configuration, DEFAULT_MODES, MODES
from tasks.task import Batch, Task
from tests.support.programs import fails


def test_wrong_options_are_errors_in_one_line(tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("DNI_DATA", raising=False)
    for argv, words in [
        (["--mode", "bp,dna"], "'dna'"),
        (["--steps", "0"], "--steps"),
        (["--lr", "nan"], "--lr"),
        (["--device", "abacus"], "abacus"),
        (["--nonsense"], "--nonsense"),
        (["--resume"], "--out"),
        (["--resume", "--out", tmp_path / "none"], "no checkpoint"),
        (["--mode", "dni", "--synthesizer", "local"], "context"),
    ]:
        assert words in fails(capsys, copy_task, *argv)
    assert "--update-probability" in fails(capsys, mnist, "--update-probability", "1.5")
    assert "'0'" in fails(capsys, mnist, "--update-probability", "0")
    assert "--data" in fails(capsys, mnist)
    assert "no MNIST" in fails(capsys, mnist, "--data", tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "unlock"),
    [([], None), (["--depth", "6"], None), (["--network", "cnn"], None),
     (["--update-probability", "0.1"], None), (["--unlock", "full"], "full")],
)  # fmt: skip
def test_all_modes_of_a_task_have_the_same_settings(options, unlock, capsys):
    args = mnist.parser().parse_args(options)
    assert args.mode == [*DEFAULT_MODES]
    known = [mode for mode in MODES if unlock is None or mode not in ("feedback", "exact")]
    rows = [mnist.configuration(args, mode) for mode in known]
    assert [row.mode for row in rows] == known
    assert {row.lr for row in rows} == {3e-4}
    assert {row.variant for row in rows} == {None}
    assert rows[0].dni_arguments == {}
    for row in rows[1:]:
        assert row.dni_arguments == rows[1].dni_arguments
        assert row.dni_arguments["update_probability"] == args.update_probability
        assert row.dni_arguments.get("unlock") == unlock
    for mode in MODES if unlock else []:
        if mode not in known:
            with pytest.raises(TaskError, match="--unlock full"):
                mnist.configuration(args, mode)
    args = mnist.parser().parse_args([*options, "--lr", "0.5"])
    assert {mnist.configuration(args, mode).lr for mode in known} == {0.5}


@pytest.mark.parametrize("module", [adding_task, argmax_task, copy_task])
def test_all_modes_of_sequence_tasks_have_the_same_settings(module, monkeypatch):
    parsers = []
    monkeypatch.setattr(sequences, "run", lambda parser, task, argv: parsers.append(parser))
    module.main([])
    args = parsers[0].parse_args(["--mode", ",".join(MODES)])
    assert {row.lr for row in sequences.configurations(args)} == {3e-3}
    assert parsers[0].parse_args([]).mode == [*DEFAULT_MODES]


class Wrapped(Task):
    context_size = 3
    local_loss_params = {"num_layers": 1}  # noqa: RUF012
    build_network = training_batch = test_batches = loss = error = None


Wrapped.__abstractmethods__ = frozenset()
NO_CONTEXT = {"feedback": Feedback_DNI, "exact": Feedback_DNI, "dni": Linear_DNI}
KINDS = {"local-error": LocalError_DNI, "cdni": Linear_DNI, "local": LocalLoss_DNI, **NO_CONTEXT}


@pytest.mark.parametrize("mode", [mode for mode in MODES if mode != "bp"])
def test_modes_have_their_own_synthesizers_and_contexts(mode):
    x, y = torch.randn(4, 1, 6, 6), torch.randint(3, (4,))
    layers = [nn.Conv2d(1, 5, 3), nn.ReLU(), nn.Flatten(), nn.Linear(80, 6), nn.ReLU()]
    network = nn.Sequential(*layers, nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 3))
    row = Configuration(mode, 0.1, None, {"hidden_size": 7})
    net = row.wrap(network, torch.optim.SGD(network.parameters(), lr=0.1), Wrapped())
    with row.context(Batch(x, y, y)):
        net(x).square().mean().backward()
    kinds = {name: type(i.synthesizer) for name, i in net.interfaces.items()}
    on_maps = Conv2d_DNI if mode in ("dni", "cdni") else KINDS[mode]
    assert kinds == {"1": on_maps, "4": KINDS[mode], "6": KINDS[mode]}
    interface = net.interfaces["4"]
    assert interface.context_size == (None if mode in NO_CONTEXT else 3)
    assert interface.synthesizer.hidden_size == 7
    if mode in ("local", "local-error"):
        assert interface.synthesizer.head.first.weight.shape == (7, 6)
    assert net._rooms.policy.skips_exact == (mode == "exact")
    copy.deepcopy(net)
    pickle.dumps(net)
