"""Recipes for the figures and tables of The Velocity Deficit."""
