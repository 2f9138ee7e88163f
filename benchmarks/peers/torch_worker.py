"""PyTorch: the better of eager and compiled execution, decided by measurement when a case is set up.

torch_worker.py THREADS
"""

import itertools
import math

from torch_setup import compile_alone, torch  # first: it says how many threads there are

import opt_einsum
import protocol
import torch.nn.functional as F

checks = []
TUNED = {"max_autotune": True, "max_autotune_gemm_backends": "CPP,ATEN", "cpp_wrapper": True}


class MaskedLinear(torch.nn.Linear):
    """The usual way of training with few weights: all are there, and a mask sets most to zero."""

    def __init__(self, inputs, outputs, mask):
        super().__init__(inputs, outputs)
        self.register_buffer("mask", torch.from_numpy(mask))

    def forward(self, x):
        return F.linear(x, self.weight * self.mask, self.bias)


def network(case):
    if case.kind == "transformer":
        return transformer(case)
    layers, masks = [], protocol.masks(case)
    for i, (weight, bias) in enumerate(protocol.weights(case)):
        outputs, inputs = weight.shape
        layer = MaskedLinear(inputs, outputs, masks[i]) if masks else torch.nn.Linear(inputs, outputs)
        with torch.no_grad():
            layer.weight.copy_(torch.from_numpy(weight))
            layer.bias.copy_(torch.from_numpy(bias))
        layers += [layer, torch.nn.ReLU()]
    return torch.nn.Sequential(*layers[:-1])


def images(case, order):
    """The same for images; `order` is that of the memory of images and filters."""
    filters, dense = protocol.convolutions(case)
    layers = []
    for weight in filters:
        outputs, _, _, inputs = weight.shape
        padding = "same" if case.norm else "valid"
        convolution = torch.nn.Conv2d(inputs, outputs, 3, padding=padding, bias=not case.norm)
        with torch.no_grad():
            convolution.weight.copy_(torch.from_numpy(weight).permute(0, 3, 1, 2))
            if convolution.bias is not None:
                convolution.bias.zero_()
        behind = [torch.nn.BatchNorm2d(outputs), torch.nn.LeakyReLU(0.01)] if case.norm else [torch.nn.ReLU()]
        layers += [convolution, *behind, torch.nn.MaxPool2d(2)]
    layers.append(torch.nn.Flatten())
    for weight, bias in dense:
        layer = torch.nn.Linear(weight.shape[1], weight.shape[0])
        with torch.no_grad():
            layer.weight.copy_(torch.from_numpy(weight))
            layer.bias.copy_(torch.from_numpy(bias))
        layers += [layer, torch.nn.ReLU()]
    return torch.nn.Sequential(*layers[:-1]).to(memory_format=order)


def attend(qkv, heads, causal):
    """What heads give beside each other, from the queries, keys and values of {batch, length}."""
    q, k, v = (y.unflatten(-1, (heads, -1)).transpose(1, 2) for y in qkv)
    return F.scaled_dot_product_attention(q, k, v, is_causal=causal).transpose(1, 2).flatten(2)


class Block(torch.nn.Module):
    """Of a transformer."""

    def __init__(self, case, weights):
        super().__init__()
        self.heads, self.causal = case.heads, case.causal
        self.norm1, self.norm2 = torch.nn.LayerNorm(case.features), torch.nn.LayerNorm(case.features)
        for name, weight in weights.items():
            setattr(self, name, linear_of(weight))

    def forward(self, x):
        x = x + self.output(attend(self.qkv(self.norm1(x)).chunk(3, -1), self.heads, self.causal))
        return x + self.narrow(F.gelu(self.wide(self.norm2(x))))


class Mean(torch.nn.Module):
    def forward(self, x):
        return x.mean(1)


def linear_of(weight):
    layer = torch.nn.Linear(weight.shape[1], weight.shape[0])
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(weight))
        layer.bias.zero_()
    return layer


def transformer(case):
    blocks, last = protocol.transformer_weights(case)
    return torch.nn.Sequential(*(Block(case, weights) for weights in blocks), Mean(), linear_of(last))


def batches(case, order=None):
    inputs, labels = protocol.data(case)
    x = torch.from_numpy(inputs).unbind()
    if case.kind == "transformer":
        x = [batch.view(-1, case.length, case.features) for batch in x]
    if order is not None:
        x = [batch.view(-1, 1, 28, 28).contiguous(memory_format=order) for batch in x]
    return list(zip(x, torch.from_numpy(labels).unbind()))


def in_turn(step, data):
    """A run that gives the step the batches of the data one after another."""
    turn = 0

    def run(steps):
        nonlocal turn
        for _ in range(steps):
            result = step(*data[turn])
            turn = (turn + 1) % len(data)
        checks.append(float(result.ravel()[0]))
        return steps

    return run


def under(mode, run):
    def inside(steps):
        with mode():
            return run(steps)

    return inside


def optimizer_of(case, parameters):
    if case.optimizer == "adam":
        return torch.optim.Adam(parameters, lr=protocol.ADAM_RATE, fused=True)
    return torch.optim.SGD(parameters, lr=protocol.SGD_RATE, momentum=protocol.MOMENTUM, fused=True)


def training(case, compiled, order=None):
    """The usual loop; compiled: forward and backward generated by the compiler, the fused optimizer as it is."""
    net = network(case) if order is None else images(case, order)
    optimizer = optimizer_of(case, net.parameters())

    def loss_of(x, labels):
        return F.cross_entropy(net(x), labels)

    if compiled:
        loss_of = compile_alone(loss_of)

    def step(x, labels):
        optimizer.zero_grad()
        loss = loss_of(x, labels)
        loss.backward()
        optimizer.step()
        return loss.detach()

    return in_turn(step, batches(case, order))


def whole(case, options=None, order=None):
    """Forward, backward and optimizer in one compiled graph that updates the parameters in place."""
    net = network(case) if order is None else images(case, order)
    parameters = {name: p.detach() for name, p in net.named_parameters()}
    first = {name: torch.zeros_like(p) for name, p in parameters.items()}
    second = {name: torch.zeros_like(p) for name, p in parameters.items()}
    count = torch.zeros(())

    statistics = dict(net.named_buffers())

    def loss_of(parameters, x, labels):
        fresh = {name: b.clone() for name, b in statistics.items()}  # no captured tensor may change in here
        return F.cross_entropy(torch.func.functional_call(net, parameters | fresh, (x,)), labels), fresh

    def step(x, labels):
        gradients, (loss, fresh) = torch.func.grad_and_value(loss_of, has_aux=True)(parameters, x, labels)
        for name, buffer in fresh.items():
            statistics[name].copy_(buffer)
        if case.optimizer == "adam":
            count.add_(1)
            scale = protocol.ADAM_RATE / (1 - 0.9**count)
            unbias = torch.rsqrt(1 - 0.999**count)
        for name, gradient in gradients.items():
            if case.optimizer == "adam":
                first[name].lerp_(gradient, 0.1)
                second[name].mul_(0.999).addcmul_(gradient, gradient, value=0.001)
                parameters[name].sub_(scale * first[name] / (second[name].sqrt() * unbias + 1e-8))
            else:
                first[name].mul_(protocol.MOMENTUM).add_(gradient)
                parameters[name].sub_(protocol.SGD_RATE * first[name])
        return loss

    return under(torch.no_grad, in_turn(compile_alone(step, options), batches(case, order)))


def prediction(case, way):
    net = network(case).eval()
    data = batches(case)

    def forward(x):
        return net(x)

    if way == "compiled":
        forward = compile_alone(forward)
    elif way == "frozen":
        forward = torch.jit.freeze(torch.jit.trace(net, data[0][0]))
    return under(torch.inference_mode, in_turn(lambda x, labels: forward(x), data))


def product(case):
    m, k, n = case.sizes
    generator = torch.Generator().manual_seed(3)
    w, x = torch.randn(m, k, generator=generator), torch.randn(k, n, generator=generator)
    result = torch.empty(m, n)
    return in_turn(lambda: torch.mm(w, x, out=result), [()])


def linear(case, way):
    """(forward of x and cores, cores) of one linear layer, dense or a tensor-train."""
    cores = [torch.from_numpy(core) for core in protocol.layer_data(case)[2]]
    shapes = [(case.batch, *case.inputs), *(core.shape for core in cores)]
    if case.kind == "dense":
        return lambda x, cores: F.linear(x, cores[0]), cores
    if way == "dense" and not case.backward:  # made once, for all predictions
        return lambda x, cores: F.linear(x, cores[0]), [protocol.whole_matrix(cores, torch.einsum).contiguous()]
    if way == "dense":
        return lambda x, cores: F.linear(x, protocol.whole_matrix(cores, torch.einsum)), cores
    if way == "einsum":
        equation = protocol.equation(case)
        return lambda x, cores: torch.einsum(equation, x.view(shapes[0]), *cores).reshape(case.batch, -1), cores
    if way == "expression":  # the order of the products is found once and not in every call
        expression = opt_einsum.contract_expression(protocol.equation(case), *shapes, optimize="optimal")
        return lambda x, cores: expression(x.view(shapes[0]), *cores).reshape(case.batch, -1), cores

    # With the samples last the products are wide; batched products move nothing, and matmul would.
    def multiply(core, z):
        return torch.bmm(core.expand(len(z), -1, -1), z)

    return lambda x, cores: protocol.chain(x, cores, way, "last", multiply, torch.permute).contiguous(), cores


def layer(case, way, compiled):
    """Forward, or forward and backward to the gradients of x and all cores."""
    forward, cores = linear(case, way)
    x, dy = (torch.from_numpy(array) for array in protocol.layer_data(case)[:2])
    if compiled:
        forward = compile_alone(forward)
    if not case.backward:
        return under(torch.inference_mode, in_turn(forward, [(x, cores)]))
    wanted = [tensor.requires_grad_() for tensor in (x, *cores)]
    return in_turn(lambda: torch.autograd.grad(forward(x, cores), wanted, dy)[0], [()])


def attention(case, stacked, compiled):
    """Forward, or forward and backward to the gradients of x and all weights.

    Stacked: queries, keys and values are one product.
    """
    x, dy, (qkv, output) = protocol.attention_data(case)
    x, dy = torch.from_numpy(x), torch.from_numpy(dy)
    weights = [torch.from_numpy(weight) for weight in ([qkv] if stacked else qkv.reshape(3, -1, case.features))]
    weights.append(torch.from_numpy(output))

    def forward(x, weights):
        made = [F.linear(x, weight) for weight in weights[:-1]]
        return F.linear(attend(made[0].chunk(3, -1) if stacked else made, case.heads, case.causal), weights[-1])

    if compiled:
        forward = compile_alone(forward)
    if not case.backward:
        return under(torch.inference_mode, in_turn(forward, [(x, weights)]))
    wanted = [tensor.requires_grad_() for tensor in (x, *weights)]
    return in_turn(lambda: torch.autograd.grad(forward(x, weights), wanted, dy)[0], [()])


def recurrent(case):
    """Forward, or forward and backward to the gradients of x and all weights and biases.

    As it is: step by step and compiled it was slower where it was tried, and took minutes to compile.
    """
    x, dy, weights = protocol.recurrent_data(case)
    x, dy = torch.from_numpy(x), torch.from_numpy(dy)
    net = {"lstm": torch.nn.LSTM, "gru": torch.nn.GRU}[case.kind](case.inputs, case.units, batch_first=True)
    with torch.no_grad():
        for parameter, weight in zip(net.all_weights[0], weights):
            parameter.copy_(torch.from_numpy(weight))
    forward = lambda x: net(x)[0]
    if not case.backward:
        return under(torch.inference_mode, in_turn(forward, [(x,)]))
    wanted = [x.requires_grad_(), *net.parameters()]
    return in_turn(lambda: torch.autograd.grad(forward(x), wanted, dy)[0], [()])


def lookup(case, bag):
    """A step with sparse gradients of the table, which only SparseAdam takes; the dense layer has the usual Adam."""
    if bag:
        table = torch.nn.EmbeddingBag(case.tokens, case.units, mode="mean", sparse=True)
    else:
        table = torch.nn.Embedding(case.tokens, case.units, sparse=True)
    dense = torch.nn.Linear(case.units, case.sizes[-1])
    optimizers = [
        torch.optim.SparseAdam(table.parameters(), lr=protocol.ADAM_RATE),
        torch.optim.Adam(dense.parameters(), lr=protocol.ADAM_RATE, fused=True),
    ]

    def step(x, labels):
        for optimizer in optimizers:
            optimizer.zero_grad()
        looked_up = table(x)
        loss = F.cross_entropy(dense(looked_up if bag else looked_up.mean(1)), labels)
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()
        return loss.detach()

    return in_turn(step, batches(case))


def csr(case):
    """The product with a matrix in compressed rows; x comes as it is wanted there, with the samples as columns."""
    x, _, (weight,) = protocol.layer_data(case)
    matrix = torch.from_numpy(weight * protocol.masks(case)[0]).to_sparse_csr()
    columns = torch.from_numpy(x.T.copy())
    return under(torch.inference_mode, in_turn(lambda: matrix @ columns, [()]))


def setup(case):
    if case.kind == "sparse":
        return [("csr", lambda: csr(case))]
    if case.kind == "product":
        return [("eager", lambda: product(case))]
    if case.kind in ("lstm", "gru"):
        return [("eager", lambda: recurrent(case))]
    if case.kind == "attention":
        return [
            (
                "one product" * stacked + "three products" * (not stacked) + ", compiled" * compiled,
                lambda stacked=stacked, compiled=compiled: attention(case, stacked, compiled),
            )
            for stacked, compiled in itertools.product((True, False), (False, True))
        ]
    if case.kind == "embedding":
        return [("embedding", lambda: lookup(case, False)), ("bag", lambda: lookup(case, True))]
    if case.kind == "predict":
        return [(way, lambda way=way: prediction(case, way)) for way in ("eager", "frozen", "compiled")]
    if case.kind == "cnn":
        orders = {"channels first": torch.contiguous_format, "channels last": torch.channels_last}
        ways = {
            "eager": lambda order: training(case, False, order),
            "compiled": lambda order: training(case, True, order),
            "compiled whole": lambda order: whole(case, None, order),
        }
        return [
            (f"{way}, {name}", lambda make=make, order=order: make(order))
            for name, order in orders.items()
            for way, make in ways.items()
        ]
    if case.kind in ("step", "transformer"):
        return [
            ("eager", lambda: training(case, False)),
            ("compiled", lambda: training(case, True)),
            ("compiled whole", lambda: whole(case)),
            ("compiled whole, tuned", lambda: whole(case, TUNED)),
        ]
    if case.kind in ("tt", "dense"):
        ways = [("dense", False)] if math.prod(case.sizes) <= protocol.DENSE_LIMIT else []
        if case.kind == "tt":
            ways += [("expression", False), *itertools.product(("einsum", "first", "last"), (False, True))]
        return [
            (way + ", compiled" * compiled, lambda way=way, compiled=compiled: layer(case, way, compiled))
            for way, compiled in ways
        ]
    return []


protocol.serve("PyTorch", torch.__version__.split("+")[0], setup, lambda: sum(checks))
