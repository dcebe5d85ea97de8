"""The Vision Transformer to read (Dosovitskiy et al. 2020): the model, its weights, and the names
of other libraries' weights.
"""
