"""References in float64, written from the equations of Jaderberg et al. 2017."""

import torch

DECAY = 0.99
FLOAT64 = {"dtype": torch.float64}


class Regression:
    """A linear synthesizer M(x) = r (x A + b), r the running root mean square of the message.

    It learns by one gradient step of the mean squared error between M / r and message / r.
    """

    def __init__(self, before, after, lr):
        self.a, self.b = torch.zeros(before, after, **FLOAT64), torch.zeros(after, **FLOAT64)
        self.lr, self.mean_square, self.steps = lr, 0.0, 0

    def scale(self):
        return (self.mean_square / (1 - DECAY**self.steps)) ** 0.5 if self.steps else 0.0

    def predict(self, x):
        return self.scale() * (x @ self.a + self.b)

    def learn(self, x, message):
        self.mean_square = DECAY * self.mean_square + (1 - DECAY) * message.square().mean().item()
        self.steps += 1
        target = message / self.scale() if self.mean_square else torch.zeros_like(message)
        self.descend(x, target)

    def descend(self, x, target):
        error = 2 * (x @ self.a + self.b - target) / target.numel()
        self.a -= self.lr * x.t() @ error
        self.b -= self.lr * error.sum(0)


class Chain:
    """Two cuts in a three-layer tanh network that learns from synthetic gradients.

    h1 = tanh(x W1), h2 = tanh(h1 W2), y = h2 W3, L = mean(y^2). A part learns from
    (1 - lambda) M(h) + lambda d, where d is the gradient that arrives at the cut. At h1, d is
    computed from the mix that h2 passed on (bootstrapped).
    """

    def __init__(self, weights, lr):
        self.w1, self.w2, self.w3 = (w.t().clone() for w in weights)
        width = self.w1.shape[1]
        self.cuts = [Regression(width, width, lr) for _ in range(2)]

    def at_cut(self, i, h, true, bp_lambda):
        synthetic = self.cuts[i].predict(h)
        self.cuts[i].learn(h, true)
        return (1 - bp_lambda) * synthetic + bp_lambda * true

    def gradients(self, x, bp_lambda=0.0):
        h1 = torch.tanh(x @ self.w1)
        h2 = torch.tanh(h1 @ self.w2)
        y = h2 @ self.w3
        dy = 2 * y / y.numel()
        dw3 = h2.t() @ dy
        d2 = self.at_cut(1, h2, dy @ self.w3.t(), bp_lambda) * (1 - h2**2)
        dw2 = h1.t() @ d2
        d1 = self.at_cut(0, h1, d2 @ self.w2.t(), bp_lambda) * (1 - h1**2)
        return [x.t() @ d1, dw2, dw3]


class Unlocked:
    """One cut with the full unlock: h = tanh(x W1), y = p W2, L = mean(y^2).

    p is predicted from x and takes the place of h. The prediction of dL/dp is learned from h where
    both parts run in one process, and from p where they exchange messages alone. The gradient for
    h is predicted from h.
    """

    def __init__(self, weights, lr):
        self.w1, self.w2 = (w.t().clone() for w in weights)
        features, width = self.w1.shape
        self.activation = Regression(features, width, lr)
        self.gradient = Regression(width, width, lr)

    def gradients(self, x, together=True):
        h = torch.tanh(x @ self.w1)
        p = self.activation.predict(x)
        synthetic = self.gradient.predict(h)
        y = p @ self.w2
        dy = 2 * y / y.numel()
        self.activation.learn(x, h)
        self.gradient.learn(h if together else p, dy @ self.w2.t())
        return [x.t() @ (synthetic * (1 - h**2)), p.t() @ dy]


class Recurrent:
    """Windows of h' = tanh(h U + x W), L = sum over time of mean((h V - y)^2).

    The gradient that later windows would send to a window's last state is predicted from that
    state. The target at a window's first state is the gradient that arrives there (bootstrapped).
    """

    def __init__(self, weights, lr, factor):
        self.u, self.w, self.v = (w.t().clone() for w in weights)
        width = len(self.u)
        self.future, self.factor = Regression(width, width, lr), factor

    def states(self, state, xs):
        states = [state]
        for x in xs:
            states.append(torch.tanh(states[-1] @ self.u + x @ self.w))
        return states

    def backpropagate(self, states, xs, ys, dh):
        """Return the gradients by the first state and the weights, given that by the last state."""
        du, dw, dv = (torch.zeros_like(w) for w in (self.u, self.w, self.v))
        for t in reversed(range(len(xs))):
            dy = 2 * (states[t + 1] @ self.v - ys[t]) / ys[t].numel()
            dv += states[t + 1].t() @ dy
            da = (dh + dy @ self.v.t()) * (1 - states[t + 1] ** 2)
            du += states[t].t() @ da
            dw += xs[t].t() @ da
            dh = da @ self.u.t()
        return dh, [du, dw, dv]

    def gradients(self, state, xs, ys):
        states = self.states(state, xs)
        dh = self.factor * self.future.predict(states[-1])
        dh, grads = self.backpropagate(states, xs, ys, dh)
        self.future.learn(state, dh)
        return states[-1], grads


class Windows(Recurrent):
    """As :class:`Recurrent`, with the measures that keep it stable, for each sample and window.

    - The scale r is the running root mean square of the gradients of windows into which no
      prediction was sent. When r grows by a factor, A and b are divided by that factor.
    - A prediction that is sent is clipped, for each sample, to the norm ``bound`` r sqrt(width).
    - No prediction is sent into each ``probe``-th window, and the synthesizer learns nothing there.
    - Where a state is not passed on, the state before it has the target zero. Samples whose
      sequence is over do not count.
    """

    def __init__(self, weights, lr, factor, bound, probe):
        super().__init__(weights, lr, factor)
        self.bound, self.probe, self.windows = bound, probe, 0
        self.left = None

    def window(self, state, xs, ys, continued, valid_mask, ended):
        """Run a window; ``ended`` is a mask of its last state, the other two of its first state."""
        f = self.future
        self.windows += 1
        skip = self.windows % self.probe == 0
        pure = skip or not f.steps
        states = self.states(state, xs)
        sent = f.predict(states[-1])
        longest = self.bound * f.scale() * len(self.u) ** 0.5
        norms = sent.norm(dim=1, keepdim=True)
        sent = torch.where(norms > longest, sent * longest / norms.clamp_min(1e-300), sent)
        sent = torch.where(ended[:, None], torch.zeros_like(sent), sent)
        dh = torch.zeros_like(sent) if pure else self.factor * sent
        dh, grads = self.backpropagate(states, xs, ys, dh)
        if self.left is not None:
            self.learn(dh, continued, valid_mask, pure, skip)
        self.left = states[-1]
        return states[-1], grads

    def learn(self, grad, continued, valid_mask, pure, skip):
        f = self.future
        target = torch.where(continued[:, None], grad, torch.zeros_like(grad))
        if pure and continued.any():
            before, known = f.scale(), f.steps > 0
            mean = target[continued].square().mean().item()
            f.mean_square = DECAY * f.mean_square + (1 - DECAY) * mean
            f.steps += 1
            if known:
                f.a *= before / f.scale()
                f.b *= before / f.scale()
        if skip or not valid_mask.any():
            return
        h = self.left[valid_mask]
        f.descend(h, target[valid_mask] / f.scale() if f.scale() else torch.zeros_like(h))
