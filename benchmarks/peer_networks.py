"""The package's networks in torch, pruned by torch-pruning.

They have the layers, widths and FLOPs of `keras_bar.models.WideResNet` and
`ResNet50`. Weights can be copied from a Keras network, which then computes the
same.
"""

import keras
import torch
import torch_pruning
from torch import nn
from torch.nn import functional

# Maximum share of a layer's channels that torch-pruning removes.
MOST_REMOVED = 0.95
# Steps in which torch-pruning approaches the FLOPs.
STEPS = 400


class Convolution(nn.Conv2d):
    """A convolution without bias that pads as Keras's "same" does, which puts
    the odd zero behind the image. `symmetric` pads as torch does."""

    symmetric = False

    def __init__(self, inputs, outputs, size, stride=1):
        super().__init__(inputs, outputs, size, stride, bias=False)
        nn.init.kaiming_normal_(self.weight)

    def forward(self, x):
        size, stride = self.kernel_size[0], self.stride[0]
        if self.symmetric or size == 1:
            half = (size - 1) // 2
            return functional.conv2d(x, self.weight, None, stride, half)
        total = max(size - (stride if x.shape[-1] % stride == 0 else 1), 0)
        before = total // 2
        pads = (before, total - before) * 2
        return functional.conv2d(
            functional.pad(x, pads), self.weight, None, stride
        )


def norm(channels):
    # Keras counts the part that is kept, torch the part that is new.
    return nn.BatchNorm2d(channels, eps=1e-5, momentum=0.1)


class Preactivated(nn.Module):
    """The block of a WideResNet."""

    def __init__(self, inputs, filters, stride, begins):
        super().__init__()
        self.norm1 = norm(inputs)
        self.shortcut = None
        if begins:
            self.shortcut = Convolution(inputs, filters, 1, stride)
        self.conv1 = Convolution(inputs, filters, 3, stride)
        self.norm2 = norm(filters)
        self.conv2 = Convolution(filters, filters, 3)

    def forward(self, x):
        y = functional.relu(self.norm1(x))
        if self.shortcut is not None:
            x = self.shortcut(y)
        y = functional.relu(self.norm2(self.conv1(y)))
        return x + self.conv2(y)


class WideResNet(nn.Module):
    """`keras_bar.models.WideResNet`."""

    def __init__(self, depth, width, channels=3, classes=10, narrow=1.0):
        super().__init__()
        widths = [max(1, round(16 / narrow))]
        self.stem = Convolution(channels, widths[0], 3)
        blocks, inputs = [], widths[0]
        for group in range(3):
            filters = max(1, round(16 * width * 2**group / narrow))
            for block in range(int(depth // 6)):
                stride = 2 if block == 0 and group else 1
                blocks.append(Preactivated(inputs, filters, stride, block == 0))
                inputs = filters
        self.blocks = nn.Sequential(*blocks)
        self.norm = norm(inputs)
        self.classifier = nn.Linear(inputs, classes)

    def forward(self, x):
        x = functional.relu(self.norm(self.blocks(self.stem(x))))
        return self.classifier(x.mean((2, 3)))


class Bottleneck(nn.Module):
    """The block of a ResNet-50."""

    def __init__(self, inputs, inner, outer, stride, begins):
        super().__init__()
        self.shortcut = None
        if begins:
            self.shortcut = nn.Sequential(
                Convolution(inputs, outer, 1, stride), norm(outer)
            )
        self.conv1, self.norm1 = Convolution(inputs, inner, 1), norm(inner)
        self.conv2 = Convolution(inner, inner, 3, stride)
        self.norm2 = norm(inner)
        self.conv3, self.norm3 = Convolution(inner, outer, 1), norm(outer)

    def forward(self, x):
        y = functional.relu(self.norm1(self.conv1(x)))
        y = functional.relu(self.norm2(self.conv2(y)))
        if self.shortcut is not None:
            x = self.shortcut(x)
        return functional.relu(x + self.norm3(self.conv3(y)))


class ResNet50(nn.Module):
    """`keras_bar.models.ResNet50`."""

    def __init__(self, channels=3, classes=11, narrow=1.0):
        super().__init__()
        inputs = max(1, round(64 / narrow))
        self.stem = Convolution(channels, inputs, 7, 2)
        self.norm = norm(inputs)
        blocks = []
        for width, count in ((64, 3), (128, 4), (256, 6), (512, 3)):
            inner = max(1, round(width / narrow))
            outer = max(1, round(4 * width / narrow))
            for block in range(count):
                stride = 2 if block == 0 and width > 64 else 1
                blocks.append(
                    Bottleneck(inputs, inner, outer, stride, block == 0)
                )
                inputs = outer
        self.blocks = nn.Sequential(*blocks)
        self.classifier = nn.Linear(inputs, classes)

    def forward(self, x):
        x = functional.relu(self.norm(self.stem(x)))
        x = functional.max_pool2d(x, 3, 2, 1)
        return self.classifier(self.blocks(x).mean((2, 3)))


def flops(network, shape):
    """2 x multiply-adds of convolutions and dense layers for one image of a
    shape `(channels, height, width)`, as `keras_bar.measure_cost` counts."""
    total = 0

    def count(layer, inputs, output):
        nonlocal total
        places = output[0, 0].numel() if output.dim() == 4 else 1
        total += 2 * layer.weight.numel() * places

    hooks = [
        x.register_forward_hook(count)
        for x in network.modules()
        if isinstance(x, nn.Conv2d | nn.Linear)
    ]
    training = network.training
    with torch.no_grad():
        network.eval()(torch.zeros(1, *shape))
    network.train(training)
    for hook in hooks:
        hook.remove()
    return total


def copy_weights(model, network):
    """Copies the weights of a Keras WideResNet into that of torch."""
    names = {"stem": "stem_conv", "norm": "head_norm"}
    blocks = sorted(
        {x.name.rsplit("_", 1)[0] for x in model.layers if "_block" in x.name}
    )
    parts = ("norm1", "shortcut", "conv1", "norm2", "conv2")
    for i, block in enumerate(blocks):
        names |= {f"blocks.{i}.{x}": f"{block}_{x}" for x in parts}
    modules = dict(network.named_modules())
    names["classifier"] = "classifier"
    for name, layer in names.items():
        if name not in modules:
            continue  # The block has no shortcut.
        weights = [
            torch.tensor(x) for x in model.get_layer(layer).get_weights()
        ]
        module = modules[name]
        with torch.no_grad():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.copy_(weights[0])
                module.bias.copy_(weights[1])
                module.running_mean.copy_(weights[2])
                module.running_var.copy_(weights[3])
            elif isinstance(module, nn.Linear):
                module.weight.copy_(weights[0].T)
                module.bias.copy_(weights[1])
            else:
                module.weight.copy_(weights[0].permute(3, 2, 0, 1))


def pruner(method, network, shape):
    """The pruner of torch-pruning for a method, `"magnitude"`, `"taylor"` or
    `"group norm"`, with the settings that its authors recommend: layers of the
    same kind are ranked together."""
    importance, kind = {
        "magnitude": (
            torch_pruning.importance.GroupMagnitudeImportance(p=2),
            torch_pruning.pruner.BasePruner,
        ),
        "taylor": (
            torch_pruning.importance.GroupTaylorImportance(),
            torch_pruning.pruner.BasePruner,
        ),
        "group norm": (
            torch_pruning.importance.GroupMagnitudeImportance(p=2),
            torch_pruning.pruner.GroupNormPruner,
        ),
    }[method]
    return kind(
        network,
        torch.zeros(1, *shape),
        importance=importance,
        global_pruning=True,
        isomorphic=True,
        pruning_ratio=1.0,
        max_pruning_ratio=MOST_REMOVED,
        iterative_steps=STEPS,
        ignored_layers=[network.classifier],
    )


def prune(pruning, network, shape, target, loss=None):
    """Prunes step by step until a network has at most the FLOPs `target`.

    Args:
        pruning: What `pruner` returned.
        network: The network.
        shape: Shape of an image, channels first.
        target: The FLOPs.
        loss: A loss, whose gradients the Taylor criterion needs.
    """
    network.zero_grad()
    if loss is not None:
        loss.backward()
    while flops(network, shape) > target:
        if pruning.current_step >= STEPS:
            raise RuntimeError("torch-pruning cannot reach the FLOPs")
        pruning.step()
    network.zero_grad()
    return network


def write_onnx(network, shape, path):
    """Writes a network as ONNX, for batches of any size."""
    for layer in network.modules():
        if isinstance(layer, Convolution):
            layer.symmetric = True
    torch.onnx.export(
        network.eval(),
        (torch.zeros(1, *shape),),
        str(path),
        input_names=["input"],
        dynamic_axes={"input": {0: "batch"}},
        dynamo=False,
    )


def numpy_logits(network, x):
    """Logits for images with channels last, an array."""
    with torch.no_grad():
        x = torch.tensor(keras.ops.convert_to_numpy(x)).permute(0, 3, 1, 2)
        return network.eval()(x).numpy()
