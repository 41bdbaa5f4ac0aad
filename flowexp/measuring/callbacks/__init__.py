"""Monitors: when something is measured, and callbacks of training."""
