"""The command voxmlx-convert: from any published layout of a Voxtral model to MLX weights."""
