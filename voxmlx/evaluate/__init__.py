"""Measuring a model: data sets, error rates with their uncertainty, and reports."""
