"""Gates, half closes and compacts every model of `keras.applications`.

    python benchmarks/applications.py            # all 40
    python benchmarks/applications.py VGG16 ...  # some; other rows stay
    python benchmarks/applications.py --zoo      # those of kimm and keras-hub,
                                                 # which have to be installed

Writes `docs/applications.csv` and `docs/applications.md`, or `docs/zoo.csv` and
`docs/zoo.md`. Each model runs in a separate process, with random weights and
images as small as it allows; half of the channels of every gate are closed at
random, and the statistics of batch normalization are those of a batch of noise
afterwards. The gated and the compact model are saved, loaded, and compared with
what they were. FLOPs behind gates are those of the layers that lose channels:
with a gate, or whose channels follow those of others. FLOPs of the graph are
those of the convolutions and matrix products in the graph that the backend runs
for the compact model (`backend_flops.py`), relative to `measure_cost`.
"""

import argparse
import ast
import csv
import multiprocessing
import pathlib
import sys
import tempfile
import time

import keras
import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

import keras_bar
from benchmarks import zoo
from benchmarks.backend_flops import backend_flops
from keras_bar.layers import HardConcreteGate

FIELDS = {
    "model": "model",
    "gated": "layers with a gate",
    "gated_flops": "FLOPs behind gates",
    "params_before": "params before",
    "params_after": "after",
    "flops_left": "FLOPs left",
    "difference": "compact and hard-pruned differ by",
    "dtype": "computed in",
    "exact": "cost as predicted",
    "restored": "same after `.keras`",
    "graph_flops": "FLOPs of the graph / cost",
    "gate_s": "gate, s",
    "compact_s": "compact, s",
}
# Images by which statistics are set, and those of them that are compared.
IMAGES = 16
COMPARED = 4

# Relative difference of outputs that counts as equal in single precision.
TOLERANCE = 1e-4

# The first lines of a table.
TITLES = {
    "applications": (
        "# Every model of `keras.applications`",
        "",
        "`python benchmarks/applications.py` writes this table. Files of",
        "EfficientNetV2L are loaded with a higher `sys.setrecursionlimit`,",
        "because Keras follows its thousand layers in a row by recursion.",
        "`gate` takes 0.9 to 2.3 times, and `compact` 0.9 to 2.4 times as long",
        "as Keras takes to build a model (`benchmarks/compile_time.py`).",
    ),
    "zoo": (
        "# Models of other packages",
        "",
        "`python benchmarks/applications.py --zoo NAME ...` writes this table,",
        "for models of the packages kimm and keras-hub: those named, or all.",
        "The backbones of keras-hub are small ones. BLIP2, CLIP, MetaCLIP2,",
        "PARSeq and SigLIP are their encoders of images, and SAM's is ViTDet.",
        "DFine ends in front of its decoder, whose configuration does not",
        "describe all of its weights. DepthAnything resizes images by a",
        "function of the backend, which keeps channels apart: its file needs",
        "`import keras_bar`. Rotary positions mix the features of queries and",
        "keys, of which whole heads are pruned. FeaturePyramid has no layers;",
        "the encoders of Gemma3 and Gemma4 read any number of images, and",
        "SAM3's is no model of its own. Encoders and decoders of text are",
        "small ones, too, and read sentences of 32 words. Of T5's decoder a",
        "block stays whole, and Gemma's projections have equations that no",
        "rule knows. MobileNetV3W100Large of kimm 0.2.5 cannot be built with",
        "random weights. Rows were measured on machines of different speed;",
        "`benchmarks/compile_time.py` compares with building the model.",
        "",
    ),
}


def names():
    """The models of `keras.applications`."""
    return [x for x in dir(keras.applications) if x[0].isupper()]


def build(name):
    """A model with random weights, on small images."""
    keras.utils.set_random_seed(0)
    if "/" in name:
        return zoo.build(name)
    size = 75 if name.startswith(("Inception", "Xception")) else 64
    maker = getattr(keras.applications, name)
    return maker(
        weights=None,
        input_shape=(size, size, 3),
        classes=10,
        classifier_activation=None,
    )


def close_half(gated, seed=0):
    """Closes half of the channels of every gate, at random."""
    rng = np.random.default_rng(seed)
    for layer in gated.layers:
        if isinstance(layer, HardConcreteGate):
            channels = layer.channels
            alive = np.arange(channels) < max(1, channels // 2)
            layer.set_alive(rng.permutation(alive))


def recalibrate(model, x):
    """Sets the statistics of batch normalization to those of a batch. With the
    initial ones a pruned network may be nearly constant, and the comparison
    with another one would say nothing."""
    norms = [
        x
        for x in model.layers
        if isinstance(x, keras.layers.BatchNormalization)
    ]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    model(x, training=True)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


def share_behind_gates(full, predicted):
    """Fraction of the FLOPs in layers that lose channels.

    Args:
        full: `Cost` of the model.
        predicted: `Cost` of the gated model, some of whose gates are closed.
    """
    pruned = {x.name for x in predicted.layers if x.channels[0] < x.channels[1]}
    kept = {x.name for x in predicted.layers} - pruned
    behind = sum(x.flops for x in full.layers if x.name not in kept)
    return behind / full.flops


def samples(model):
    """Random images, or random words without padding. Many models scale values
    from 0 to 255 themselves; smaller ones would be nearly constant then, and
    rounding would count for more than the images do."""
    rng = np.random.default_rng(0)
    if isinstance(model.input, keras.KerasTensor):
        shape = (IMAGES, *model.input_shape[1:])
        return rng.uniform(0, 255, shape).astype("float32")
    words = rng.integers(1, zoo.WORDS, (IMAGES, zoo.STEPS)).astype("int32")
    return {
        name: words if "token" in name else np.full_like(words, "mask" in name)
        for name in model.input
    }


def infer(model, x):
    """Outputs of a model in inference, as an array."""
    return keras.ops.convert_to_numpy(model(x, training=False))


def is_restored(model, x):
    """Whether a model computes exactly the same after a `.keras` file."""
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/model.keras"
        model.save(path)
        # Keras follows a chain of layers by recursion.
        sys.setrecursionlimit(10_000)
        loaded = keras.models.load_model(path)
    return np.array_equal(infer(model, x), infer(loaded, x))


def count(model):
    """Number of weights, without the states of random numbers."""
    return sum(
        int(np.prod(x.shape))
        for x in model.weights
        if "seed_generator" not in x.path
    )


def measure(name):
    """One row of the table. The rounding errors of a deep network may exceed
    the tolerance; it is compared in double precision then."""
    row = measure_once(name)
    if row["difference"] > TOLERANCE:
        policy = keras.config.dtype_policy()
        keras.config.set_dtype_policy("float64")
        try:
            difference = measure_once(name)["difference"]
        finally:
            keras.config.set_dtype_policy(policy)
        row |= {"difference": difference, "dtype": "float64"}
    return row


def measure_once(name):
    """One row of the table, in Keras's default precision."""
    model = build(name)
    start = time.process_time()
    gated = keras_bar.gate(model)
    gate_s = time.process_time() - start
    full = keras_bar.measure_cost(model)
    behind = set(keras_bar.explain(gated).gated)
    close_half(gated)
    x = samples(model)
    recalibrate(gated, x)
    x = keras.tree.map_structure(lambda array: array[:COMPARED], x)
    predicted = keras_bar.measure_cost(gated)
    start = time.process_time()
    small = keras_bar.compact(gated)
    compact_s = time.process_time() - start
    cost = keras_bar.measure_cost(small)
    hard, found = infer(keras_bar.hard_prune(gated), x), infer(small, x)
    triple = [(c.volume, c.flops, c.params) for c in (predicted, cost)]
    return {
        "model": name,
        "gated": len(behind),
        "gated_flops": share_behind_gates(full, predicted),
        "params_before": full.params,
        "params_after": cost.params,
        "flops_left": cost.flops / full.flops,
        "difference": float(np.abs(hard - found).max() / np.abs(hard).max()),
        "dtype": keras.config.dtype_policy().name,
        "exact": triple[0] == triple[1] and cost.params == count(small),
        "restored": is_restored(gated, x) and is_restored(small, x),
        "graph_flops": backend_flops(small) / cost.flops,
        "gate_s": gate_s,
        "compact_s": compact_s,
    }


def read(path):
    """Dict from model to its row in the existing table."""
    if not path.exists():
        return {}
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        row.setdefault("dtype", "float32")
        for key in FIELDS.keys() - {"model", "dtype"}:
            row[key] = ast.literal_eval(row.get(key) or "None")
    return {row["model"]: row for row in rows}


def write(rows, path):
    """Writes the table as CSV, to a path, and as Markdown."""
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, FIELDS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    lines = [
        *TITLES[path.stem],
        "Models have random weights and small images; half of the channels of",
        "each gate are closed at random. FLOPs behind gates are those of the",
        "layers that lose channels. FLOPs of the graph are those of",
        "convolutions",
        f"and matrix products in {keras.backend.backend()}, counted for the",
        "compact model. Seconds are those of one processor, with a single",
        "thread.",
        "",
        "| " + " | ".join(FIELDS.values()) + " |",
        "|" + " --- |" * len(FIELDS),
    ]
    lines += ["| " + " | ".join(map(str, cells(x))) + " |" for x in rows]
    path.with_suffix(".md").write_text("\n".join(lines) + "\n")


def told(answer):
    """A cell of the table; empty if nothing was measured."""
    return {True: "yes", False: "no", None: ""}[answer]


def cells(row):
    """Formats a row of the table."""
    return (
        row["model"],
        row["gated"],
        f"{row['gated_flops']:.0%}",
        f"{row['params_before']:,}",
        f"{row['params_after']:,}",
        f"{row['flops_left']:.0%}",
        f"{row['difference']:.0e}",
        row["dtype"],
        told(row["exact"]),
        told(row["restored"]),
        "" if row["graph_flops"] is None else f"{row['graph_flops']:.4f}",
        f"{row['gate_s']:.1f}",
        f"{row['compact_s']:.1f}",
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("models", nargs="*", help="by default all of them")
    parser.add_argument(
        "--zoo",
        action="store_true",
        help="models of the packages kimm and keras-hub",
    )
    parser.add_argument(
        "--output", type=pathlib.Path, default=pathlib.Path("docs")
    )
    arguments = parser.parse_args()
    kind, known = ("zoo", zoo) if arguments.zoo else ("applications", None)
    path = arguments.output / f"{kind}.csv"
    rows = read(path) if arguments.models else {}
    everything = known.names() if known else names()
    for name in arguments.models or everything:
        # A process per model releases its memory before the next one.
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            try:
                rows[name] = pool.apply(measure, [name])
            except Exception as error:  # The other models matter, too.
                print(name, type(error).__name__, error, flush=True)
                continue
        print(*cells(rows[name]), flush=True)
        write([rows[x] for x in sorted(rows)], path)


if __name__ == "__main__":
    main()
