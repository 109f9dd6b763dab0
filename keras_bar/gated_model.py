"""The class of models with gates."""

import keras


@keras.saving.register_keras_serializable("keras_bar")
class GatedModel(keras.Model):
    """A Functional model with gates, which is not for deployment.

    Exporters see operations and not layers, so no gate could refuse: a gated
    model has the size of the full one, whatever its gates have closed.
    """

    def export(self, filepath, format="tf_saved_model", **kwargs):
        raise ValueError(
            "A model with gates cannot be exported: its closed channels would "
            "still be computed. Expected the compact model, "
            "`keras_bar.compact(model)`, whose `export` writes it. "
            f"Received: {self.name!r} and format={format!r}"
        )
