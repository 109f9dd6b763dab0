"""Pruning in one cut."""

from collections.abc import Iterable
from collections.abc import Iterator
from typing import Any

import keras

from keras_bar.analysis.trace import trace
from keras_bar.baselines import one_shot
from keras_bar.baselines import weight_magnitude
from keras_bar.budget import alignment
from keras_bar.budget import feasibility
from keras_bar.budget import selection
from keras_bar.compaction import compact
from keras_bar.costs import Limits
from keras_bar.pruning import allocation
from keras_bar.pruning import samples
from keras_bar.pruning.refitting import refit


def prune(
    model: keras.Model,
    budget: float,
    metric: str = "volume",
    data: Any = None,
    *,
    inputs: Any = None,
    connectivity: str = "regular",
    skip: str | Iterable[str] = (),
    align: int = 1,
) -> keras.Model:
    """Cuts a trained model down to a budget, once, without training.

    Every gated layer keeps the channels with the largest filters: under a
    budget of FLOPs about the same share of each layer, under one of volume or
    parameters larger shares of the layers where these cost less. Under a
    latency, residual branches that do not pay are removed. With `data`,
    the rest is refitted to the full model: from the inputs to the outputs, each
    kernel is solved by least squares for the response that the full model has
    to the same samples, and the statistics of each batch normalization change
    with those of what it reads. That needs no labels. It takes as long as some
    inferences of the full model on these samples, whose activations are held in
    memory. Then train the result with a plain `fit`, or a
    `keras_bar.distillation.Distiller` whose teacher is `model`.

    `keras_bar.callbacks.BudgetRegularizer` prunes while it trains, and lets the
    loss choose between the layers.

    Args:
        model: Built `keras.Model`, trained. It stays unchanged.
        budget: Float in (0, 1], the fraction of the model's cost that may
            remain; or a number above 1, in units of the metric.
        metric: `"volume"`, `"flops"`, `"params"`, `"memory"`, or a
            `keras_bar.Latency`.
        data: Some hundred inputs like those of training: an array or a
            structure of arrays, `(x, y)`, or batches as `fit` takes them.
            Targets are ignored. At most 512 samples are used; a warning tells
            if they are too few for a layer. None leaves the weights of
            the kept channels as they are.
        inputs: Structure of `keras.Input` for a subclassed model, as in
            `keras_bar.gate`.
        connectivity: `"regular"` or `"mixed"`, as in `keras_bar.gate`.
        skip: Names of layers that keep all channels; no branch that contains
            one is removed.
        align: Integer; every layer of at least as many channels keeps a
            multiple of it, or all, within the budget. Kernels that compute
            channels in blocks, such as those of 8 or 16, waste nothing then.

    Returns:
        A Functional `keras.Model`, compact, connected and within the budget.

    Raises:
        ValueError: If an argument is wrong, nothing in the model can be
            pruned, the budget is too small for any connected network, or the
            data do not fit the model.

    Example:

    >>> model = keras_bar.models.WideResNet(8, 0.5, (8, 8, 1))
    >>> images = np.random.default_rng(0).random((64, 8, 8, 1), "float32")
    >>> small = keras_bar.prune(model, 1 / 4, "flops", images)
    >>> full, left = map(keras_bar.measure_cost, (model, small))
    >>> left.flops <= full.flops / 4
    True

    References:

    - [ThiNet](https://arxiv.org/abs/1707.06342) (Luo et al., 2017) and
      [Channel Pruning for Accelerating Very Deep Neural Networks](
      https://arxiv.org/abs/1707.06168) (He et al., 2017): least squares for
      the kernels behind removed channels.
    - [EagleEye](https://arxiv.org/abs/2007.02491) (Li et al., 2020): new
      statistics of batch normalization after a cut.
    """
    if isinstance(skip, Iterator):
        skip = tuple(skip)
    selection.check_budget_argument(budget, metric)
    alignment.check_align(align)
    graph = trace(model, inputs)
    one_shot.check_ungated(graph)
    taken = None if data is None else samples.take(data, graph)
    student, cost_model, target, _, groups = one_shot.prepare(
        model,
        budget,
        metric,
        inputs=inputs,
        connectivity=connectivity,
        skip=skip,
    )
    feasibility.warn_uncounted(cost_model, metric, model.name)
    scores = {key: weight_magnitude(x) for key, x in groups.items()}
    limits = Limits(((metric, target),))
    alignment.check_possible(cost_model, limits, align)
    masks = allocation.allocate(cost_model, metric, target, scores, align, skip)
    if taken is None:
        for key, mask in masks.items():
            key.set_alive(mask)
    else:
        refit(cost_model.analysis, masks, taken)
    return compact(student)
