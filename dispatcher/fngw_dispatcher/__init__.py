"""The dispatcher: sends queued calls through the gateway, hundreds at a time, and writes down how they end.

``python -m fngw_dispatcher``. Several share the work; they meet in Redis. See ``docs/architecture/dispatcher.md``.
"""
