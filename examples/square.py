"""A function.

fngw deploy examples/square.py
curl 'http://localhost:8000/square?x=7'
"""

import fngw


@fngw.deployment
def square(request):
    x = float(request.query_params["x"])
    return {"x": x, "square": x * x}
