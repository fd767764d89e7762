"""Other programs for the same network, each in an environment of its own, to compare with."""
