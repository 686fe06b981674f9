"""Checkpoints of a pipeline: resumed exactly, and in other numbers of parts."""

import copy
import os

import pytest
import torch
from torch import distributed, nn
from torch.nn import functional as F

from pytorch_dni import CheckpointError, Linear_DNI
from pytorch_dni.distributed import (
    _checkpoint_files,
    latest_checkpoint,
    load_checkpoint,
    LostRankError,
    split,
    Stage,
)
from tasks import ranks
from tests.support.pipeline import batches
from tests.support.ranks import RankProcesses, run_processes

pytestmark = pytest.mark.skipif(
    not distributed.is_gloo_available(), reason="torch was built without gloo"
)


def network():
    torch.manual_seed(3)
    layers = [nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, 8)]
    return nn.Sequential(*layers, nn.Tanh(), nn.Linear(8, 3))


def make(rank, ranks, example, seed=0, **options):
    whole = network()
    with torch.no_grad():
        for parameter in whole.parameters():
            parameter.add_(seed)
    part = split(whole, ["4"] if ranks == 2 else ["4", "6"])[rank]
    opt = torch.optim.Adam(part.parameters(), lr=1e-2)
    schedule = torch.optim.lr_scheduler.StepLR(opt, 3, 0.5)
    options = {"synthesizer": Linear_DNI, "context_size": 3, "name": f"cut {rank}", **options}
    return Stage(part, opt, loss=F.cross_entropy, example=example, scheduler=schedule, **options)


def state(stage):
    optimizer = [dict(s) for s in stage.optimizer.state.values()]
    found = {"part": stage.part.state_dict(), "optimizer": optimizer, "batches": stage.batches}
    return copy.deepcopy(found)


def work(rank, folder):
    data = batches(8, 8, 6, 3)
    results = {}
    torch.manual_seed(rank)
    stage = make(rank, 2, data[0])
    stage.train(data[:4])
    path = stage.save(f"{folder}/run")
    assert path.name == "batch-000000004"
    results["saved"] = stage.state_dict()
    stage.train(data[4:])
    results["whole"] = state(stage)
    stage.close()
    # Another process, with other parameters and random numbers.
    torch.manual_seed(77)
    stage = make(rank, 2, data[0], seed=1)
    assert stage.load(f"{folder}/run") == 4
    stage.train(data[4:])
    results["resumed"] = state(stage)
    assert stage.scheduler.last_epoch == 8
    for _ in range(2):
        stage.train(data[:1])
        stage.save(f"{folder}/run")
    assert latest_checkpoint(f"{folder}/run").name == "batch-000000010"
    results["last"] = stage.state_dict()
    stage.close()
    torch.save(results, f"{folder}/{rank}")


def work_of_three(rank, folder):
    stage = make(rank, 3, batches(1, 8, 6, 3)[0], seed=1)
    assert stage.load(f"{folder}/run") == 10
    stats = stage.stats()
    whole = stage.state_dict()
    # The first cut is there under the same name, the second one begins anew.
    updates = [found.updates for found in stats.values()]
    assert updates == {0: [10], 1: [0], 2: []}[rank]
    stage.close()
    torch.save({"whole": whole, "optimizer": stage.optimizer.state_dict()}, f"{folder}/of3-{rank}")


def test_a_pipeline_is_resumed_exactly_and_in_other_numbers_of_parts(tmp_path):
    run_processes(2, work, tmp_path)
    found = [torch.load(tmp_path / str(rank), weights_only=True) for rank in (0, 1)]
    for rank in found:
        torch.testing.assert_close(rank["resumed"], rank["whole"], rtol=0, atol=0)
        assert [*rank["saved"]] == [*network().state_dict()]
    folder = tmp_path / "run"
    assert sorted(path.name for path in folder.iterdir()) == ["batch-000000009", "batch-000000010"]

    alone = network()
    opt = torch.optim.Adam(alone.parameters(), lr=1)
    schedule = torch.optim.lr_scheduler.StepLR(opt, 3, 0.5)
    assert load_checkpoint(folder, alone, opt, schedule) == 10
    torch.testing.assert_close(alone.state_dict(), found[0]["last"], rtol=0, atol=0)
    assert opt.param_groups[0]["lr"] == 1e-2 * 0.5**3
    assert schedule.last_epoch == 10
    assert all(opt.state[p]["step"] == 10 for p in alone.parameters())

    run_processes(3, work_of_three, tmp_path)
    three = [torch.load(tmp_path / f"of3-{rank}", weights_only=True) for rank in range(3)]
    torch.testing.assert_close(three[1]["whole"], found[0]["last"], rtol=0, atol=0)
    assert three[2]["optimizer"]["param_groups"][0]["lr"] == 1e-2 * 0.5**3
    ours = three[0]["optimizer"]["state"]
    for index, parameter in enumerate([*alone.parameters()][:4]):
        assert torch.equal(ours[index]["exp_avg"], opt.state[parameter]["exp_avg"])


def test_a_checkpoint_that_does_not_fit_changes_nothing(tmp_path):
    alone = network()
    with pytest.raises(CheckpointError, match="no complete checkpoint"):
        load_checkpoint(tmp_path, alone)
    run_processes(2, _save, tmp_path)
    other = nn.Sequential(*network(), nn.Linear(3, 3))
    before = copy.deepcopy(other.state_dict())
    with pytest.raises(CheckpointError, match=r"lacks 7\.weight, 7\.bias"):
        load_checkpoint(tmp_path / "run", other)
    # What was cut off while it was written is no checkpoint, and neither is what was not renamed.
    (tmp_path / "run" / "batch-000000099").mkdir()
    (tmp_path / "run" / ".partial").mkdir()
    assert latest_checkpoint(tmp_path / "run").name == "batch-000000000"
    for file in (tmp_path / "run" / "batch-000000000").glob("*.distcp"):
        file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_checkpoint(tmp_path / "run", other[:-1])
    torch.testing.assert_close(other.state_dict(), before, rtol=0, atol=0)


def _save(rank, folder):
    stage = make(rank, 2, batches(1, 8, 6, 3)[0])
    stage.save(f"{folder}/run")
    stage.close()


def dies_while_saving(argv):
    """Save a checkpoint; the second rank ends when it is asked to write its entries."""
    rank, folder = int(os.environ["RANK"]), argv[0]
    with ranks.process_group(20):
        stage = make(rank, 2, batches(1, 8, 6, 3)[0])
        if rank == 1:
            _checkpoint_files.save = lambda *args, **options: os._exit(7)
        try:
            stage.save(f"{folder}/run")
        except LostRankError as error:
            print(error)
            os._exit(5)


def test_a_rank_that_is_lost_while_a_checkpoint_is_written_is_named(tmp_path):
    codes, printed = RankProcesses(2, dies_while_saving, [tmp_path], tmp_path).finish()
    assert codes == [5, 7], printed
    assert "rank 0: rank 1 is lost" in printed[0]
    assert "cannot be written" in printed[0]
    assert latest_checkpoint(tmp_path / "run") is None


def test_a_folder_that_cannot_be_written_is_an_error_on_all_ranks(tmp_path):
    run_processes(2, _cannot_save, tmp_path)


def _cannot_save(rank, folder):
    stage = make(rank, 2, batches(1, 8, 6, 3)[0])
    _checkpoint_files.save = _full
    with pytest.raises(CheckpointError, match="cannot be written: OSError: no space left"):
        stage.save(f"{folder}/run")
    stage.close()


def _full(*args, **options):
    raise OSError("no space left")
