"""Scores of samples, curves over the noise level, and the callbacks that decide when each is measured."""
