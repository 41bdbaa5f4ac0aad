"""Recipes: one figure or table of a paper each, as a yaml and a py side by side."""
