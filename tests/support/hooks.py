"""What the wrapper attaches to a network."""


def forward_hooks(network):
    return [h for m in network.modules() for h in (*m._forward_hooks, *m._forward_pre_hooks)]
