"""Options of tasks: errors in one line, and defaults of each mode."""

from tasks import copy_task, mnist
from tasks.modes import MODES
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


def test_modes_have_their_own_defaults():
    args = mnist.parser().parse_args([])
    args.network, args.depth, args.layers = "mlp", 3, None
    args.unlock, args.update_probability = "update", 1.0
    shallow = {mode: mnist.configuration(args, mode) for mode in MODES}
    args.depth = 6
    deep = {mode: mnist.configuration(args, mode) for mode in MODES}
    assert shallow["bp"].lr == deep["bp"].lr == 3e-4
    assert deep["cdni"].lr < shallow["cdni"].lr
    args.update_probability = 0.1
    sparse = {mode: mnist.configuration(args, mode) for mode in MODES}
    assert sparse["cdni"].lr > shallow["cdni"].lr
    assert sparse["cdni"].dni_arguments["update_probability"] == 0.1
    assert sparse["bp"] == shallow["bp"]
    args.lr = 0.5
    assert {mnist.configuration(args, mode).lr for mode in MODES} == {0.5}
