"""Transcription over HTTP and WebSocket. All async code of the package is here; it calls no MLX."""
