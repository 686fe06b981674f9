"""References in float64 of learned feedback, written from its equations.

A true gradient g (batch, features) at a cut is predicted by p = r_g D (e / r_e). The error e is
the gradient of the loss at the network's output, or of a local head. r_g and r_e are running root
mean squares; r_e counts the present error already, r_g does not count the present g when p is
computed. D learns by one gradient step of mean((D e / r_e - g / r_g)^2), where r_g counts g.
"""

import torch

DECAY = 0.99
FLOAT64 = {"dtype": torch.float64}


class RunningSize:
    def __init__(self):
        self.mean_square, self.steps = 0.0, 0

    def count(self, message):
        self.mean_square = DECAY * self.mean_square + (1 - DECAY) * message.square().mean().item()
        self.steps += 1

    def value(self):
        return (self.mean_square / (1 - DECAY**self.steps)) ** 0.5 if self.steps else 0.0


class Feedback:
    def __init__(self, features, error_features, lr):
        self.d, self.lr = torch.zeros(features, error_features, **FLOAT64), lr
        self.of_gradient, self.of_error = RunningSize(), RunningSize()

    def predict(self, error, counted=True):
        """Predict; in a step that teaches nothing, the error counts for this prediction alone."""
        kept = self.of_error.mean_square, self.of_error.steps
        self.of_error.count(error)
        self.given = error / self.of_error.value()
        if not counted:
            self.of_error.mean_square, self.of_error.steps = kept
        return self.of_gradient.value() * self.given @ self.d.t()

    def learn(self, gradient):
        self.of_gradient.count(gradient)
        size = self.of_gradient.value()
        target = gradient / size if size else torch.zeros_like(gradient)
        slope = 2 * (self.given @ self.d.t() - target) / target.numel()
        self.d -= self.lr * slope.t() @ self.given


class FeedbackChain:
    """h1 = tanh(x W1), h2 = tanh(h1 W2), y = h2 W3, L = mean(y^2), with cuts at h1 and h2."""

    def __init__(self, weights, lr):
        self.w1, self.w2, self.w3 = (w.t().clone() for w in weights)
        width, outputs = self.w1.shape[1], self.w3.shape[1]
        self.cuts = [Feedback(width, outputs, lr) for _ in range(2)]

    def run(self, x):
        h1 = torch.tanh(x @ self.w1)
        h2 = torch.tanh(h1 @ self.w2)
        y = h2 @ self.w3
        return h1, h2, 2 * y / y.numel()

    def bootstrapped(self, x):
        """Each cut learns from the gradient that the synthetic one of the next cut gives."""
        h1, h2, error = self.run(x)
        p2 = self.cuts[1].predict(error)
        self.cuts[1].learn(error @ self.w3.t())
        d2 = p2 * (1 - h2**2)
        p1 = self.cuts[0].predict(error)
        self.cuts[0].learn(d2 @ self.w2.t())
        d1 = p1 * (1 - h1**2)
        return [x.t() @ d1, h1.t() @ d2, h2.t() @ error]

    def exact(self, x):
        """Backpropagation, whose gradients teach the cuts."""
        h1, h2, error = self.run(x)
        g2 = error @ self.w3.t()
        g1 = (g2 * (1 - h2**2)) @ self.w2.t()
        for cut, gradient in zip(self.cuts, (g1, g2), strict=True):
            cut.predict(error)
            cut.learn(gradient)
        return [x.t() @ (g1 * (1 - h1**2)), h1.t() @ (g2 * (1 - h2**2)), h2.t() @ error]

    def feedback_alone(self, x):
        """A step in which no gradient crosses a cut, and nothing is learned there."""
        h1, h2, error = self.run(x)
        p1, p2 = (cut.predict(error, counted=False) for cut in self.cuts)
        return [x.t() @ (p1 * (1 - h1**2)), h1.t() @ (p2 * (1 - h2**2)), h2.t() @ error]


class LocalErrorChain:
    """One cut with a local head: h = tanh(x W1), y = h W2, L = cross-entropy(y, labels).

    The head's error is e = (softmax(h A + a) - one_hot(labels)) / batch; it learns by its own
    cross-entropy.
    """

    def __init__(self, weights, head, lr):
        self.w1, self.w2 = (w.t().clone() for w in weights)
        self.a, self.bias = head[0].t().clone(), head[1].clone()
        self.lr = lr
        self.feedback = Feedback(self.w1.shape[1], self.w2.shape[1], lr)

    def gradients(self, x, labels):
        h = torch.tanh(x @ self.w1)
        one_hot = torch.eye(self.w2.shape[1], **FLOAT64)[labels]
        error = ((h @ self.a + self.bias).softmax(1) - one_hot) / len(x)
        output_error = ((h @ self.w2).softmax(1) - one_hot) / len(x)
        p = self.feedback.predict(error)
        self.feedback.learn(output_error @ self.w2.t())
        self.a -= self.lr * h.t() @ error
        self.bias -= self.lr * error.sum(0)
        return [x.t() @ (p * (1 - h**2)), h.t() @ output_error]
