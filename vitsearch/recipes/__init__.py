"""Which index is built over the vectors: recipes as data, and the choice of one."""

from vitsearch.recipes.choose import RECALL, Choice, choose_recipe, predict
from vitsearch.recipes.recipe import Recipe, auto_lists, list_recipes, load_recipe, training_rows

__all__ = ["RECALL", "Choice", "Recipe", "auto_lists", "choose_recipe", "list_recipes", "load_recipe", "predict", "training_rows"]
