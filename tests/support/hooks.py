"""What the wrapper attaches to a network."""


def forward_hooks(network):
    return [h for m in network.modules() for h in (*m._forward_hooks, *m._forward_pre_hooks)]


def fingerprint(network):
    """Return types, attributes and numbers of hooks of all modules, to compare before and after."""
    return {
        name: (
            type(m),
            sorted(vars(m)),
            [len(v) for k, v in sorted(vars(m).items()) if "hooks" in k],
        )
        for name, m in network.named_modules()
    }
