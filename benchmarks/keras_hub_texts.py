"""Encoders and decoders of text of keras-hub, small and with random weights."""

from benchmarks.keras_hub_backbones import backbone

# Words of a sentence.
STEPS = 32
WORDS = 1000
SIZES = {
    "vocabulary_size": WORDS,
    "num_layers": 4,
    "hidden_dim": 192,
    "intermediate_dim": 768,
}


def encoder(kind, **settings):
    """One that has the usual arguments."""
    return backbone(
        kind, **{**SIZES, "num_heads": 3, "max_sequence_length": 64, **settings}
    )


def decoder(kind, queries=4, keys=2, **settings):
    """One with fewer heads of keys than of queries."""
    return backbone(
        kind,
        **{
            **SIZES,
            "num_query_heads": queries,
            "num_key_value_heads": keys,
            **settings,
        },
    )


TEXTS = {
    "Albert": lambda: encoder(
        "AlbertBackbone", num_segments=2, embedding_dim=64
    ),
    "Bart": lambda: encoder("BartBackbone"),
    "Bert": lambda: encoder("BertBackbone", num_segments=2),
    "Bloom": lambda: backbone("BloomBackbone", **SIZES, num_heads=3),
    "DistilBert": lambda: encoder("DistilBertBackbone"),
    "Falcon": lambda: backbone(
        "FalconBackbone", **SIZES, num_attention_heads=3
    ),
    "GPT2": lambda: encoder("GPT2Backbone"),
    "Llama": lambda: decoder("LlamaBackbone"),
    "Mistral": lambda: decoder("MistralBackbone"),
    "OPT": lambda: encoder("OPTBackbone"),
    "Roberta": lambda: encoder("RobertaBackbone"),
    "XLMRoberta": lambda: encoder("XLMRobertaBackbone"),
}
