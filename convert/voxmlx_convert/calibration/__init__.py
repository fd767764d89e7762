"""Fitting packed weights to what a model computes on speech, instead of to the weights alone."""
