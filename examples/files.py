"""A route prefix: one deployment answers for everything below ``/files``, and streams what it answers.

fngw deploy examples/files.py
curl http://localhost:8000/files/2024/report.txt
"""

import fngw


@fngw.deployment(name="archive", route_prefix="/files")
class Archive:
    async def __call__(self, request):
        below = request.url.path[len(request.scope["root_path"]) :]
        return self.lines(below)

    async def lines(self, path):
        for number in range(1, 4):
            yield f"line {number} of {path}\n"
