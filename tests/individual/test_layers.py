"""Per-example gradients of each layer equal those of one backward pass for each example."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from pytorch_dni.individual import individual_gradients
from tests.support.individual import check_layer

few = settings(max_examples=6, deadline=None, derandomize=True)
reductions = st.sampled_from(["sum", "mean"])
sizes = st.integers(1, 4)


@given(sizes, st.lists(sizes, max_size=3), sizes, sizes, st.booleans(), reductions)
@few
def test_linear(batch, positions, inputs, outputs, bias, reduction):
    network = nn.Sequential(nn.Linear(inputs, 3), nn.Tanh(), nn.Linear(3, outputs, bias=bias))
    check_layer(network, [torch.randn(batch, *positions, inputs)], reduction)


@given(st.data(), st.integers(1, 3), reductions)
@settings(max_examples=12, deadline=None, derandomize=True)
def test_convolutions(data, spatial, reduction):
    groups = data.draw(st.integers(1, 3))
    kind = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[spatial - 1]
    kernel, stride, dilation = (
        [data.draw(st.integers(1, 2 + (number == 0))) for _ in range(spatial)]
        for number in range(3)
    )
    mode = data.draw(st.sampled_from(["zeros", "circular", "reflect", "replicate"]))
    padding = data.draw(st.sampled_from(["valid", "same", [1] * spatial]))
    layer = kind(
        2 * groups,
        groups * data.draw(sizes),
        kernel,
        stride=1 if padding == "same" else stride,
        padding=padding,
        dilation=dilation,
        groups=groups,
        bias=data.draw(st.booleans()),
        padding_mode=mode,
    )
    input = torch.randn(data.draw(sizes), 2 * groups, *[data.draw(st.integers(6, 7))] * spatial)
    check_layer(nn.Sequential(layer), [input], reduction)


@given(sizes, st.lists(sizes, max_size=2), st.sampled_from([None, 1]), reductions, st.booleans())
@few
def test_embedding(batch, positions, padding, reduction, sparse):
    network = nn.Sequential(nn.Embedding(5, 3, padding_idx=padding, sparse=sparse))
    check_layer(network, [torch.randint(0, 5, (batch, *positions))], reduction)


@given(sizes, st.lists(sizes, max_size=2), st.lists(sizes, min_size=1, max_size=2), reductions)
@few
def test_layer_and_rms_norm(batch, positions, shape, reduction):
    for kind in (nn.LayerNorm, nn.RMSNorm):
        layer = kind(shape)
        nn.init.normal_(layer.weight)
        check_layer(nn.Sequential(layer), [torch.randn(batch, *positions, *shape)], reduction)


@given(sizes, sizes, st.integers(1, 3), st.integers(0, 3), reductions)
@few
def test_group_norm(batch, groups, channels, spatial, reduction):
    channels = 2 * groups * channels  # PyTorch refuses a single value
    layer = nn.GroupNorm(groups, channels)
    input = torch.randn(batch, channels, *[3] * spatial)
    check_layer(nn.Sequential(layer), [input], reduction)


@given(sizes, sizes, st.integers(1, 3), st.booleans(), st.booleans(), reductions)
@few
def test_instance_norm(batch, channels, spatial, tracks, training, reduction):
    kind = (nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)[spatial - 1]
    layer = kind(channels, affine=True, track_running_stats=tracks).train(training)
    check_layer(nn.Sequential(layer), [torch.randn(batch, channels, *[3] * spatial)], reduction)


@given(sizes, sizes, st.integers(1, 3), reductions)
@few
def test_batch_norm_in_evaluation(batch, channels, spatial, reduction):
    layer = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)[spatial - 1](channels)
    layer(torch.randn(5, channels, *[3] * spatial))
    input = torch.randn(batch, channels, *[3] * spatial)
    check_layer(nn.Sequential(layer).eval(), [input], reduction)


@given(st.data(), st.sampled_from([nn.RNN, nn.LSTM, nn.GRU]), reductions)
@settings(max_examples=15, deadline=None, derandomize=True)
def test_recurrent_layers(data, kind, reduction):
    flags = {name: data.draw(st.booleans()) for name in ("bias", "batch_first", "bidirectional")}
    if kind is nn.LSTM and data.draw(st.booleans()):
        flags["proj_size"] = 2
    if kind is nn.RNN:
        flags["nonlinearity"] = data.draw(st.sampled_from(["tanh", "relu"]))
    layers, batch, steps = (data.draw(st.integers(1, 3)) for _ in range(3))
    layer = kind(2, 3, layers, **flags)
    dim = 0 if layer.batch_first else 1

    class Network(nn.Module):
        """The loss depends on states too, which have the examples in dimension 1."""

        def __init__(self):
            super().__init__()
            self.layer = layer

        def forward(self, input, *state):
            state = state[0] if len(state) == 1 else (state or None)
            output, state = self.layer(input.movedim(dim, dim), state)
            state = state if isinstance(state, tuple) else (state,)
            return output, *(part.movedim(1, dim) for part in state)

    shape = (batch, steps, 2) if layer.batch_first else (steps, batch, 2)
    if layer.batch_first or not data.draw(st.booleans()):
        state = []
    else:
        count = layers * (2 if layer.bidirectional else 1)
        widths = [flags.get("proj_size", 3), 3][: 2 if kind is nn.LSTM else 1]
        state = [torch.randn(count, batch, width) for width in widths]
    check_layer(Network(), [torch.randn(shape), *state], reduction, dim)


class Cells(nn.Module):
    """A loop over a cell."""

    def __init__(self, kind):
        super().__init__()
        self.cell = kind(2, 3)

    def forward(self, x):
        state = None
        for step in x.unbind(1):
            state = self.cell(step, state)
        return state


@given(st.sampled_from([nn.RNNCell, nn.LSTMCell, nn.GRUCell]), sizes, sizes, reductions)
@few
def test_recurrent_cells(kind, batch, steps, reduction):
    check_layer(Cells(kind), [torch.randn(batch, steps, 2)], reduction)


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_dropout_of_recurrent_layers_is_repeated(kind):
    network = nn.Sequential(kind(3, 4, 3, dropout=0.5, batch_first=True))
    network.forward = lambda x: network[0](x)[0]
    x = torch.randn(5, 6, 3)
    with individual_gradients(network) as gradients:
        network(x).square().sum().backward()
    for name, parameter in network.named_parameters():
        torch.testing.assert_close(gradients[name].sum(0), parameter.grad)


class Attention(nn.Module):
    """Attention whose keys and values may come from other sequences."""

    def __init__(self, layer, options):
        super().__init__()
        self.layer, self.options = layer, options

    def forward(self, query, key=None, value=None):
        key = query if key is None else key
        value = key if value is None else value
        # The examples of a single one are not masked by those of others.
        options = {
            name: given[: len(query)] if name == "key_padding_mask" else given
            for name, given in self.options.items()
        }
        output, weights = self.layer(query, key, value, **options)
        return output if weights is None else (output, weights)


@given(st.data(), st.integers(1, 3), st.booleans(), reductions)
@settings(max_examples=15, deadline=None, derandomize=True)
def test_attention(data, sequences, need_weights, reduction):
    batch, length, source = (data.draw(st.integers(1, 3)) for _ in range(3))
    source = length if sequences == 1 else source
    options = {"need_weights": need_weights, "average_attn_weights": data.draw(st.booleans())}
    if data.draw(st.booleans()):
        options["attn_mask"] = torch.ones(length, source, dtype=torch.bool).triu(1)
    if data.draw(st.booleans()):  # masks that differ between examples are tested below
        options["key_padding_mask"] = torch.zeros(batch, source)
        options["key_padding_mask"][:, 1:] = -1.5
    widths = {"kdim": 3, "vdim": 5} if sequences == 3 and data.draw(st.booleans()) else {}
    layer = nn.MultiheadAttention(4, 2, bias=data.draw(st.booleans()), batch_first=True, **widths)
    others = [torch.randn(batch, source, widths.get(name, 4)) for name in ("kdim", "vdim")]
    inputs = [torch.randn(batch, length, 4), *others[: sequences - 1]]
    check_layer(Attention(layer, options), inputs, reduction)


class Sequences(nn.Module):
    """Attention and recurrent layers with the examples in dimension 1, as by default."""

    def __init__(self):
        super().__init__()
        self.attention, self.recurrent = nn.MultiheadAttention(4, 2), nn.GRU(4, 3)
        self.last = nn.Linear(3, 2)

    def forward(self, x):
        return self.last(self.recurrent(self.attention(x, x, x)[0])[0])


def test_layers_with_the_examples_in_dimension_1():
    check_layer(Sequences(), [torch.randn(5, 3, 4)], dim=1, batch_dim=1)


def test_forward_values_of_attention_are_its_own():
    layer = nn.MultiheadAttention(8, 2, dropout=0.5, batch_first=True)
    x, padding = torch.randn(3, 5, 8), torch.zeros(3, 5, dtype=torch.bool)
    padding[1, 3:] = True
    mask = nn.Transformer.generate_square_subsequent_mask(5)
    for options in (
        {},
        {"need_weights": False},
        {"key_padding_mask": padding},
        {"key_padding_mask": padding, "attn_mask": mask.isinf(), "need_weights": False},
        {"attn_mask": mask, "is_causal": True, "need_weights": False},
        {"attn_mask": mask.expand(6, 5, 5), "average_attn_weights": False},
    ):
        torch.manual_seed(1)
        expected = layer(x, x, x, **options)
        torch.manual_seed(1)
        with individual_gradients(layer):
            found = layer(x, x, x, **options)
        for ours, own in zip(found, expected, strict=True):
            assert (ours is own is None) or torch.equal(ours, own), options
