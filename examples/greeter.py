"""A class with constructor arguments, served over HTTP and by handle.

fngw deploy examples/greeter.py
curl 'http://localhost:8000/Greeter?name=Ada'
"""

import fngw


@fngw.deployment(init_args=("Hello",), num_replicas=2)
class Greeter:
    def __init__(self, greeting, *, loud=False):
        self.greeting = greeting
        self.loud = loud

    async def __call__(self, request):
        """Answer an HTTP request (a Starlette Request)."""
        return self.greet(request.query_params.get("name", "world"))

    def greet(self, name):
        """Answer a call by handle: ``Greeter.get_handle().greet.remote("Ada")``."""
        text = f"{self.greeting}, {name}!"
        return text.upper() if self.loud else text


if __name__ == "__main__":
    Greeter.deploy("Good morning", loud=True)
    handle = Greeter.get_handle()
    print(handle.greet.remote("Ada").result())
