"""Live streams: samples in, tokens and text out, without I/O and without threads."""
