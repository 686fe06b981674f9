"""The context changes nothing for good, and refuses what has no per-example gradients."""

import copy
import warnings

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from pytorch_dni import DNIError
from pytorch_dni.individual import (
    individual_gradient_dots,
    individual_gradient_norms,
    individual_gradient_projections,
    individual_gradients,
)


def state(network):
    """Return everything that a context could leave on modules and parameters."""
    return [
        (
            {key: value for key, value in vars(module).items() if key != "_flat_weights"},
            [(id(p), p.requires_grad, p._backward_hooks or None) for p in module.parameters()],
        )
        for module in network.modules()
    ]


def network():
    return nn.Sequential(
        nn.Embedding(5, 4), nn.LSTM(4, 4, batch_first=True), Last(), nn.BatchNorm1d(4).eval()
    )


class Last(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)
        self.factor = nn.Parameter(torch.randn(4))

    def forward(self, given):
        x = given[0]
        return self.attention(x, x, x)[0].mean(1) * self.factor


@pytest.mark.filterwarnings("ignore:per-example gradients of")
@pytest.mark.parametrize("context", [individual_gradients, individual_gradient_dots])
@pytest.mark.parametrize("grad", [True, False])
@pytest.mark.parametrize("fails", [None, "forward", "backward"])
def test_nothing_is_left(context, grad, fails):
    net, x = network(), torch.randint(0, 5, (3, 6))
    before, copied = state(net), copy.deepcopy(net)
    try:
        with context(net, grad=grad):
            output = net(x) if fails != "forward" else net(x + 100)
            if fails == "backward":
                output.register_hook(lambda grad: 1 / 0)
            output.square().sum().backward()
    except (IndexError, ZeroDivisionError):
        assert fails
    assert state(net) == before
    net.zero_grad()
    net(x).square().sum().backward()
    copied(x).square().sum().backward()
    for own, other in zip(net.parameters(), copied.parameters(), strict=True):
        assert torch.equal(own.grad, other.grad)


def test_a_forward_of_the_user_is_restored():
    net = nn.Sequential(nn.Linear(3, 2))
    net[0].forward = lambda x: F.linear(2 * x, net[0].weight)
    own = net[0].forward
    with individual_gradients(net), individual_gradient_norms(net):
        assert net[0].forward is not own
    assert net[0].forward is own


def test_nothing_is_done_in_evaluation_without_gradients_and_after_the_end():
    net, x = nn.Sequential(nn.Linear(3, 2)), torch.randn(4, 3)
    with individual_gradients(net) as gradients:
        with torch.no_grad():
            assert not net(x).requires_grad
        loss = net(x).sum()
    loss.backward()
    assert len(gradients) == 0
    with pytest.raises(DNIError, match=r"no parameter '0.weight'.*inside the context"):
        gradients["0.weight"]
    with pytest.raises(KeyError):
        gradients["0.weight"]


def test_no_total_before_a_backward_pass():
    with (
        individual_gradient_norms(nn.Linear(2, 2)) as norms,
        pytest.raises(DNIError, match="no total yet"),
    ):
        _ = norms.total


def refused(net, message, *inputs, context=individual_gradient_norms, **options):
    before = state(net)
    with pytest.raises(DNIError, match=message), context(net, **options):
        net(*inputs).sum().backward()
    assert state(net) == before


@pytest.mark.parametrize("affine", [True, False])
def test_batch_norm_in_training_mixes_examples(affine):
    net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4, affine=affine))
    refused(net, r"'1' \(BatchNorm1d\) normalises by statistics of the batch, which mixes")
    with individual_gradients(net.eval()):
        net.train()
        with pytest.raises(DNIError, match="mixes"):
            net(torch.randn(2, 3))
    refused(nn.Sequential(nn.BatchNorm2d(2, track_running_stats=False)).eval(), "mixes")


@pytest.mark.parametrize(
    ("net", "message"),
    [
        (nn.Embedding(4, 3, scale_grad_by_freq=True), "scale_grad_by_freq"),
        (nn.LazyLinear(3), "run the network once"),
        (nn.DataParallel(nn.Linear(2, 2)), "DistributedDataParallel"),
        (nn.ReLU(), "no parameter"),
        (nn.utils.weight_norm(nn.Linear(2, 2)), "parametrizations"),
    ],
    ids=lambda value: type(value).__name__,
)
@pytest.mark.filterwarnings("ignore")
def test_networks_without_per_example_gradients_are_refused(net, message):
    refused(nn.Sequential(net), message)


@pytest.mark.parametrize(
    ("net", "shape"),
    [
        (nn.Linear(3, 2), (3,)),
        (nn.Conv1d(3, 2, 1), (3, 5)),
        (nn.LayerNorm(3), (3,)),
        (nn.GRU(3, 2), (4, 3)),
        (nn.InstanceNorm1d(3, affine=True), (3, 5)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_inputs_without_a_batch_are_refused(net, shape):
    wrapper = nn.Sequential(net).double()
    wrapper.forward = lambda x: net(x)[0] if isinstance(net, nn.GRU) else net(x)
    refused(wrapper, "without", torch.randn(shape))


def test_attention_without_a_batch_is_refused():
    layer = nn.MultiheadAttention(4, 2)
    wrapper = nn.Sequential(layer)
    wrapper.forward = lambda x: layer(x, x, x)[0]
    refused(wrapper, "without a batch dimension", torch.randn(3, 4))


def test_packed_sequences_are_refused():
    packed = nn.utils.rnn.pack_sequence([torch.randn(4, 3), torch.randn(2, 3)])
    layer = nn.GRU(3, 2)
    wrapper = nn.Sequential(layer)
    wrapper.forward = lambda x: layer(x)[1]
    refused(wrapper, "packed sequences", packed)


def test_layers_that_disagree_on_the_batch_are_refused():
    net = nn.Sequential(nn.Linear(3, 3), nn.Flatten(0, 1), nn.Linear(3, 2))
    refused(net, r"'0' \(Linear\) has 4 examples in dimension 0, '2' .* 20", torch.randn(4, 5, 3))


def test_an_input_changed_in_place_is_refused():
    net = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))

    def forward(x):
        hidden = net[0](x)
        output = net[1](hidden)
        hidden.mul_(2)
        return output

    net.forward = forward
    refused(net, "changed in place", torch.randn(4, 3), grad=False)


class Functional(nn.Module):
    """Uses a weight by a function, too."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 3)

    def forward(self, x):
        return F.linear(self.layer(x), self.layer.weight)


@pytest.mark.parametrize("grad", [True, False])
def test_parameters_used_outside_of_their_layer_are_refused(grad):
    refused(Functional(), "'layer.weight' is used outside", torch.randn(4, 3), grad=grad)
    net = nn.Sequential(nn.Linear(3, 2))
    with (
        individual_gradients(net, grad=grad),
        pytest.raises(DNIError, match=r"'0.bias' is used outside"),
    ):
        (net(torch.randn(4, 3)).sum() + net[0].bias.square().sum()).backward()


def test_reductions_are_checked():
    net, x, y = nn.Sequential(nn.Linear(3, 2)), torch.randn(4, 3), torch.zeros(4).long()
    losses = {
        "mean": [
            lambda: net(x).mean(),
            lambda: F.cross_entropy(net(x), y),
            lambda: F.mse_loss(net(x), x[:, :2]),
        ],
        "sum": [lambda: F.cross_entropy(net(x), y, reduction="sum")],
    }
    for kind, other in (("mean", "sum"), ("sum", "mean")):
        for loss in losses[kind]:
            with individual_gradients(net, reduction=kind):
                loss().backward()
            with (
                individual_gradients(net, reduction=other),
                pytest.raises(DNIError, match=f"give reduction='{kind}'"),
            ):
                loss().backward()


def batch():
    return torch.randn(6, 3), torch.tensor([0, 0, 1, 2, 2, 2])


@pytest.mark.parametrize("positions", [(), (5,)])
def test_class_weights_in_a_mean_give_a_warning(positions):
    """It divides by the sum of the weights; the remedy divides by the number of examples."""
    net, weight = nn.Sequential(nn.Linear(3, 3)), torch.tensor([1.0, 2.0, 5.0])
    x, y = batch()
    if positions:
        x, y = x[:, None].expand(-1, *positions, -1), y[:, None].expand(-1, *positions)

    def loss(**options):
        output = net(x).movedim(-1, 1)
        return F.cross_entropy(output, y, weight, **options)

    with (
        individual_gradients(net, reduction="mean") as found,
        pytest.warns(UserWarning, match="class weights and divides by the sum of those of the b"),
    ):
        loss().backward()
    torch.testing.assert_close(found["0.weight"].mean(0), net[0].weight.grad)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with individual_gradients(net, reduction="mean") as found:
            loss(reduction="none").mean().backward()
        with individual_gradients(net) as summed:
            loss(reduction="none").reshape(6, -1).mean(1).sum().backward()
    torch.testing.assert_close(found["0.weight"], summed["0.weight"])


@pytest.mark.parametrize("retain", [False, True])
def test_other_means_give_no_warning_of_class_weights(retain):
    net, (x, y) = nn.Sequential(nn.Linear(3, 3)), batch()
    losses = [
        lambda: F.cross_entropy(net(x), y),
        lambda: F.nll_loss(net(x), y, ignore_index=1),
        lambda: F.multi_margin_loss(net(x), y, weight=torch.tensor([1.0, 2.0, 5.0])),
        lambda: F.binary_cross_entropy_with_logits(net(x), x.sigmoid(), weight=torch.rand(3)),
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for loss in losses:
            with individual_gradients(net, reduction="mean"):
                loss().backward(retain_graph=retain)


@pytest.mark.parametrize(
    ("context", "options", "message"),
    [
        (individual_gradients, {"reduction": "none"}, "reduction must be 'sum' or 'mean'"),
        (individual_gradients, {"grad": 1}, "grad must be True or False"),
        (individual_gradients, {"sparse": None}, "sparse must be True or False"),
        (individual_gradients, {"batch_dim": -1}, "batch_dim must be"),
        (individual_gradients, {"batch_dim": {"x": 0}}, "batch_dim names 'x'"),
        (individual_gradients, {"out": []}, "out must be a dict"),
        (individual_gradients, {"out": {"x": torch.zeros(1)}}, "out has a buffer for 'x'"),
        (individual_gradients, {"out": {"0.bias": torch.zeros(3, 3)}}, r"out\['0.bias'\] must be"),
        (individual_gradient_projections, {"dim": 0}, "dim must be a positive integer"),
        (individual_gradient_projections, {"dim": 2, "seed": -1}, "seed must be"),
        (individual_gradient_projections, {"dim": 2, "file": "x"}, "must be a ProjectionFile"),
    ],
)
def test_wrong_arguments_are_refused(context, options, message):
    net = nn.Sequential(nn.Linear(3, 2))
    refused(net, message, torch.randn(4, 3), context=context, **options)


def test_a_buffer_of_another_type_is_refused():
    net = nn.Sequential(nn.Linear(3, 2))
    out = {"0.bias": torch.zeros(4, 2, dtype=torch.float32)}
    refused(net, "leave it out of out", torch.randn(4, 3), context=individual_gradients, out=out)


def test_no_module_is_refused():
    with pytest.raises(DNIError, match="must be a module"):
        individual_gradients(3)


def test_a_context_is_entered_once_at_a_time():
    context = individual_gradients(nn.Linear(2, 2))
    with context, pytest.raises(DNIError, match="entered already"):
        context.__enter__()


def test_a_full_step_of_training_inside_of_the_context():
    net = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))
    other = copy.deepcopy(net)
    x = torch.randn(8, 3)
    optimizers = [torch.optim.Adam(n.parameters(), foreach=False) for n in (net, other)]
    with individual_gradient_norms(net) as norms:
        for _ in range(3):
            for network, optimizer in zip((net, other), optimizers, strict=True):
                optimizer.zero_grad()
                network(x).square().sum().backward()
                optimizer.step()
            assert norms.total.shape == (8,)
    for own, expected in zip(net.parameters(), other.parameters(), strict=True):
        assert torch.equal(own, expected)
