"""Shows the deployed ``Digits`` a few images that it has not seen, over HTTP.

Standard library and fngw alone: this runs where no scikit-learn is.
"""

import json
import urllib.request

import fngw

SHADES = " .:-=+*#%@"


def draw(rows):
    return "\n".join("".join(2 * SHADES[int(value * (len(SHADES) - 1) / 16)] for value in row) for row in rows)


def ask(url, rows):
    body = json.dumps(rows).encode()
    with urllib.request.urlopen(urllib.request.Request(url, body)) as answer:
        return json.load(answer)["digit"]


if __name__ == "__main__":
    digits = fngw.get_deployment("Digits")
    handle = digits.get_handle()
    for number in range(3):
        rows, label = handle.example.remote(number).result()
        print(draw(rows))
        print(f"read as {ask(digits.url, rows)}; it is a {label}\n")
    print(f"of all the unseen images, {handle.accuracy.remote().result():.1%} are read rightly")
