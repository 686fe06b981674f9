"""The character language model in several processes."""

import json

import pytest
import torch
from torch import distributed
from torch.nn import functional as F

from pytorch_dni.distributed import latest_checkpoint
from pytorch_dni.distributed._checkpoint import read
from tasks import language_pipeline, pipeline_run
from tasks.char_transformer import CharTransformer
from tasks.language_pipeline import bits, Readout, ReadoutLoss_DNI, TransformerPart
from tests.support.ranks import RankProcesses

SMALL = ["--hidden", "24", "--length", "8", "--batch", "4", "--every", "4", "--average", "2"]


def test_parts_compute_the_transformer_and_have_its_names():
    torch.manual_seed(0)
    whole = CharTransformer(11, 8, 24, 3)
    parts = [TransformerPart(whole, range(2), True, False)]
    parts.append(TransformerPart(whole, range(2, 3), False, True))
    x = torch.randint(11, (5, 8))
    torch.testing.assert_close(parts[1](parts[0](x)), whole(x))
    names = [name for part in parts for name in part.state_dict()]
    assert sorted(names) == sorted(whole.state_dict())


def test_the_readout_of_a_part_is_a_local_loss_like_that_of_the_network():
    torch.manual_seed(0)
    made, hidden = ReadoutLoss_DNI(24, 11), torch.randn(5, 8, 24)
    target = torch.randint(11, (5, 8))
    assert isinstance(made.readout, Readout)
    expected = F.cross_entropy(made.readout(hidden).transpose(1, 2), target) / torch.log(
        torch.tensor(2.0)
    )
    torch.testing.assert_close(made.loss(hidden, target), expected)
    torch.testing.assert_close(bits(made.readout(hidden), target), expected)


@pytest.mark.skipif(not distributed.is_gloo_available(), reason="torch was built without gloo")
@pytest.mark.parametrize("readout", ["shared", "private"])
def test_it_learns_with_one_readout_and_with_several(readout, corpus, tmp_path):
    out = tmp_path / "run"
    argv = [*SMALL, "--data", corpus, "--out", out, "--steps", 16, "--lr", "1e-2"]
    argv += ["--readout", readout, "--depth", 2]
    codes, printed = RankProcesses(2, language_pipeline.main, argv, tmp_path).finish()
    assert codes == [0, 0], printed
    (row,) = map(json.loads, (out / pipeline_run.METRICS).read_text().splitlines())
    assert row["step"] == 16
    assert row["test"] < 4.5
    state = torch.load(out / pipeline_run.NETWORK, weights_only=True)
    vocabulary, length = len(state["head.bias"]), 8
    CharTransformer(vocabulary, length, 24, 2).load_state_dict(state)
    saved = [p.name for p in out.iterdir() if p.name.startswith("batch-")]
    assert sorted(saved) == ["batch-000000012", "batch-000000016"]
    (entry,) = [value for key, value in entries(out).items() if key.endswith("head.weight")]
    assert torch.equal(entry, state["head.weight"]) == (readout == "shared")


def entries(out):
    """Return what a checkpoint holds of interfaces."""
    path = latest_checkpoint(out)
    return read(path, lambda names: [name for name in names if name.startswith("interfaces.")])


def test_too_few_blocks_are_one_line_of_error(corpus, tmp_path):
    argv = [*SMALL, "--data", corpus, "--depth", 1]
    codes, printed = RankProcesses(2, language_pipeline.main, argv, tmp_path).finish()
    assert codes == [2, 2]
    assert "--depth 1 is less than a block for each rank" in printed[0]
