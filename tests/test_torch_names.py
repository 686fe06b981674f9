"""The private names of PyTorch that the library uses still mean what it relies on.

Where a test here fails after an update of PyTorch, ``pytorch_dni/_torch.py`` says what the name is
used for and what can replace it.
"""

import pytest
import torch
from torch import distributed, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from pytorch_dni import _torch
from pytorch_dni.placement._cost import Cost


def test_a_backward_pass_has_a_number_of_its_own():
    seen = []
    for _ in range(2):
        x = torch.ones(2, requires_grad=True)
        y = x * 2
        y.register_hook(lambda grad: seen.append(_torch.current_backward_pass()))
        y.sum().backward()
    assert _torch.current_backward_pass() is None
    assert None not in seen
    assert seen[0] != seen[1]


def test_a_callback_runs_at_the_end_of_the_backward_pass():
    order = []
    x = torch.ones(2, requires_grad=True)
    y = x * 2

    def hook(grad):
        _torch.call_after_backward_pass(lambda: order.append(("end", x.grad is not None)))
        order.append(("hook", x.grad is not None))

    y.register_hook(hook)
    y.sum().backward()
    assert order == [("hook", False), ("end", True)]


@pytest.mark.skipif(not distributed.is_gloo_available(), reason="torch was built without gloo")
def test_the_default_store_is_that_of_the_process_group():
    store = distributed.HashStore()
    distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        found = _torch.default_store()
        found.set("key", "text")
        assert found.get("key") == b"text"
        assert not found.check(["other"])
    finally:
        distributed.destroy_process_group()


def small_graph():
    torch.manual_seed(0)
    x, w = torch.randn(3, 4), torch.randn(4, 4, requires_grad=True)
    unused = torch.randn(4, requires_grad=True)
    hidden = torch.tanh(x @ w)
    return hidden, [w, unused], torch.randn(3, 4)


def test_gradients_are_those_of_autograd_grad():
    hidden, inputs, grad = small_graph()
    expected = torch.autograd.grad(hidden, inputs, grad, retain_graph=True, allow_unused=True)
    found = _torch.run_backward(hidden, grad, inputs)
    assert torch.equal(found[0], expected[0])
    assert found[1] is expected[1] is None
    assert inputs[0].grad is None
    with pytest.raises(RuntimeError, match="second time"):
        _torch.run_backward(hidden, grad, inputs)


def test_anomaly_mode_works_inside_a_part():
    x = torch.zeros(3, requires_grad=True)
    with torch.autograd.set_detect_anomaly(True):
        y = torch.sqrt(x) * 0
        with (
            pytest.raises(RuntimeError, match="returned nan"),
            pytest.warns(UserWarning, match="Error detected"),
        ):
            _torch.run_backward(y, torch.ones(3), [x])


class Flags(torch.autograd.Function):
    """Records the flags of autograd that a backward pass runs under."""

    seen: list = []  # noqa: RUF012

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, grad):
        enabled = torch._C._is_multithreading_enabled()
        Flags.seen.append((enabled, torch.is_grad_enabled(), torch.is_anomaly_enabled()))
        return grad


@pytest.mark.parametrize("multithreading", [True, False])
def test_flags_of_autograd_hold_inside_a_part(multithreading):
    Flags.seen = []
    with torch.autograd.set_multithreading_enabled(multithreading):
        for run in (torch.autograd.grad, None):
            x = torch.ones(2, requires_grad=True)
            out = Flags.apply(x * 1)
            if run is None:
                _torch.run_backward(out, torch.ones(2), [x])
            else:
                run(out, x, torch.ones(2))
    assert Flags.seen[0] == Flags.seen[1] == (multithreading, False, False)


def test_hooks_of_the_graph_run_inside_a_part():
    calls = []
    x = torch.ones(2, requires_grad=True)
    hidden = x * 2
    hidden.register_hook(lambda grad: calls.append("tensor") or grad * 3)
    hidden.grad_fn.register_hook(lambda *grads: calls.append("node"))
    with torch.autograd.graph.saved_tensors_hooks(
        lambda t: t, lambda t: calls.append("saved") or t
    ):
        out = hidden * hidden
    (grad,) = _torch.run_backward(out, torch.ones(2), [x])
    assert sorted(calls) == ["node", "saved", "saved", "tensor"]
    assert torch.equal(grad, torch.full((2,), 2 * 2 * 2 * 3.0))


def test_suspended_hooks_do_not_run_and_are_put_back_in_order():
    calls = []
    x = torch.ones(2, requires_grad=True)
    for i in range(3):
        x.register_hook(lambda grad, i=i: calls.append(i))
    with _torch.hooks_suspended([x]):
        _torch.run_backward((x * 2), torch.ones(2), [x])
    assert not calls
    (x * 2).sum().backward()
    assert calls == [0, 1, 2]


def test_a_function_can_be_left_out_of_compilation():
    seen = []

    @_torch.uncompiled
    def inner(x):
        seen.append(torch.compiler.is_dynamo_compiling())
        return x + 1

    torch.compiler.reset()
    compiled = torch.compile(lambda x: inner(x * 2) * 3, backend="eager")
    assert torch.equal(compiled(torch.ones(2)), torch.full((2,), 9.0))
    assert seen == [False]


def test_it_is_known_whether_something_has_been_compiled():
    torch.compiler.reset()
    assert not _torch.compiles()
    compiled = torch.compile(nn.Linear(2, 2), backend="eager")
    assert _torch.compiles()
    torch.compiler.reset()
    assert not _torch.compiles()
    compiled(torch.randn(1, 2))
    assert _torch.compiles()
    torch.compiler.reset()


def test_changes_in_place_are_counted():
    x = torch.ones(3)
    before = _torch.version(x)
    x.detach().add_(1)
    assert _torch.version(x) == before + 1


def test_restored_values_are_not_counted_as_a_change():
    saved = torch.ones(2)
    weight = torch.ones(2, requires_grad=True)
    product = (weight * saved).sum()
    before = _torch.version(saved)
    _torch.overwrite(saved, torch.tensor([2.0, 3.0]))
    assert _torch.version(saved) == before
    assert torch.equal(saved, torch.tensor([2.0, 3.0]))
    product.backward()


def test_later_nodes_have_higher_numbers_and_leaves_are_found():
    w = torch.ones(2, requires_grad=True)
    first = w * 2
    second = first * 2
    numbers = [_torch.creation_number(t.grad_fn) for t in (first, second)]
    assert numbers[0] < numbers[1]
    leaves = [_torch.leaf_of(node) for node, _ in first.grad_fn.next_functions if node is not None]
    assert leaves[0] is w
    assert _torch.leaf_of(second.grad_fn) is None


def test_casts_by_autocast_are_told_from_other_nodes():
    layer = nn.Linear(2, 2)
    with torch.autocast("cpu", torch.bfloat16):
        out = layer(torch.ones(1, 2))
    casts = [node for node, _ in out.grad_fn.next_functions if node is not None]
    assert any(_torch.is_cast_by_autocast(node) for node in casts)
    assert not _torch.is_cast_by_autocast((layer.weight * 2).grad_fn)


def test_outputs_of_a_function_are_recognised():
    out = Flags.apply(torch.ones(2, requires_grad=True) * 1)
    assert _torch.is_output_of(out, Flags)
    assert not _torch.is_output_of(out * 1, Flags)


def test_memory_is_told_apart():
    x = torch.ones(4)
    assert _torch.storage_number(x) == _torch.storage_number(x[2:])
    assert _torch.storage_number(x) != _torch.storage_number(torch.ones(4))
    empty = [torch.empty(0) for _ in range(2)]  # their addresses are both 0
    assert len({_torch.storage_number(tensor) for tensor in empty}) == 2


def test_hooks_of_modules_are_listed_and_tensors_of_modules_mapped():
    layer = nn.Linear(2, 2)
    hook = lambda *call: None  # noqa: E731
    layer.register_forward_hook(hook)
    assert [*_torch.forward_hooks(layer).values()] == [hook]
    assert not _torch.forward_pre_hooks(layer)
    layer.register_forward_pre_hook(hook)
    assert [*_torch.forward_pre_hooks(layer).values()] == [hook]
    _torch.apply_to_tensors(layer, lambda tensor: tensor.double())
    assert layer.weight.dtype == torch.float64


def test_a_fused_optimizer_skips_the_step_of_an_overflow():
    weight = nn.Parameter(torch.ones(2))
    optimizer = torch.optim.Adam([weight], lr=0.1, fused=True)
    weight.grad = torch.ones(2)
    _torch.skip_step_if(optimizer, torch.tensor(1.0))
    optimizer.step()
    assert torch.equal(weight, torch.ones(2))
    _torch.do_not_skip_step(optimizer)
    optimizer.step()
    assert not torch.equal(weight, torch.ones(2))


def test_costs_are_those_of_pytorchs_counter():
    a, b = torch.ones(3, 4), torch.ones(4, 5)
    with FlopCounterMode(display=False) as counter:
        product = a @ b
    operation = torch.ops.aten.mm.default
    assert _torch.operation_cost(operation, (a, b), {}, product) == counter.get_total_flops()
    assert _torch.operation_cost(torch.ops.aten.relu.default, (a,), {}, a) is None


def test_a_list_of_tensors_is_multiplied_in_place():
    tensors = [torch.ones(2), torch.ones(3)]
    _torch.multiply_(tensors, 2.0)
    assert [t.sum().item() for t in tensors] == [4, 6]


def test_fused_recurrent_kernels_cost_what_their_products_do():
    """Without oneDNN the products run one by one, and PyTorch's counter sees them."""
    lstm, x = nn.LSTM(4, 5), torch.randn(7, 3, 4)
    found = []
    for fused in (True, False):
        cost = Cost()
        with torch.no_grad(), torch.backends.mkldnn.flags(enabled=fused), cost:
            lstm(x)
        found.append((cost.total, cost.products))
    assert min(products for _, products in found) >= 1
    products = 2 * 7 * 3 * 4 * 5 * (4 + 5)
    assert all(products <= total <= 1.5 * products for total, _ in found)


def test_operators_of_the_backward_pass_are_autograds():
    torch.manual_seed(0)
    grad, x = torch.randn(6, 4), torch.randn(6, 4, requires_grad=True)
    expected = torch.autograd.grad(x.relu(), x, grad)[0]
    assert torch.equal(_torch.relu_backward(grad, x.relu().detach(), 0), expected)
    expected = torch.autograd.grad(x.sigmoid(), x, grad)[0]
    assert torch.equal(_torch.sigmoid_backward(grad, x.sigmoid().detach()), expected)
    gain, shift = torch.rand(4, requires_grad=True), torch.rand(4, requires_grad=True)
    normal = {
        "batch": lambda: F.batch_norm(x, None, None, gain, shift, True, 0.0, 1e-5),
        "layer": lambda: F.layer_norm(x, (4,), gain, shift, 1e-5),
    }
    v = x.detach()
    out, mean, inverse = _torch.batch_norm_forward(v, gain, shift, None, None, True, 0.0, 1e-5)
    found = _torch.batch_norm_backward(
        grad, v, gain, None, None, mean, inverse, True, 1e-5, [True] * 3
    )
    torch.testing.assert_close(out, normal["batch"]())
    torch.testing.assert_close(
        found, torch.autograd.grad(normal["batch"](), (x, gain, shift), grad)
    )
    out, mean, inverse = _torch.layer_norm_forward(v, (4,), gain, shift, 1e-5)
    found = _torch.layer_norm_backward(grad, v, (4,), mean, inverse, gain, shift, [True] * 3)
    torch.testing.assert_close(out, normal["layer"]())
    torch.testing.assert_close(
        found, torch.autograd.grad(normal["layer"](), (x, gain, shift), grad)
    )


def test_operators_of_cross_entropy_are_autograds():
    torch.manual_seed(0)
    x, labels = torch.randn(6, 4, requires_grad=True), torch.randint(4, (6,))
    labels[0] = -100
    loss = F.cross_entropy(x, labels)
    logarithms = x.detach().log_softmax(-1)
    value, rows = _torch.nll_loss_forward(logarithms, labels, None, 1, -100)
    one = torch.ones_like(value)
    error = _torch.nll_loss_backward(one, logarithms, labels, None, 1, -100, rows)
    found = _torch.log_softmax_backward(error, logarithms, -1, logarithms.dtype)
    torch.testing.assert_close(value, loss.detach())
    torch.testing.assert_close(found, torch.autograd.grad(loss, x)[0])
