"""CLIP and SigLIP towers in ONNX Runtime: sessions, the encoder, the export, and the cache of
exports.
"""
