"""A synthesizer that records its inputs."""

from pytorch_dni import DNI, DNI_Network, synthesizer_context


class Recording_DNI(DNI_Network):
    """Predicts zero and records what it receives."""

    seen: list

    def __init__(self, input_size, hidden_size, output_size):
        super().__init__(input_size, hidden_size, output_size)
        type(self).seen = []

    def forward(self, input, hidden):
        self.seen.append(input)
        shape = list(input.shape)
        dim = shape.index(self.input_size, 1)
        return input.narrow(dim, 0, self.output_size) * 0, None


def synthesizer_input(network, x, context, size, **options):
    """Return the input of the synthesizer after layer "0" in one training step."""
    net = DNI(network, layers="0", dni_network=Recording_DNI, context_size=size, **options)
    with synthesizer_context(context):
        net(x).sum().backward()
    net.unwrap()
    return Recording_DNI.seen[-1]


def record_messages(interface):
    """Return a list that receives the true message of every later lesson."""
    messages, learn = [], interface.learn

    def recorded(prediction, message, valid_mask=None):
        messages.append(message.detach().clone())
        return learn(prediction, message, valid_mask)

    interface.learn = recorded
    return messages
