"""Model folders in and out: every published layout of the weights, one naming inside."""
