"""How the tests share the cores."""

import atexit
import gc
import os
import sys
import tempfile

import pytest

if "PYTEST_XDIST_WORKER" in os.environ:
    # Processes that share two cores: a second thread in each would only wait.
    # Read when a library starts, here and in processes that a test starts.
    for name in (
        "TF_NUM_INTRAOP_THREADS",
        "TF_NUM_INTEROP_THREADS",
        "OMP_NUM_THREADS",  # Also torch's.
        "OPENBLAS_NUM_THREADS",
        "MKL_NUM_THREADS",
    ):
        os.environ.setdefault(name, "1")
    os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false")

if os.environ.get("KERAS_BACKEND") == "jax":
    # Short trainings take longer to compile than to run. Read when JAX starts.
    os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        # Many tests compile the same networks, in all processes of a run.
        _cache = tempfile.TemporaryDirectory(prefix="jax_cache_")
        atexit.register(_cache.cleanup)
        os.environ["JAX_COMPILATION_CACHE_DIR"] = _cache.name
        os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
        os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"

# The files that take longest, the longest first. Begun last, one would keep a
# single process busy when all others are done.
LONG = (
    "compacting_test.py",
    "compare_test.py",
    "optimizer_steps_test.py",
    "attention_test.py",
    "digits_test.py",
    "public_names_test.py",
    "tuning_test.py",
    "sensitivity_test.py",
    "paper_recipes_test.py",
    "wheel_test.py",
    "distribute_test.py",
    "datasets_test.py",
    "costs_test.py",
    "random_networks_test.py",
    "narrow_test.py",
    "small_images_test.py",
)


def pytest_collection_modifyitems(items):
    ranks = {name: rank for rank, name in enumerate(LONG)}
    items.sort(key=lambda item: ranks.get(item.path.name, len(LONG)))
    # What has been imported by now stays: no collection needs to look at it.
    # Layers are many small objects, which the default looks at all the time.
    gc.freeze()
    gc.set_threshold(10_000, 20, 10)
    if "tensorflow" in sys.modules:
        from tests.helpers import unoptimized

        unoptimized.install()


@pytest.fixture
def without_xla(monkeypatch):
    """Models whose `compile` says nothing of XLA are not compiled by it, which
    takes longer than the few steps of an example."""
    from tests.helpers import without_xla

    without_xla.install(monkeypatch.setattr)
