"""Accuracy at equal FLOPs: keras_bar, torch-pruning and narrowing.

The networks are WideResNet-10-1 for handwritten digits of 8x8 pixels. One
teacher, trained in Keras, is pruned by every method; its copy in torch gives
the same answers. All methods see the same batches in the same order, take the
same number of steps of Adam with the same learning rates, and distill the
teacher with the loss `(1 - a) CE + a T^2 KL`, a = 0.9 and T = 4:

- mixed, regular: `BudgetRegularizer` for 2/3 of the steps, compaction,
  and the rest of the steps;
- one cut: `keras_bar.prune` with refitting, and all steps;
- narrowed: all steps, from scratch;
- magnitude, taylor: torch-pruning's cut of the teacher, and all steps;
- group norm: 1/3 of the steps with its regularizer, its cut, and the rest.
"""

import keras
import numpy as np
import torch
from torch.nn import functional

import keras_bar
from benchmarks import equal_flops
from benchmarks import measuring
from benchmarks import peer_networks
from keras_bar import in_memory

RESULTS = measuring.RESULTS / "peers_accuracy.csv"
METHODS = ("mixed", "regular", "one cut", "narrowed", *equal_flops.PEERS)
BATCH, HIGH, LOW = 32, 1e-3, 1e-4
ALPHA, TEMPERATURE = 0.9, 4.0
SHAPE = (1, 8, 8)


class Batches(keras.utils.PyDataset):
    """The same batches for both frameworks: every epoch has an order of its
    own, which depends on its number and the seed."""

    def __init__(self, data, first, seed):
        super().__init__()
        self.data, self.seed, self.epoch = data, seed, first

    def __len__(self):
        return len(self.data.x) // BATCH

    def __getitem__(self, i):
        rng = np.random.default_rng([self.seed, self.epoch])
        chosen = rng.permutation(len(self.data.x))[i * BATCH : (i + 1) * BATCH]
        return self.data.x[chosen], self.data.y[chosen]

    def on_epoch_end(self):
        self.epoch += 1


def run(settings):
    """Adds the rows that the table lacks."""
    rows = measuring.read(RESULTS)
    done = {(x["seed"], x["share"], x["method"]) for x in rows}
    data = in_memory.load_digits()
    for seed in settings.seeds:
        cases = [
            (share, method)
            for share in settings.shares
            for method in METHODS
            if (str(seed), f"{share:.4g}", method) not in done
        ]
        teacher = train_teacher(data, seed, settings.epochs) if cases else None
        for share, method in cases:
            trial = Trial(data, teacher, seed, settings.epochs, share)
            accuracy, cost, weights = trial.run(method)
            row = {
                "seed": seed,
                "share": f"{share:.4g}",
                "method": method,
                "accuracy": f"{accuracy:.4f}",
                "teacher": f"{accuracy_of(teacher, data):.4f}",
                "flops": cost,
                "flops_share": f"{cost / equal_flops.keras_flops(teacher):.4f}",
                "params": weights,
                "epochs": settings.epochs,
            }
            measuring.append(RESULTS, [row])
            print(row, flush=True)


def build(narrow=1.0):
    return keras_bar.models.WideResNet(10, 1, (8, 8, 1), narrow=narrow)


def train_teacher(data, seed, epochs):
    keras.utils.set_random_seed(seed)
    teacher = build()
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    for part, rate in ((2 / 3, HIGH), (1 / 3, LOW)):
        teacher.compile(keras.optimizers.Adam(rate), loss)
        batches = Batches(data, first=0, seed=seed)
        teacher.fit(batches, epochs=round(part * epochs), verbose=0)
    return teacher


def accuracy_of(model, data):
    logits = model.predict_on_batch(data.x_test)
    return float(np.mean(logits.argmax(-1) == data.y_test))


class Trial:
    """The training of one network.

    Args:
        data: `InMemoryData`.
        teacher: Trained `keras.Model`.
        seed: Integer.
        epochs: Integer, of which the last third has the low learning rate.
        share: Float, the part of the teacher's FLOPs.
    """

    def __init__(self, data, teacher, seed, epochs, share):
        self.data, self.teacher, self.seed = data, teacher, seed
        self.epochs, self.share = epochs, share
        self.high = round(2 / 3 * epochs)
        self.target = share * equal_flops.keras_flops(teacher)

    def run(self, method):
        """The accuracy, the FLOPs and the number of weights."""
        keras.utils.set_random_seed(self.seed)
        if method in equal_flops.PEERS:
            return self._torch(method)
        if method in ("mixed", "regular"):
            small = self._pruned(method)
            first = self.high
        else:
            small, first = self._smaller(method), 0
            self.distill(small, 0, self.high, HIGH)
            first = self.high
        self.distill(small, first, self.epochs - first, LOW)
        weights = small.count_params()
        return (
            accuracy_of(small, self.data),
            equal_flops.keras_flops(small),
            weights,
        )

    def _pruned(self, connectivity):
        student = keras_bar.gate(
            self.teacher, connectivity=connectivity, seed=self.seed
        )
        budget = keras_bar.callbacks.BudgetRegularizer(self.share, "flops")
        self.distill(student, 0, self.high, HIGH, [budget])
        return keras_bar.compact(student, connectivity=connectivity)

    def _smaller(self, method):
        if method == "narrowed":
            return equal_flops.nearest(
                build, equal_flops.keras_flops, self.target, 1.0, 16.0
            )
        return keras_bar.prune(
            self.teacher, self.share, "flops", self.data.x[:512]
        )

    def distill(self, student, first, epochs, rate, callbacks=()):
        """Trains a network of Keras for some epochs."""
        distiller = keras_bar.distillation.Distiller(
            self.teacher,
            student,
            keras_bar.distillation.LogitsDistillation(temperature=TEMPERATURE),
            student_loss_weight=1 - ALPHA,
        )
        distiller.compile(
            keras.optimizers.Adam(rate),
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        )
        batches = Batches(self.data, first, self.seed)
        distiller.fit(
            batches, epochs=epochs, verbose=0, callbacks=list(callbacks)
        )

    def _torch(self, method):
        torch.manual_seed(self.seed)
        network = peer_networks.WideResNet(10, 1, channels=1)
        peer_networks.copy_weights(self.teacher, network)
        x, y = Batches(self.data, 0, self.seed)[0]
        difference = peer_networks.numpy_logits(network, x)
        difference = difference - self.teacher.predict_on_batch(x)
        assert np.abs(difference).max() < 1e-3, "torch computes something else"
        pruning = peer_networks.pruner(method, network, SHAPE)
        before = 0
        if method == "group norm":
            before = self.high // 2
            self._distill_torch(network, 0, before, HIGH, pruning)
        loss = functional.cross_entropy(network.eval()(_tensor(x)), _labels(y))
        peer_networks.prune(pruning, network, SHAPE, self.target, loss)
        self._distill_torch(network, before, self.high - before, HIGH)
        self._distill_torch(network, self.high, self.epochs - self.high, LOW)
        logits = peer_networks.numpy_logits(network, self.data.x_test)
        accuracy = float(np.mean(logits.argmax(-1) == self.data.y_test))
        # Statistics count, as in Keras; the numbers of batches do not.
        weights = sum(
            x.numel() for x in network.state_dict().values() if x.dim()
        )
        return accuracy, peer_networks.flops(network, SHAPE), weights

    def _distill_torch(self, network, first, epochs, rate, pruning=None):
        """The same as `distill`, in torch."""
        # Keras divides by sqrt(v) + 1e-7, torch by default by sqrt(v) + 1e-8.
        optimizer = torch.optim.Adam(network.parameters(), rate, eps=1e-7)
        batches = Batches(self.data, first, self.seed)
        for _ in range(epochs):
            network.train()
            if pruning is not None:
                pruning.update_regularizer()
            for i in range(len(batches)):
                x, y = batches[i]
                optimizer.zero_grad()
                loss = self._loss(network(_tensor(x)), x, y)
                loss.backward()
                if pruning is not None:
                    pruning.regularize(network)
                optimizer.step()
            batches.on_epoch_end()

    def _loss(self, logits, x, y):
        answers = torch.tensor(self.teacher.predict_on_batch(x))
        soft = functional.kl_div(
            functional.log_softmax(logits / TEMPERATURE, -1),
            functional.softmax(answers / TEMPERATURE, -1),
            reduction="batchmean",
        )
        hard = functional.cross_entropy(logits, _labels(y))
        return (1 - ALPHA) * hard + ALPHA * TEMPERATURE**2 * soft


def _tensor(x):
    return torch.tensor(x).permute(0, 3, 1, 2)


def _labels(y):
    return torch.tensor(y.astype("int64"))
