"""The functions of TensorFlow and PyTorch that a graph may contain, by name.

A file that is loaded names functions. No others than those in these tables are
looked up, so that it cannot run one that reads or writes files, or loads code,
such as `tensorflow.load_op_library` or `torch.load`. All are functions of
their arguments: none draws noise, or keeps a state.
"""

import functools
import importlib
import inspect
import itertools
from typing import Any

import keras
import numpy as np

# Names by module. These multiply no matrices: they work elementwise, reduce,
# or move numbers.
MOVING = {
    "tensorflow": {
        "": (
            "abs acos acosh add add_n argmax argmin argsort asin asinh atan "
            "atan2 atanh batch_to_space broadcast_to cast ceil clip_by_norm "
            "clip_by_value concat convert_to_tensor cos cosh cumsum divide "
            "ensure_shape equal exp expand_dims fill floor gather gather_nd "
            "greater greater_equal identity less less_equal logical_and "
            "logical_not logical_or maximum minimum multiply negative norm "
            "not_equal one_hot ones_like pad pow range rank realdiv "
            "reduce_all reduce_any reduce_logsumexp reduce_max reduce_mean "
            "reduce_min reduce_prod reduce_sum repeat reshape reverse roll "
            "round shape sigmoid sign sin sinh size slice sort space_to_batch "
            "split sqrt square squared_difference squeeze stack stop_gradient "
            "strided_slice subtract tan tanh tile transpose truediv unstack "
            "where zeros_like"
        ),
        "nn": (
            "avg_pool avg_pool1d avg_pool2d avg_pool3d batch_normalization "
            "bias_add crelu depth_to_space dilation2d elu gelu l2_normalize "
            "leaky_relu local_response_normalization log_softmax max_pool "
            "max_pool1d max_pool2d max_pool3d moments relu relu6 selu sigmoid "
            "silu softmax softplus softsign space_to_depth tanh top_k"
        ),
        "math": (
            "divide_no_nan erf expm1 l2_normalize log log1p log_sigmoid "
            "multiply_no_nan reciprocal reduce_std reduce_variance rsqrt "
            "softplus top_k xlogy"
        ),
        "image": (
            "adjust_brightness adjust_contrast central_crop "
            "crop_to_bounding_box extract_patches flip_left_right "
            "flip_up_down pad_to_bounding_box per_image_standardization "
            "resize resize_area resize_bicubic resize_bilinear resize_images "
            "resize_nearest_neighbor resize_with_crop_or_pad rot90 transpose"
        ),
    },
    "torch": {
        "": (
            "abs absolute add amax amin argmax argmin asin asinh atan atanh "
            "broadcast_to cat ceil celu channel_shuffle chunk clamp clamp_max "
            "clamp_min clip clone concat concatenate cos cosh cumsum detach "
            "div divide eq erf exp expm1 flatten flip floor gather ge greater "
            "gt index_select le lerp less log log10 log1p log2 log_softmax "
            "logical_and logical_not logical_or logsumexp lt masked_fill max "
            "maximum mean min minimum moveaxis movedim mul multiply "
            "nan_to_num narrow ne neg negative norm ones_like permute "
            "pixel_shuffle pixel_unshuffle pow prod ravel reciprocal relu "
            "repeat_interleave reshape roll rot90 round rsqrt select selu "
            "sigmoid sign sin sinh softmax split sqrt square squeeze stack "
            "std sub subtract sum swapaxes swapdims take_along_dim tan tanh "
            "tile topk transpose tril triu true_divide unbind unflatten "
            "unsqueeze var where zeros_like"
        ),
        "nn.functional": (
            "adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d "
            "adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d "
            "avg_pool1d avg_pool2d avg_pool3d celu channel_shuffle elu fold "
            "gelu glu grid_sample group_norm hardshrink hardsigmoid hardswish "
            "hardtanh interpolate layer_norm leaky_relu local_response_norm "
            "log_softmax logsigmoid lp_pool1d lp_pool2d max_pool1d max_pool2d "
            "max_pool3d mish normalize one_hot pad pixel_shuffle "
            "pixel_unshuffle prelu relu relu6 rms_norm selu sigmoid silu "
            "softmax softmin softplus softshrink softsign tanh tanhshrink "
            "threshold unfold"
        ),
    },
}
# These convolve or multiply matrices, and no cost counts how much.
MULTIPLYING = {
    "tensorflow": {
        "": "einsum matmul tensordot",
        "linalg": "einsum matmul matvec tensordot",
        "nn": (
            "atrous_conv2d conv1d conv1d_transpose conv2d conv2d_transpose "
            "conv3d conv3d_transpose conv_transpose convolution "
            "depthwise_conv2d separable_conv2d"
        ),
    },
    "torch": {
        "": (
            "addmm baddbmm bmm conv1d conv2d conv3d conv_transpose1d "
            "conv_transpose2d conv_transpose3d dot einsum inner matmul mm mv "
            "outer tensordot"
        ),
        "nn.functional": (
            "affine_grid bilinear conv1d conv2d conv3d conv_transpose1d "
            "conv_transpose2d conv_transpose3d linear "
            "scaled_dot_product_attention"
        ),
    },
}
# Modules that repeat the others with functions of older versions, which newer
# ones call.
_OLDER = {"tensorflow": "compat.v1", "torch": ""}


def _names(tables):
    """The full names in a table, those of older versions last."""
    backend = keras.backend.backend()
    for older in dict.fromkeys(("", _OLDER.get(backend, ""))):
        for module, names in tables.get(backend, {}).items():
            for name in names.split():
                yield ".".join(filter(None, (backend, older, module, name)))


@functools.cache
def _multiplying():
    return frozenset(_names(MULTIPLYING))


@functools.cache
def known():
    """Dict from the full name of a function to the function."""
    names = itertools.chain(_names(MOVING), _names(MULTIPLYING))
    found = {name: _attribute(name) for name in names}
    return {name: x for name, x in found.items() if callable(x)}


def _attribute(name):
    """The attribute with a full name, or None."""
    package, *path = name.split(".")
    found: Any = importlib.import_module(package)
    for part in path:
        found = getattr(found, part, None)
    return found


@functools.cache
def _names_by_function():
    names: dict = {}
    for name, function in known().items():
        names.setdefault(inspect.unwrap(function), name)
    return names


def name_of(function):
    """The full name of a function of the backend; None if it is none of those
    that a graph may contain."""
    return _names_by_function().get(inspect.unwrap(function))


def find(name):
    """The function with a full name.

    Raises:
        ValueError: If it is none of those that a graph may contain.
    """
    function = known().get(name)
    if function is None:
        backend = keras.backend.backend()
        raise ValueError(
            "A graph cannot contain this function. Expected one of the "
            "functions of arrays that `keras_bar.layers.backend_names` lists "
            f"for the backend {backend!r}. Received: {name!r}"
        )
    return function


def may_multiply(name):
    """Whether a function with a full name may multiply matrices."""
    return name in _multiplying()


def dtype_of(x):
    """The name of a type of numbers, of the backend or NumPy; None if this is
    none."""
    kinds: list[type] = [np.dtype]
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        kinds.append(tf.DType)
    elif backend == "torch":
        import torch

        kinds.append(torch.dtype)
    is_type = isinstance(x, type) and issubclass(x, np.generic)
    if is_type or isinstance(x, tuple(kinds)):
        return keras.backend.standardize_dtype(x)
    return None


def dtype_named(name):
    """The type of numbers of the backend that has a name.

    Raises:
        ValueError: If this is no name of a type.
    """
    name = keras.backend.standardize_dtype(name)
    if keras.backend.backend() == "torch":
        import torch

        return getattr(torch, name)
    return name
