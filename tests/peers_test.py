"""Tests of the networks in torch with which the package is compared."""

import keras
import numpy as np
import pytest

import keras_bar

torch = pytest.importorskip("torch")
pytest.importorskip("torch_pruning")

from benchmarks import equal_flops  # noqa: E402
from benchmarks import peer_networks  # noqa: E402


@pytest.mark.parametrize("narrow", [1.0, 3.0])
def test_torch_computes_the_same(narrow):
    keras.utils.set_random_seed(0)
    model = keras_bar.models.WideResNet(10, 2, (8, 8, 1), narrow=narrow)
    for layer in model.layers:  # Statistics other than 0 and 1.
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.moving_mean.assign(0.1 + 0 * layer.moving_mean)
            layer.moving_variance.assign(1.5 + 0 * layer.moving_variance)
    network = peer_networks.WideResNet(10, 2, 1, narrow=narrow)
    peer_networks.copy_weights(model, network)
    x = np.random.default_rng(0).random((4, 8, 8, 1), "float32")
    np.testing.assert_allclose(
        peer_networks.numpy_logits(network, x),
        model.predict_on_batch(x),
        atol=1e-4,
    )
    assert peer_networks.flops(network, (1, 8, 8)) == equal_flops.keras_flops(
        model
    )


def test_resnet_has_the_same_flops():
    model = keras_bar.models.ResNet50((64, 64, 3), narrow=4)
    network = peer_networks.ResNet50(narrow=4)
    assert peer_networks.flops(network, (3, 64, 64)) == equal_flops.keras_flops(
        model
    )


@pytest.mark.parametrize("method", equal_flops.PEERS)
def test_pruning_reaches_the_flops(method):
    torch.manual_seed(0)
    network, shape = peer_networks.WideResNet(10, 2, 1), (1, 8, 8)
    target = peer_networks.flops(network, shape) / 4
    pruning = peer_networks.pruner(method, network, shape)
    loss = network(torch.randn(8, *shape)).square().mean()
    peer_networks.prune(pruning, network, shape, target, loss)
    assert 0.8 * target <= peer_networks.flops(network, shape) <= target
