"""An experiment: a key, with all that its training needs."""

import dataclasses
import functools
import importlib.util
import pathlib

import keras
import numpy as np

from keras_bar import distillation
from keras_bar import files
from keras_bar import runs
from recipes.data.registry import DATASETS
from recipes.experiment import phases
from recipes.experiment.key import ExperimentKey

CROSSENTROPY = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
# Words of the command line for what `compile` takes.
JITS = {"auto": "auto", "on": True, "off": False}
# Options that a sweep may draw; all others hold for a folder.
DRAWN = ("learning_rate", "weight_decay", "distillation_weight", "temperature")


@dataclasses.dataclass(frozen=True)
class TrainingOptions:
    """How experiments are trained: `scale` is a factor on the epochs of every
    phase, the low learning rate a tenth of `learning_rate`, the teacher's part
    of the loss `distillation_weight`, and the rest is the labels'; the folder
    `teachers` has full networks that were trained before."""

    scale: float = 1.0
    connectivity: str | None = None
    jit: object = False
    teachers: pathlib.Path | None = None
    learning_rate: float = 1e-3
    weight_decay: float = 5e-4
    distillation_weight: float = 0.9
    temperature: float = 4.0

    def adam(self, epochs, low, steps):
        """The optimizer of a training whose last `low` epochs are at the low
        rate."""
        rate = self.learning_rate
        if low:
            rate = keras.optimizers.schedules.PiecewiseConstantDecay(
                [max((epochs - low) * steps, 1)], [rate, rate / 10]
            )
        return keras.optimizers.Adam(rate, weight_decay=self.weight_decay)


class Experiment(runs.Run):
    """The training of a key on the images `data` of a data set, in a folder of
    its name in `output`, with options of which a sweep may have drawn some."""

    def __init__(
        self,
        key: ExperimentKey,
        dataset: str,
        data,
        options: TrainingOptions,
        output,
        drawn: dict | None = None,
    ):
        told = {"drawn": drawn} if drawn else {}
        settings = dataclasses.asdict(key) | told
        super().__init__(output / str(key), settings)
        self.key, self.dataset, self.data = key, dataset, data
        self.output, self._options = output, options
        tuned = {x: y for x, y in (drawn or {}).items() if x in DRAWN}
        self.options = dataclasses.replace(options, **tuned)

    def connectivity(self, metric=None):
        """The connectivity that was asked for, or by default the one that suits
        a metric, that of the key if it is None: regular under budgets of FLOPs,
        otherwise mixed (docs/mixed_connectivity.md)."""
        metric = metric or self.key.metric
        suits = "regular" if metric == "flops" else "mixed"
        return self.options.connectivity or suits

    def other(self, **changes):
        """An experiment whose key differs from this one's, with no options that
        were drawn."""
        key = dataclasses.replace(self.key, **changes)
        return Experiment(
            key, self.dataset, self.data, self._options, self.output
        )

    def phases(self, kind):
        """The `Phases` of a kind of method."""
        table = DATASETS[self.dataset].phases
        return phases.load(table, kind, self.options.scale)

    def build(self, narrow=1):
        """The network with random weights."""
        return DATASETS[self.dataset].networks[self.key.network](narrow=narrow)

    def full(self):
        """The experiment of the seed's full network."""
        return self.other(**dataclasses.asdict(self.key.teacher()))

    def teacher(self):
        """The full network of the seed, which serves all experiments."""
        full = self.full()
        keras.utils.set_random_seed(self.key.seed)
        make = full.train_full
        if folder := self._options.teachers:
            path = folder / str(full.key) / "teacher.keras"
            make = functools.partial(
                keras.models.load_model, path, compile=False
            )
        teacher = full.once("teacher", make)
        # Whether it was trained or loaded must not matter.
        keras.utils.set_random_seed(self.key.seed)
        return teacher

    def source(self, teacher):
        """The network that is pruned."""
        return self.build() if self.key.start == "scratch" else teacher

    def train_full(self, part="teacher", kind="full"):
        """The unpruned network, after the phases of a kind."""
        plan = self.phases(kind)
        model = self.build()
        model.compile(
            self.options.adam(plan.train, plan.low, self.data.steps),
            CROSSENTROPY,
            metrics=["accuracy"],
            jit_compile=self.options.jit,
        )
        self.train(part, model, plan.train)
        # Without the optimizer, which `clone_model` would take along: the file
        # has a third of the size.
        copy = type(model).from_config(model.get_config())
        copy.set_weights(model.get_weights())
        return copy

    def train(self, part, model, epochs, callbacks=(), data=None):
        """Trains a part on an order of images of its own."""
        data = data or self.data
        batches = data.batches([self.key.seed, *part.encode()])
        callbacks = [*callbacks, batches]
        if all(map(importlib.util.find_spec, ("tensorboard", "tensorflow"))):
            # TensorBoard makes a variable, which all hosts must do together.
            root = self.folder / ("" if self.hosts.is_chief else "unfinished")
            logs = root / "tensorboard" / part
            callbacks.append(
                keras.callbacks.TensorBoard(logs, write_graph=False)
            )
        self.fit(
            part,
            model,
            batches.dataset,
            epochs,
            callbacks,
            shuffle=False,
            validation_data=data.validation,
        )

    def distill(self, part, teacher, student, epochs, low=0, callbacks=()):
        """Trains a student by a teacher, `low` epochs of it at the low rate."""
        recorded = self.data.repeats
        optimizer = self.options.adam(epochs, low, self.data.steps)
        model = make_distiller(
            teacher, student, optimizer, self.options, recorded
        )
        data = self.answered(teacher) if recorded else self.data
        self.train(part, model, epochs, callbacks, data)
        return student

    def answered(self, teacher):
        """The images with the answers of the full network, which serve all
        experiments of its seed, too."""
        path = self.full().folder / "answers.npy"
        if self.hosts.is_chief and not path.exists():
            print("asking the teacher", flush=True)
            answers = self.data.ask(teacher)
            with files.replacing(path) as new:
                np.save(new, answers)
        self.hosts.wait_for_file(path)
        return self.data.answered(teacher, np.load(path))

    def finetune(self, teacher, small, kind="gates", more=0):
        """Trains the compact network, with `more` epochs at the high rate."""
        plan = self.phases(kind)
        epochs = plan.train + more
        return self.distill("finetune", teacher, small, epochs, plan.low)


def make_distiller(teacher, student, optimizer, options, recorded=False):
    """A compiled `Distiller` of two networks of logits; where the teacher's
    answers come with the targets, a `RecordedDistiller`."""
    kind = "RecordedDistiller" if recorded else "Distiller"
    model = getattr(distillation, kind)(
        teacher=teacher,
        student=student,
        distillation_losses=distillation.LogitsDistillation(
            temperature=options.temperature
        ),
        student_loss_weight=1 - options.distillation_weight,
    )
    model.compile(
        optimizer=optimizer,
        loss=CROSSENTROPY,
        metrics=["accuracy"],
        jit_compile=options.jit,
    )
    model.build(student.input_shape)  # So that a state can be loaded.
    return model
