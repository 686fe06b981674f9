"""Buffers, sparse rows, projections and their files."""

import json

import numpy
import pytest
import torch
from torch import nn

from pytorch_dni import DNIError
from pytorch_dni.individual import (
    individual_gradient_projections,
    individual_gradients,
    ProjectionFile,
    RowGradients,
)
from tests.support.individual import loop, matrix


def network():
    return nn.Sequential(nn.Embedding(9, 3), nn.Flatten(), nn.Linear(12, 4), nn.Tanh())


def gradients_of(net, x, **options):
    with individual_gradients(net, **options) as gradients:
        net(x).square().sum().backward()
    return gradients


def test_buffers_are_used_again_and_hold_smaller_batches():
    net, out = network(), {}
    x = torch.randint(0, 9, (5, 4))
    first = gradients_of(net, x, out=out)
    places = {name: buffer.data_ptr() for name, buffer in out.items()}
    assert places.keys() == dict(net.named_parameters()).keys()
    again = gradients_of(net, x[:3], out=out)
    expected = loop(net, lambda n: net(x[n : n + 1]).square().sum(), 3)
    for name in expected:
        assert again[name].shape[0] == 3
        assert again[name].data_ptr() == out[name].data_ptr() == places[name]
        torch.testing.assert_close(again[name], expected[name])
    assert first["0.weight"].data_ptr() == places["0.weight"]
    gradients_of(net, torch.randint(0, 9, (7, 4)), out=out)
    assert out["0.weight"].shape[0] == 7


def test_without_buffers_values_stay_when_the_next_pass_comes():
    net, x = network(), torch.randint(0, 9, (2, 4))
    with individual_gradients(net) as gradients:
        net(x).square().sum().backward()
        kept, copy = gradients["2.weight"], gradients["2.weight"].clone()
        net(x.flip(1)).square().sum().backward()
    assert torch.equal(kept, copy)
    assert not torch.equal(gradients["2.weight"], copy)


@pytest.mark.parametrize("positions", [(4,), (2, 2)])
def test_sparse_rows(positions):
    net, x = network(), torch.tensor([[1, 1, 8, 0], [2, 3, 4, 5]])
    dense = gradients_of(net, x)["0.weight"]
    rows = gradients_of(net, x.view(2, *positions), sparse=True)["0.weight"]
    assert isinstance(rows, RowGradients)
    assert rows.indices.tolist() == [[0, 1, 8, -1], [2, 3, 4, 5]]
    found = torch.zeros_like(dense)
    for example in range(2):
        for row, value in zip(rows.indices[example], rows.values[example], strict=True):
            if row >= 0:
                found[example, row] += value
            else:
                assert not value.any()
    torch.testing.assert_close(found, dense)


def test_sparse_rows_of_an_embedding_that_is_used_twice():
    embedding = nn.Embedding(6, 2)
    net = nn.Sequential(embedding)
    net.forward = lambda x, y: embedding(x).sum(1) * embedding(y).sum(1)
    x, y = torch.tensor([[1, 2]]), torch.tensor([[2, 2, 5]])
    with individual_gradients(net, sparse=True) as rows, individual_gradients(net) as dense:
        net(x, y).sum().backward()
    assert rows["0.weight"].indices.tolist() == [[1, 2, 5]]
    torch.testing.assert_close(rows["0.weight"].values[0], dense["0.weight"][0, [1, 2, 5]])


def test_sparse_rows_of_a_weight_that_another_layer_uses_are_an_error():
    net = nn.Sequential(nn.Embedding(4, 3), nn.Linear(3, 4))
    net[1].weight = net[0].weight
    with pytest.raises(DNIError, match=r"'0.weight' is used by an embedding and by another layer"):
        gradients_of(net, torch.zeros(2, 3, dtype=torch.long), sparse=True)


def signs(dim, seed, name, side, count):
    """Return the documented random signs, drawn by the formula in the docs."""
    import hashlib

    digest = hashlib.sha256(f"{seed}/{name}/{side}".encode()).digest()
    generator = torch.Generator()
    generator.manual_seed(int.from_bytes(digest[:8], "little", signed=True))
    drawn = torch.randint(0, 2, (count, dim), generator=generator, dtype=torch.int8)
    return drawn.double() * 2 - 1


def projected(expected, dim, seed):
    """Project whole gradients by whole matrices."""
    total = 0
    for name, gradients in expected.items():
        shape = gradients.shape[1:]
        directions = signs(dim, seed, name, "rows", shape[0])[:, None]
        if len(shape) > 1:
            columns = signs(dim, seed, name, "columns", shape[1:].numel())
            directions = directions * columns
        total = total + gradients.flatten(1) @ directions.flatten(0, 1) / dim**0.5
    return total


class Everything(nn.Module):
    """A layer of each form of gradients, and a weight that two of them share."""

    def __init__(self):
        super().__init__()
        self.embedding, self.norm = nn.Embedding(6, 4), nn.LayerNorm([5, 4])
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)
        self.convolution = nn.Conv1d(4, 8, 3, groups=2)
        self.middle, self.last = nn.Linear(8, 4), nn.Linear(4, 6)
        self.last.weight = self.embedding.weight

    def forward(self, x):
        hidden = self.norm(self.embedding(x))
        hidden = hidden + self.attention(hidden, hidden[:, :3], hidden[:, :3])[0]
        return self.last(self.middle(self.convolution(hidden.mT).mean(2)))


def test_projections_equal_those_by_whole_matrices():
    net, x = Everything(), torch.randint(0, 6, (3, 5))
    expected = loop(net, lambda n: net(x[n : n + 1]).square().sum(), 3)
    with individual_gradient_projections(net, 7, seed=3) as projections:
        net(x).square().sum().backward()
    assert projections["embedding.weight"].shape == (3, 7)
    torch.testing.assert_close(projections.total, projected(expected, 7, 3))


def test_inner_products_of_projections_are_those_of_gradients_in_the_mean():
    net, x = network(), torch.randint(0, 9, (3, 4))
    rows = matrix(loop(net, lambda n: net(x[n : n + 1]).square().sum(), 3))
    with individual_gradient_projections(net, 20_000) as projections:
        net(x).square().sum().backward()
    found = projections.total @ projections.total.T
    torch.testing.assert_close(found, rows @ rows.T, rtol=0, atol=0.1 * float(rows.norm()) ** 2)


def write(net, x, path, batches, examples=6, seed=0):
    """Project some batches of two, after those that are written; return how many were."""
    file = ProjectionFile(path, examples)
    with individual_gradient_projections(net, 4, seed, file=file) as projections:
        found = projections.written
        for first in range(found, found + 2 * batches, 2):
            net(x[first : first + 2]).square().sum().backward()
            projections.write()
    return found


def test_a_file_is_resumed(tmp_path):
    net, x = network(), torch.randint(0, 9, (6, 4))
    path = tmp_path / "projections.npy"
    assert write(net, x, path, 1) == 0
    assert write(net, x, path, 2) == 2
    with individual_gradient_projections(net, 4) as projections:
        net(x).square().sum().backward()
    found = torch.from_numpy(numpy.array(numpy.load(path, mmap_mode="r")))
    torch.testing.assert_close(found, projections.total.float())
    assert json.loads((tmp_path / "projections.npy.json").read_text())["written"] == 6
    with pytest.raises(DNIError, match="room for 6 examples, of which 6 are written"):
        write(net, torch.randint(0, 9, (8, 4)), path, 1)


def test_a_file_of_something_else_is_refused_and_left_alone(tmp_path):
    net, x = network(), torch.randint(0, 9, (6, 4))
    path = tmp_path / "projections.npy"
    write(net, x, path, 2)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    for change in ({"seed": 1}, {"examples": 8}, {"net": nn.Sequential(net, nn.Linear(4, 4))}):
        options = {"net": net, "x": x, "path": path, "batches": 1, **change}
        with pytest.raises(DNIError, match="holds projections of"):
            write(**options)
        assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before
    (tmp_path / "projections.npy.json").write_text("{")
    with pytest.raises(DNIError, match="cannot be continued"):
        write(net, x, path, 1)
    (tmp_path / "projections.npy.json").unlink()
    with pytest.raises(DNIError, match="does not: give another file"):
        write(net, x, path, 1)
    assert "forward" not in vars(net)
