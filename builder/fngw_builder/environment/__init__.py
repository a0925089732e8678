"""What a deployment depends on: from requirements to a lock, and from a lock to a folder that Python runs from.

`requirements` reads what the user wrote; `solve` makes a `lock` of it, conda packages by `conda` and the rest by
`pypi`; the lock is what everything after is made of. `sources` says where packages come from, `target` what they
run on.

`stage` makes a folder of a lock: conda's part by `link`, pip's by `install`, byte-code by `bytecode`. `cache` keeps
what was downloaded below a size, and gives each build a folder of its own.
"""
