"""A composition of two by handle: one deployment calls another, which has no route of its own.

fngw deploy examples/compose.py
curl -d 'the quick brown fox' http://localhost:8000/summary
"""

import fngw


@fngw.deployment(route_prefix=None)
class Counter:
    def words(self, text):
        return len(text.split())

    def letters(self, text):
        return sum(map(str.isalpha, text))


@fngw.deployment(name="summary", init_args=(Counter.get_handle(),))
class Summary:
    def __init__(self, counter):
        self.counter = counter

    async def __call__(self, request):
        text = (await request.body()).decode()
        words, letters = self.counter.words.remote(text), self.counter.letters.remote(text)
        return {"words": await words, "letters": await letters}
