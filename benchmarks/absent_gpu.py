"""Compiles for a GPU that is not there, and counts what it would do.

XLA needs a description of a GPU to compile for it, not the GPU. The plugin is
enough; neither a driver nor CUDA is necessary:

    pip install jax-cuda13-pjrt==0.10.2  # the version of JAX

Without the GPU, XLA cannot try which algorithm of cuDNN is fastest. All other
kernels are those of the program that runs on the GPU: for WideResNet-16-4 it
had 320 kernels without gates and 539 with a budget, on an H100 and here.
"""

import importlib.util
import math
import pathlib
import re

import jax
from jaxlib import xla_client

# As XLA describes it (`xla/backends/gpu/target_config/specs/h100_sxm.txtpb`).
H100 = """
gpu_device_info {
  cuda_compute_capability { major: 9 minor: 0 }
  threads_per_block_limit: 1024 threads_per_warp: 32
  shared_memory_per_block: 49152 shared_memory_per_block_optin: 232448
  shared_memory_per_core: 233472 threads_per_core_limit: 2048
  core_count: 132 fpus_per_core: 128 clock_rate_ghz: 1.98
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535
  block_dim_limit_z: 65535
  registers_per_core_limit: 65536 registers_per_block_limit: 65536
  memory_bandwidth: 3352320000000 l2_cache_size: 52428800
  device_memory_size: 84978434048
}
platform_name: "CUDA"
dnn_version_info { major: 9 minor: 10 patch: 0 }
device_description_str: "NVIDIA H100 80GB HBM3"
"""
# Instructions of a compiled program that are no kernels of their own.
FREE = {
    "parameter",
    "constant",
    "tuple",
    "get-tuple-element",
    "bitcast",
    "after-all",
}
SLICES = {"slice", "dynamic-slice", "gather"}
SIZES = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "f64": 8, "s64": 8}
INSTRUCTION = re.compile(
    r"^  (ROOT )?(%\S+) = (.*?) ([a-z][a-z0-9-]*)\((.*?)\)(?:,|$)(.*)$", re.M
)
NAME = re.compile(r"%[\w.\-]+")


def compile_for_h100(function, *arguments):
    """Compiles a function, whose first argument may be overwritten, for arrays
    like the arguments. It cannot be called."""
    sharding = jax.sharding.SingleDeviceSharding(_device())
    shapes = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding),
        arguments,
    )
    traced = jax.jit(function, donate_argnums=0).trace(*shapes)
    return traced.lower(lowering_platforms=("cuda",)).compile()


def _device():
    if not xla_client.pjrt_plugin_loaded("cuda"):
        # The plugin's own module refuses to load it without cuDNN.
        spec = importlib.util.find_spec("jax_plugins.xla_cuda13")
        if spec is None or spec.origin is None:
            raise SystemExit(
                "No plugin compiles for a GPU. Expected the package "
                f"jax-cuda13-pjrt=={jax.__version__}. Received: none"
            )
        path = pathlib.Path(spec.origin).with_name("xla_cuda_plugin.so")
        xla_client.load_pjrt_plugin_dynamically("cuda", str(path))
        xla_client.initialize_pjrt_plugin("cuda")
    topology = xla_client._xla.get_default_c_api_topology(
        "cuda", "h100", {"target_config": H100, "topology": "1x1x1"}
    )
    return topology._make_compile_only_devices()[0]


def count(program):
    """Counts the kernels of a compiled program.

    Args:
        program: String, its instructions.

    Returns:
        Pair of the number of kernels, and of the bytes that they read and
        write, integer.
    """
    functions = {
        name: body
        for name, body in re.findall(
            r"^(%[\w.\-]+) \(.*?$(.*?)^}", program, re.M | re.S
        )
    }
    sizes, kernels, total = {}, 0, 0
    entry = program[program.index("\nENTRY ") :]
    for _, name, kind, op, operands, rest in INSTRUCTION.findall(entry):
        sizes[name] = size(kind)
        if op in FREE or op.endswith("-done"):
            continue
        called = re.search(r"calls=(%[\w.\-]+)", rest)
        parts = _parts_read(functions[called.group(1)]) if called else {}
        kernels += 1
        total += sizes[name] + sum(
            parts.get(i, 1.0) * sizes.get(operand, 0)
            for i, operand in enumerate(NAME.findall(operands))
        )
    return kernels, round(total)


def size(kind):
    """Bytes of a value of a kind, such as `f32[2,3]`, or of a tuple."""
    return sum(
        SIZES.get(dtype, 4) * math.prod(int(n) for n in shape.split(",") if n)
        for dtype, shape in re.findall(r"\b([a-z]+\d*)\[([\d,]*)\]", kind)
    )


def _parts_read(body):
    """Dict from the index of a fused kernel's parameter to the part of it that
    the kernel reads: it computes no more than the slices it needs."""
    instructions = INSTRUCTION.findall(body)
    sizes = {name: size(kind) for _, name, kind, *_ in instructions}
    needed = dict.fromkeys(sizes, 0.0)
    for root, name, _, op, operands, _ in reversed(instructions):
        needed[name] = 1.0 if root else needed[name]
        for operand in NAME.findall(operands):
            part = needed[name]
            if op in SLICES:
                part *= min(sizes[name] / max(sizes[operand], 1), 1.0)
            needed[operand] = max(needed[operand], part)
    return {
        int(operands): needed[name]
        for _, name, _, op, operands, _ in instructions
        if op == "parameter"
    }
