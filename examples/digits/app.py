"""Reads handwritten digits: scikit-learn, installed for this deployment alone, learns from its own data at start.

    fngw deploy examples/digits/app.py
    python examples/digits/ask.py

The replicas have scikit-learn; the machine that deploys needs none.
"""

import fngw


@fngw.deployment(pip="requirements.txt", num_cpus=1)
class Digits:
    """POST 8 rows of 8 numbers, 0 (white) to 16 (black), as JSON; the answer says which digit that is.

    Args:
        gamma: how far a single example reaches; see scikit-learn's support vector machines.
    """

    def __init__(self, gamma=0.001):
        from sklearn import datasets, svm

        images, labels = datasets.load_digits(return_X_y=True)
        self.unseen = images[1000:], labels[1000:]
        self.model = svm.SVC(gamma=gamma).fit(images[:1000], labels[:1000])

    async def __call__(self, request):
        rows = await request.json()
        return {"digit": self.read(rows)}

    def read(self, rows):
        pixels = [value for row in rows for value in row]
        return int(self.model.predict([pixels])[0])

    def example(self, number):
        """Return an image that the model has not learned from, and what it shows."""
        images, labels = self.unseen
        return images[number].reshape(8, 8).tolist(), int(labels[number])

    def accuracy(self):
        """Return the share of unseen images that are read rightly."""
        return float(self.model.score(*self.unseen))


if __name__ == "__main__":
    Digits.deploy()
