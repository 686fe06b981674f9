"""The regression task: its teacher, its error, and the program."""

import json

import pytest
import torch

from tasks import output_folder, regression
from tasks.comparison_options import equal_configurations
from tests.support.programs import assert_equal_results, fails, run

SMALL = ["--hidden", 16, "--batch", 32, "--device", "cpu"]


def make_task(*options):
    args = [str(option) for option in (*SMALL, *options)]
    return regression.RegressionTask(regression.parser().parse_args(args))


@pytest.mark.parametrize("layers", [1, 3])
def test_outputs_of_the_teacher_are_standardised_and_fixed(layers):
    torch.manual_seed(1)
    teacher = regression.Teacher(16, 8, layers)
    torch.manual_seed(2)
    input = torch.randn(20_000, 16)
    output = regression.Teacher(16, 8, layers)(input)
    assert torch.equal(output, teacher(input))
    assert output.shape == (20_000, 8)
    assert output.mean(0).abs().max() < 0.05
    assert (output.var(0) - 1).abs().max() < 0.05


def test_a_linear_model_does_not_explain_the_teacher():
    teacher = regression.Teacher(16, 8, 2)
    input = torch.randn(20_000, 16, generator=torch.Generator().manual_seed(0))
    output = teacher(input)
    fitted = input @ torch.linalg.lstsq(input, output).solution
    assert (fitted - output).square().mean() > 0.2


def test_the_error_is_the_fraction_of_unexplained_variance():
    task = make_task()
    batches = list(task.test_batches())
    targets = torch.cat([batch.target for batch in batches]).double()
    mean, std = targets.mean(0), targets.std(0, correction=0)

    def error(predict):
        values = [task.error(predict(batch.target), batch).item() for batch in batches]
        return sum(values) / len(values)

    assert error(lambda target: target) == 0
    assert error(lambda target: mean.float().expand_as(target)) == pytest.approx(1, abs=1e-5)
    assert task.chance_error == 1
    # Half of the deviation is a quarter of the variance.
    halved = error(lambda target: target + 0.5 * std.square().mean().sqrt().float())
    assert halved == pytest.approx(0.25, abs=1e-5)


def test_samples_are_new_in_each_step_and_the_context_is_the_target():
    task, other = make_task("--outputs", 5), make_task("--outputs", 5)
    batch = task.training_batch(1, 3)
    torch.manual_seed(0)
    assert all(map(torch.equal, batch, other.training_batch(1, 3)))
    assert batch.context is batch.target
    assert batch.context.shape == (32, task.context_size) == (32, 5)
    for seed, step in ((1, 4), (2, 3)):
        assert not torch.equal(batch.input, task.training_batch(seed, step).input)
    first, again = (next(iter(t.test_batches())).input for t in (task, other))
    assert torch.equal(first, again)


def test_all_modes_learn(tmp_path, capsys):
    out = tmp_path / "run"
    options = ["--mode", "bp,dni,cdni,local", "--teacher-depth", 1, "--depth", 2, "--hidden", 64]
    run(regression, *SMALL, *options, "--steps", 200, "--out", out)
    printed = " ".join(capsys.readouterr().out.split())
    assert "test error: share of the variance that is not explained" in printed
    assert "by chance it is 100.0 %" in printed
    lines = map(json.loads, (out / output_folder.METRICS).read_text().splitlines())
    errors = {row["mode"]: row["test_error"] for row in lines}
    assert errors["bp"] < 0.25
    assert errors["local"] < 0.3
    assert errors["cdni"] < 0.6
    assert errors["dni"] < 0.9


def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path):
    common = [*SMALL, "--every", 2, "--mode", "bp,dni,cdni,local", "--parts", 3]
    run(regression, *common, "--steps", 4, "--out", tmp_path / "a")
    run(regression, "--steps", 8, "--out", tmp_path / "a", "--resume", "--device", "cpu")
    run(regression, *common, "--steps", 8, "--out", tmp_path / "b")
    assert_equal_results(tmp_path / "a", tmp_path / "b")


@pytest.mark.parametrize("parts", [None, 2, 3])
def test_the_network_is_cut_into_parts(parts):
    options = [] if parts is None else ["--parts", parts]
    task = make_task(*options)
    (row,) = equal_configurations(regression.parser().parse_args(["--mode", "dni"]))
    net = row.wrap(task.build_network(), None, task)
    net(task.training_batch(1, 0).input)
    assert len(net.interfaces) + 1 == (parts or 5)


def test_wrong_options_are_errors_in_one_line(capsys):
    for options, words in [
        (["--parts", 30], "layers=30"),
        (["--outputs", 0], "--outputs"),
        (["--epochs", 1], "--epochs"),
    ]:
        assert words in fails(capsys, regression, *SMALL, "--mode", "dni", "--steps", 1, *options)
