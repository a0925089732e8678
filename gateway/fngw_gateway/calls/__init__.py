"""Calls that can wait, over HTTP: how they are asked for and taken in, looked at, and answered.

``prefer``    reads ``Prefer`` (RFC 7240)
``wishes``    reads the ``Fngw-*`` headers of a call
``reception`` takes calls in
``answers``   replays results
``pages``     ``/-/calls``
"""
