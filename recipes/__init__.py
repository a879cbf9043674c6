"""Recipes: from nothing to the weights that wandlib ships."""
