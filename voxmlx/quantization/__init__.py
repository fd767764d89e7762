"""Low-bit weights: which modules, how many bits, and the packings of the field."""
