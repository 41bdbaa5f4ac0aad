"""Recipes for the figures and tables of Local Contrastive Flow."""
