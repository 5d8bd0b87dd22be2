"""Is influence any good, and would a perfect one help? Both against networks trained for it.

    python -m benchmarks.quality                       writes docs/influence-quality.md
    python -m benchmarks.quality --minutes 3           stops after three, goes on when called again
    python -m benchmarks.quality --cifar cifar10-jpeg.tar.xz   with photographs, an hour more
    python -m benchmarks.quality --only biographies    one setting; the rest of the page stays

``truth``: many networks on random parts of the training set say what each sample is worth.
``estimators``: what influence and others say of one network, with the time that they take.
``oracle``: methods that are handed the truth as weights, against those that are not.
``page``: the tables. What was computed lies in ``.cells/quality`` and is not computed again.
"""
