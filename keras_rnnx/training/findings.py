"""What is wrong with the norms of a model, and which layer is to blame."""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class Trouble:
    """kind: "nan", "explode" or "vanish"; layer: its name; text: a sentence."""

    kind: str
    layer: str
    text: str


def find(layers, explode, vanish):
    """The troubles in a list of `LayerNorms`: at most one of each kind, NaN alone."""
    trouble = _not_finite(layers)
    if trouble is not None:
        return [trouble]
    return [t for t in (_exploding(layers, explode), _vanishing(layers, vanish)) if t is not None]


def _not_finite(layers):
    for layer in layers:
        if not layer.weights_finite:
            text = f"weights of layer {layer.name!r} are NaN or infinite; {ADVICE['nan']}"
            return Trouble("nan", layer.name, text)
    # Forward a NaN goes from the first layer to the last, backward from the last to the first.
    recurrent = _recurrent(layers)
    for layer in recurrent:
        if not np.isfinite(layer.state):
            text = f"the last state of layer {layer.name!r} has norm {layer.state}; {ADVICE['nan']}"
            return Trouble("nan", layer.name, text)
    for layer in reversed(layers):
        if layer.steps is not None and not np.isfinite(layer.steps).all():
            step = _order(layer)[~np.isfinite(layer.steps[_order(layer)])][-1]
            return Trouble("nan", layer.name, f"{_at(layer, step)}; {ADVICE['nan']}")
        if layer.gradient is not None and not np.isfinite(layer.gradient):
            text = (
                f"the gradient of the weights of layer {layer.name!r} has norm {layer.gradient}; "
                f"{ADVICE['nan']}"
            )
            return Trouble("nan", layer.name, text)
    return None


def _exploding(layers, limit):
    if not any(value > limit for layer in layers for value in _values(layer)):
        return None
    # Of equals the one nearest to the loss.
    recurrent = [layer for layer in _recurrent(layers)[::-1] if max(_values(layer)) > limit]
    growth = lambda layer: _ratio(_steps(layer).max(), layer.incoming.max())
    blamed = max(recurrent, key=growth, default=None)
    if blamed is None or growth(blamed) <= 1:
        # No recurrence makes it; nearest to the loss is where the gradient was large first.
        blamed = next(la for la in reversed(layers) if any(v > limit for v in _values(la)))
    return _sentence(blamed, "explode", limit, lambda value: value > limit, max)


def _vanishing(layers, limit):
    low = lambda layer: min(_values(layer, state=False, carried=True), default=np.inf)
    if not any(low(layer) < limit for layer in layers):
        return None
    recurrent = [layer for layer in _recurrent(layers)[::-1] if low(layer) < limit]
    decay = lambda layer: _ratio(_steps(layer, carried=True).min(), _least(layer.incoming))
    blamed = min(recurrent, key=decay, default=None)
    if blamed is None or decay(blamed) >= 1:
        blamed = next(layer for layer in reversed(layers) if low(layer) < limit)
    return _sentence(blamed, "vanish", limit, lambda value: value < limit, min)


# -- the sentence --------------------------------------------------------------------------

ADVICE = {
    "nan": "look for a too large learning rate, NaN in the data or an overflow in half precision.",
    "explode": "clip gradients (`global_clipnorm` of the optimizer, `clip_norm` of a layer's "
    "`backward`) or scale the weights down.",
    "vanish": "use gated cells, orthogonal recurrent weights or shorter sequences.",
}


def _sentence(layer, kind, limit, over, extreme):
    side = "above" if kind == "explode" else "below"
    tail = f", {side} {kind}={limit:g}; {ADVICE[kind]}"
    if layer.steps is not None:
        steps = [s for s in _order(layer) if kind == "explode" or layer.carried[s]]
        worst = extreme(steps, key=lambda step: layer.steps[step])
        if over(layer.steps[worst]):
            return Trouble(kind, layer.name, _at(layer, worst) + tail)
    if layer.gradient is not None and over(layer.gradient):
        text = f"the gradient of the weights of layer {layer.name!r} has norm {layer.gradient:.2g}"
        return Trouble(kind, layer.name, text + tail)
    text = f"the last state of layer {layer.name!r} has norm {layer.state:.2g}"
    return Trouble(kind, layer.name, text + tail)


def _at(layer, step):
    return (
        f"the gradient of the loss with respect to the input of layer {layer.name!r} at step "
        f"{step} of {len(layer.steps)} has norm {layer.steps[step]:.2g} (at the step that the "
        f"layer takes last: {_latest(layer):.2g})"
    )


# -- reading LayerNorms --------------------------------------------------------------------


def _recurrent(layers):
    """The recurrent layers that were called, in the order of calls."""
    return sorted((la for la in layers if la.steps is not None), key=lambda la: la.called)


def _order(layer):
    """The real steps in the order in which the layer takes them."""
    steps = np.flatnonzero(layer.real)
    return steps[::-1] if layer.backwards else steps


def _steps(layer, carried=False):
    return layer.steps[layer.real & layer.carried] if carried else layer.steps[layer.real]


def _latest(layer):
    """The norm at the step that the layer takes last."""
    return layer.steps[_order(layer)[-1]]


def _ratio(value, other):
    return value / other if other else np.inf if value else 1.0


def _least(norms):
    """The smallest norm that is not 0, which is that of masked steps."""
    return min(norms[norms > 0], default=0.0)


def _values(layer, state=True, carried=False):
    """The norms of a layer."""
    values = [] if layer.gradient is None else [layer.gradient]
    if layer.steps is not None:
        values += list(_steps(layer, carried)) + ([layer.state] if state else [])
    return values
