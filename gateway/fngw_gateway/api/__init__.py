"""The control API under ``/-/api/v1``: what the SDK and the CLI talk to.

Never on the path of a request to a deployment: see ``fngw_gateway.app``.
"""

from fngw_gateway.api.application import create_api

__all__ = ["create_api"]
