"""The task on CIFAR-10 as a program, on images that the tests make."""

import json

import pytest

from tasks import cifar10, output_folder
from tasks.comparison_options import equal_configurations
from tasks.image_files import find_source
from tasks.modes import MODES
from tests.support import images
from tests.support.programs import assert_equal_results, fails, run

MODE = ["--mode", "bp,dni,cdni,local"]


@pytest.fixture
def common(tmp_path):
    root = images.write_folders(tmp_path / "data", images.make_images())
    return ["--data", root, "--batch", 6, "--device", "cpu"]


def rows(folder):
    lines = (folder / output_folder.METRICS).read_text().splitlines()
    return [json.loads(line) for line in lines]


def test_networks_learn_in_all_modes(common, tmp_path, capsys):
    out = tmp_path / "run"
    assert run(cifar10, *common, *MODE, "--epochs", 6, "--train-samples", 21, "--out", out) == 0
    printed = capsys.readouterr().out
    assert "cifar10, 18 steps; 21 training images\n" in printed
    assert "by chance it is 66.7 %" in " ".join(printed.split())
    final = {row["mode"]: row for row in rows(out) if row["step"] == 18}
    assert [*final] == ["bp", "dni", "cdni", "local"]
    assert {row["lr"] for row in final.values()} == {1e-3}
    assert final["bp"]["test_error"] < 0.2
    assert final["local"]["test_error"] < 0.4


@pytest.mark.parametrize("network", ["cnn", "resnet", "vgg"])
def test_a_resumed_run_equals_an_uninterrupted_one(network, common, tmp_path):
    options = [*common, "--network", network, "--every", 2, "--mode", "bp,local"]
    run(cifar10, *options, "--steps", 2, "--out", tmp_path / "a")
    resume = ["--data", common[1], "--device", "cpu", "--resume", "--out", tmp_path / "a"]
    run(cifar10, *resume, "--cache", tmp_path / "cache.pt", "--steps", 6)
    run(cifar10, *options, "--steps", 6, "--out", tmp_path / "b")
    assert_equal_results(tmp_path / "a", tmp_path / "b")


def test_options_of_the_data_are_kept_when_a_run_is_resumed(common, tmp_path, capsys):
    out = tmp_path / "run"
    run(cifar10, *common, "--mode", "bp", "--steps", 1, "--train-samples", 12, "--out", out)
    resume = ["--data", common[1], "--device", "cpu", "--resume", "--steps", 2, "--out", out]
    assert "12" in fails(capsys, cifar10, *resume, "--train-samples", 9)
    assert "no-augment" in fails(capsys, cifar10, *resume, "--no-augment")
    run(cifar10, *resume)
    assert "12 training images" in capsys.readouterr().out


def make_task(common, *options):
    args = cifar10.parser().parse_args([str(option) for option in (*common, *options)])
    return args, cifar10.CIFAR10Task(args, find_source(args.data, False).read())


@pytest.mark.parametrize("parts", [None, 2, 3])
def test_the_network_is_cut_into_parts(parts, common):
    options = [] if parts is None else ["--parts", parts]
    args, task = make_task(common, *MODE, *options)
    for row in equal_configurations(args):
        if row.mode == "bp":
            continue
        net, batch = row.wrap(task.build_network(), None, task), task.training_batch(1, 0)
        with row.context(batch):
            net(batch.input)
        assert len(net.interfaces) + 1 == (parts or 4)


def test_rows_differ_in_their_mode_only(common):
    options = cifar10.parser().parse_args(["--mode", ",".join(MODES), "--lr", "0.01"])
    found = equal_configurations(options)
    assert [row.mode for row in found] == [*MODES]
    assert {row.lr for row in found} == {0.01}
    assert all(row.dni_arguments == found[0].dni_arguments for row in found)
    assert cifar10.parser().parse_args([]).lr == 1e-3


def test_wrong_options_are_errors_in_one_line(common, tmp_path, capsys):
    out = ["--out", tmp_path / "run"]
    for options, words in [
        (["--network", "mlp"], "mlp"),
        (["--parts", 1], "--parts"),
        (["--parts", 50], "layers=50"),
        (["--train-samples", 0], "--train-samples"),
        (["--train-samples", 25], "class 'ant' has 8"),
        (["--test-samples", 25], "--test-samples 25 needs"),
        (["--train-samples", 5], "--batch 6 is larger than the 5"),
        (["--epochs", 1, "--steps", 1], "exclude"),
        (["--cache", tmp_path / "none" / "cache.pt"], "--cache"),
    ]:
        assert words in fails(capsys, cifar10, *common, "--mode", "dni", *options, *out)
