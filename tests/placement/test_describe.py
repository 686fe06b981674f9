"""``describe()``: a table of the parts."""

import pytest
import torch
from torch import nn

from pytorch_dni import DNI, DNIError
from tests.support.wrapped import residual
from tests.support.zoo import ZOO


def test_the_table_lists_parameters_cuts_and_costs():
    net = DNI(residual(4), layers=3, hidden_size=10, unlock="update")
    with pytest.raises(DNIError, match="after a training forward pass"):
        net.describe()
    x = torch.randn(6, 4)
    net(x).sum().backward()
    *lines, unlock = net.describe().splitlines()
    assert unlock == "unlock: update"
    assert [len(line.split("  ")) > 4 for line in lines] == [True] * 5
    rows = [[cell for cell in line.split("  ") if cell] for line in lines[2:]]
    total = sum(p.numel() for p in net.network.parameters())
    assert sum(int(row[2].replace(",", "")) for row in rows) == total
    cuts = [row[4].strip() for row in rows]
    assert cuts == [*net.interfaces, "-"]
    size = sum(p.numel() for p in net.interfaces[cuts[0]].synthesizer.parameters())
    assert [cell.strip() for cell in rows[0][5:]] == [f"{size:,}", "Linear_DNI"]
    # The bytes of the leaf modules: the first layer, blocks of a layer norm and two linear layers,
    # and the last layer. A block's own sum belongs to no leaf.
    first, block, last = 6 * 16 * 4, 6 * (16 + 32 + 16) * 4, 6 * 3 * 4
    assert cuts == ["1.0", "1.2", "-"]
    costs = [int(row[3].replace(",", "")) for row in rows]
    assert costs == [first + block, 2 * block, block + last]


def test_the_table_covers_every_kind_of_wrapper():
    x = torch.randn(5, 6)
    for options in ({}, {"unlock": "update"}, {"unlock": "full"}, {"layers": ["0", "2"]}):
        net = DNI(ZOO["mlp"].build(), example_input=x, **options)
        level = options.get("unlock", "backward")
        lines = net.describe().splitlines()
        assert lines[5] == f"unlock: {level}"
        assert len(lines) == (7 if level == "backward" else 6)
    whole = DNI(nn.Linear(6, 2), recursive=False)
    whole(x).sum().backward()
    assert "(output)" in whole.describe()
    recurrent = DNI(ZOO["lstm"].build())
    assert "part" in recurrent.describe()


def test_it_says_where_the_error_is_taken():
    net = DNI(ZOO["mlp"].build(), example_input=torch.randn(5, 6))
    assert "at the network's output, (batch, 3)" in net.describe().splitlines()[-1]
    net = DNI(residual(4), layers=3, example_input=torch.randn(6, 4))
    assert "at the network's output, (batch, 3)" in net.describe().splitlines()[-1]

    class WithState(nn.Module):
        def __init__(self):
            super().__init__()
            self.network = ZOO["mlp"].build()

        def forward(self, x):
            output = self.network(x)
            return output, output.square()

    net = DNI(WithState(), example_input=torch.randn(5, 6))
    last = [part.cut for part in net._rooms.cuts.parts][-2]
    assert f"at the last cut, {last!r}" in net.describe().splitlines()[-1]
    assert "passes its true gradient" in net.describe().splitlines()[-1]
    assert last not in net.interfaces
