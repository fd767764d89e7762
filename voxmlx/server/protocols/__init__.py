"""WebSocket dialects as state machines: frames and news in, actions out.

No sockets, no clocks, no engine: what a dialect wants done it returns as actions, and whoever
drives it carries them out in order.
"""
