"""JAX: one compiled step with donated state, or a compiled loop over many batches, whichever measures better.

jax_worker.py THREADS
"""

import itertools
import math
import os
import sys

THREADS = int(sys.argv[1]) if len(sys.argv) > 1 else 1
os.environ["JAX_PLATFORMS"] = "cpu"
if THREADS == 1:  # the processors that the process may use decide the size of the thread pools
    os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_cpu_multi_thread_eigen=false"
if hasattr(os, "sched_setaffinity"):
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-THREADS:])

import jax
import jax.numpy as jnp
import numpy as np
import protocol

jax.config.update("jax_cpu_enable_async_dispatch", False)  # nothing to overlap: the next step needs this one's result
checks = []


def forward(layers, x, masks=None):  # weights as inputs x outputs: several times as fast here as the other way round
    for i, (weight, bias) in enumerate(layers):
        x = x @ (weight if masks is None else weight * masks[i]) + bias
        if i + 1 < len(layers):
            x = jax.nn.relu(x)
    return x


def attend(q, k, v, causal, way):
    """What heads give, {batch, length, heads, width} of each: by JAX's function, or written out for all at once or for
    one after another."""
    if way == "dot_product_attention":
        return jax.nn.dot_product_attention(q, k, v, is_causal=causal)
    later = jnp.triu(jnp.ones((q.shape[1], q.shape[1]), bool), 1) if causal else None

    def weights_of(scores):
        scores = scores * q.shape[-1] ** -0.5
        return jax.nn.softmax(jnp.where(later, -jnp.inf, scores) if causal else scores)

    if way == "einsum":
        return jnp.einsum("bhqk,bkhd->bqhd", weights_of(jnp.einsum("bqhd,bkhd->bhqk", q, k)), v)
    one = lambda q, k, v: weights_of(q @ k.T) @ v
    heads = [[one(q[b, :, h], k[b, :, h], v[b, :, h]) for h in range(q.shape[2])] for b in range(len(q))]
    return jnp.stack([jnp.stack(of_sample, 1) for of_sample in heads])


def attention(x, qkv, output, heads, causal, way):
    """Self-attention with weights as inputs x outputs."""
    split = lambda y: y.reshape(*y.shape[:2], heads, -1)
    q, k, v = (split(y) for y in jnp.split(x @ qkv[0] + qkv[1], 3, -1))
    return attend(q, k, v, causal, way).reshape(x.shape) @ output[0] + output[1]


def norm(x, layer):
    scale, shift = layer
    centred = x - x.mean(-1, keepdims=True)
    return centred * jax.lax.rsqrt((centred * centred).mean(-1, keepdims=True) + 1e-5) * scale + shift


def forward_blocks(layers, x, case, way):
    """The logits of a transformer."""
    x = x.reshape(len(x), case.length, case.features)
    for layer in layers[:-1]:
        x = x + attention(norm(x, layer["norm1"]), layer["qkv"], layer["output"], case.heads, case.causal, way)
        inner = norm(x, layer["norm2"]) @ layer["wide"][0] + layer["wide"][1]
        x = x + jax.nn.gelu(inner, approximate=False) @ layer["narrow"][0] + layer["narrow"][1]
    return forward(layers[-1:], x.mean(1))


def start_blocks(case):
    blocks, last = protocol.transformer_weights(case)
    dense = lambda weight: (jnp.asarray(weight.T), jnp.zeros(len(weight)))
    fresh = lambda: {name: (jnp.ones(case.features), jnp.zeros(case.features)) for name in ("norm1", "norm2")}
    return [{name: dense(weight) for name, weight in block.items()} | fresh() for block in blocks] + [dense(last)]


def loss_of(layers, x, labels, run):
    logits = run(layers, x)
    return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], axis=1))


def start(case):
    if case.kind == "transformer":
        layers = start_blocks(case)
    else:
        layers = [(jnp.asarray(weight.T), jnp.asarray(bias)) for weight, bias in protocol.weights(case)]
    zeros = lambda: jax.tree.map(jnp.zeros_like, layers)
    return (layers, zeros(), zeros(), jnp.zeros(())) if case.optimizer == "adam" else (layers, zeros())


def largest(x, by_windows):
    """Of each 2 x 2 pixels; what fills no window is left out."""
    if by_windows:
        return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
    rows, columns = x.shape[1] // 2, x.shape[2] // 2
    x = x[:, : 2 * rows, : 2 * columns]
    return x.reshape(len(x), rows, 2, columns, 2, x.shape[3]).max((2, 4))


def forward_images(layers, x, by_windows):
    """The logits, and the mean and the variance of what each batch norm has seen."""
    seen = []
    x = x.reshape(-1, 28, 28, 1)
    for layer in layers[:2]:
        norm = "shift" in layer
        x = jax.lax.conv_general_dilated(
            x, layer["filters"], (1, 1), "SAME" if norm else "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        if norm:
            mean, variance = x.mean((0, 1, 2)), x.var((0, 1, 2))
            seen.append((mean, variance * (x.size / x.shape[3] / (x.size / x.shape[3] - 1))))
            x = (x - mean) * (layer["scale"] * jax.lax.rsqrt(variance + 1e-5)) + layer["shift"]
            x = jax.nn.leaky_relu(x, 0.01)
        else:
            x = jax.nn.relu(x + layer["bias"])
        x = largest(x, by_windows)
    return forward(layers[2:], x.reshape(len(x), -1)), seen


def start_images(case):
    filters, dense = protocol.convolutions(case)
    layers, statistics = [], []
    for weight in filters:
        ones, zeros = jnp.ones(len(weight)), jnp.zeros(len(weight))
        layer = {"filters": jnp.asarray(weight.transpose(1, 2, 3, 0))}
        layers.append(layer | ({"scale": ones, "shift": zeros} if case.norm else {"bias": zeros}))
        if case.norm:
            statistics.append((zeros + 0, ones + 0))
    layers += [(jnp.asarray(weight.T), jnp.asarray(bias)) for weight, bias in dense]
    return layers, jax.tree.map(jnp.zeros_like, layers), statistics


def update_images(state, x, labels, by_windows):
    layers, first, statistics = state

    def loss_of_images(layers):
        logits, seen = forward_images(layers, x, by_windows)
        return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], axis=1)), seen

    (loss, seen), gradients = jax.value_and_grad(loss_of_images, has_aux=True)(layers)
    each = jax.tree.map
    first = each(lambda v, g: protocol.MOMENTUM * v + g, first, gradients)
    statistics = each(lambda old, new: old + 0.1 * (new - old), statistics, seen)
    return (each(lambda p, v: p - protocol.SGD_RATE * v, layers, first), first, statistics), loss


def masks_of(case):
    masks = protocol.masks(case)
    return masks and [jnp.asarray(mask.T) for mask in masks]


def update(state, x, labels, run):
    """The next state and the loss; run makes the logits."""
    layers, first = state[:2]
    loss, gradients = jax.value_and_grad(loss_of)(layers, x, labels, run)
    each = jax.tree.map
    if len(state) == 2:
        first = each(lambda v, g: protocol.MOMENTUM * v + g, first, gradients)
        return (each(lambda p, v: p - protocol.SGD_RATE * v, layers, first), first), loss
    second, count = state[2], state[3] + 1
    first = each(lambda m, g: m + 0.1 * (g - m), first, gradients)
    second = each(lambda v, g: v + 0.001 * (g * g - v), second, gradients)
    scale, unbias = protocol.ADAM_RATE / (1 - 0.9**count), jax.lax.rsqrt(1 - 0.999**count)
    layers = each(lambda p, m, v: p - scale * m / (jnp.sqrt(v) * unbias + 1e-8), layers, first, second)
    return (layers, first, second, count), loss


def step_of(case, way=None):
    """The state to begin with, and a function of a state and a batch; way: of pooling, or of attention."""
    if case.kind == "cnn":
        return start_images(case), lambda state, x, labels: update_images(state, x, labels, way == "windows")
    if case.kind == "transformer":
        run = lambda layers, x: forward_blocks(layers, x, case, way)
    else:
        masks = masks_of(case)
        run = lambda layers, x: forward(layers, x, masks)
    return start(case), lambda state, x, labels: update(state, x, labels, run)


def one_by_one(case, way=None):
    """One call a step; the state goes from call to call in the same memory."""
    inputs, labels = protocol.data(case)
    data = [(jnp.asarray(x), jnp.asarray(y, jnp.int32)) for x, y in zip(inputs, labels)]
    state, function = step_of(case, way)
    step, turn = jax.jit(function, donate_argnums=0), 0

    def run(steps):
        nonlocal state, turn
        for _ in range(steps):
            state, loss = step(state, *data[turn])
            turn = (turn + 1) % len(data)
        checks.append(float(jax.block_until_ready((state, loss))[1]))
        return steps

    return run


def looped(case):
    """One call for many steps: a scan over the batches."""
    inputs, labels = protocol.data(case)
    length = min(64, len(inputs))
    chunks = [
        (jnp.asarray(inputs[i : i + length]), jnp.asarray(labels[i : i + length], jnp.int32))
        for i in range(0, len(inputs) - length + 1, length)
    ]
    state, function = step_of(case)
    epoch = jax.jit(
        lambda state, xs, ys: jax.lax.scan(lambda s, batch: function(s, *batch), state, (xs, ys)), donate_argnums=0
    )
    turn = 0

    def run(steps):
        nonlocal state, turn
        calls = -(-steps // length)
        for _ in range(calls):
            state, losses = epoch(state, *chunks[turn])
            turn = (turn + 1) % len(chunks)
        checks.append(float(jax.block_until_ready((state, losses))[1][-1]))
        return calls * length

    return run


def repeated(function, arguments):
    """Calls that each wait for the one before, because it gives the memory for the result."""
    step = jax.jit(lambda previous, *rest: function(*rest), donate_argnums=0, keep_unused=True)
    result = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), jax.eval_shape(function, *arguments[0]))
    turn = 0

    def run(steps):
        nonlocal result, turn
        for _ in range(steps):
            result = step(result, *arguments[turn])
            turn = (turn + 1) % len(arguments)
        first = jax.tree.leaves(jax.block_until_ready(result))[0]
        checks.append(float(first[(0,) * first.ndim]))
        return steps

    return run


def prediction(case):
    layers = start(case)[0]
    data = [(layers, jnp.asarray(x)) for x in protocol.data(case)[0]]
    return repeated(forward, data)


def product(case):
    m, k, n = case.sizes
    random = np.random.default_rng(3)
    w, x = (jnp.asarray(random.standard_normal(shape, np.float32)) for shape in ((m, k), (k, n)))
    return repeated(jnp.matmul, [(w, x)])


MULTIPLY = {  # by the place of the samples, the one that is faster there
    "first": lambda core, z: jnp.einsum("mk,bkn->bmn", core, z),
    "last": lambda core, z: jnp.broadcast_to(core, (len(z), *core.shape)) @ z,
}


def layer(case, way):
    """One linear layer, dense or a tensor-train; the result is y or, with the backward pass, y, dx and d(cores)."""
    x, dy, cores = jax.tree.map(jnp.asarray, protocol.layer_data(case))
    if case.kind == "dense" or (way == "dense" and not case.backward):  # made once, for all predictions
        matrix = cores[0] if case.kind == "dense" else protocol.whole_matrix(cores, jnp.einsum)
        cores, way = [matrix.T.copy()], "product"

    def forward(x, cores):
        if way == "product":
            return x @ cores[0]
        if way == "dense":
            return x @ protocol.whole_matrix(cores, jnp.einsum).T
        if way == "einsum":
            z = jnp.einsum(protocol.equation(case), x.reshape(-1, *case.inputs), *cores, optimize="optimal")
            return z.reshape(len(x), -1)
        end, samples = way
        return protocol.chain(x, cores, end, samples, MULTIPLY[samples], jnp.transpose)

    def both(x, dy, cores):
        y, back = jax.vjp(forward, x, cores)
        return y, *back(dy)

    return repeated(both, [(x, dy, cores)]) if case.backward else repeated(forward, [(x, cores)])


def attention_layer(case, way):
    """The output of self-attention or, with the backward pass, it, dx and the gradients of the weights."""
    x, dy, weights = jax.tree.map(jnp.asarray, protocol.attention_data(case))
    weights = [weight.T.copy() for weight in weights]

    def forward(x, weights):
        return attention(x, (weights[0], 0), (weights[1], 0), case.heads, case.causal, way)

    def both(x, dy, weights):
        y, back = jax.vjp(forward, x, weights)
        return y, *back(dy)

    return repeated(both, [(x, dy, weights)]) if case.backward else repeated(forward, [(x, weights)])


def recurrent(case, hoisted, unroll):
    """The outputs of all steps or, with the backward pass, these, dx and the gradients of weights and biases.

    Hoisted: the inputs' share of the gates is one product for all steps; unroll: steps that the loop does at once.
    """
    x, dy, (w, u, b, q) = jax.tree.map(jnp.asarray, protocol.recurrent_data(case))
    weights = (w.T.copy(), u.T.copy(), b, q)
    sigmoid = jax.nn.sigmoid

    def forward(x, weights):
        w, u, b, q = weights

        def step(state, x):
            h, c = state
            gates, more = x if hoisted else x @ w + b, h @ u + q
            if case.kind == "lstm":
                i, f, g, o = jnp.split(gates + more, 4, 1)
                c = sigmoid(f) * c + sigmoid(i) * jnp.tanh(g)
                h = sigmoid(o) * jnp.tanh(c)
            else:
                (r, z, n), (hr, hz, hn) = jnp.split(gates, 3, 1), jnp.split(more, 3, 1)
                z = sigmoid(z + hz)
                n = jnp.tanh(n + sigmoid(r + hr) * hn)
                h = n + z * (h - n)
            return (h, c), h

        steps = jnp.swapaxes(x, 0, 1)
        start = jnp.zeros((case.batch, case.units), jnp.float32)
        ys = jax.lax.scan(step, (start, start), steps @ w + b if hoisted else steps, unroll=unroll)[1]
        return jnp.swapaxes(ys, 0, 1)

    def both(x, dy, weights):
        y, back = jax.vjp(forward, x, weights)
        return y, *back(dy)

    return repeated(both, [(x, dy, weights)]) if case.backward else repeated(forward, [(x, weights)])


ATTENTION = ("dot_product_attention", "einsum", "head by head")


def setup(case):
    if case.kind == "product":
        return [("jit", lambda: product(case))]
    if case.kind in ("lstm", "gru"):
        return [
            (
                ("inputs before the loop" if hoisted else "inputs in the loop") + f", {unroll} steps at once",
                lambda hoisted=hoisted, unroll=unroll: recurrent(case, hoisted, unroll),
            )
            for hoisted, unroll in itertools.product((True, False), (1, 8))
        ]
    if case.kind == "attention":
        return [(way, lambda way=way: attention_layer(case, way)) for way in ATTENTION]
    if case.kind == "transformer":
        return [(way, lambda way=way: one_by_one(case, way)) for way in ATTENTION]
    if case.kind == "predict":
        return [("jit", lambda: prediction(case))]
    if case.kind == "step":
        return [("step", lambda: one_by_one(case)), ("scan", lambda: looped(case))]
    if case.kind == "cnn":  # in a loop convolutions run on one thread, and many times slower
        return [
            (f"step, pools by {pools}", lambda pools=pools: one_by_one(case, pools)) for pools in ("windows", "shapes")
        ]
    if case.kind in ("tt", "dense"):
        ways = ["dense"] if math.prod(case.sizes) <= protocol.DENSE_LIMIT else []
        if case.kind == "tt":
            ways += ["einsum", *itertools.product(("first", "last"), MULTIPLY)]
        return [(str(way), lambda way=way: layer(case, way)) for way in ways]
    return []


protocol.serve("JAX", jax.__version__, setup, lambda: sum(checks))
