"""The Vision Transformer (Dosovitskiy et al. 2020): the model, its weights, and their names."""
