"""The model that ships inside the package: a hybrid Vision Transformer and a sentence encoder on
ONNX Runtime.

``encoder`` runs it (no torch); ``network`` and ``surface`` are the same weights in torch, for
training and explanations. See MODEL_CARD.md.
"""

LANGUAGES = ("en", "es")  # that its texts may be in
