"""How the tests share the cores."""

import os

if "PYTEST_XDIST_WORKER" in os.environ:
    # Processes that share two cores: a second thread in each would only wait.
    # Read when TensorFlow starts, here and in processes that a test starts.
    for name in ("TF_NUM_INTRAOP_THREADS", "OMP_NUM_THREADS"):
        os.environ.setdefault(name, "1")

# Trainings from end to end. Begun last, one would keep a single process busy
# when all others are done.
LONG = {
    "compare_test.py",
    "digits_test.py",
    "distribute_test.py",
    "fashion_mnist_test.py",
    "paper_recipes_test.py",
    "sensitivity_test.py",
    "tuner_test.py",
}


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: item.path.name not in LONG)
