"""Checks for a GPU that is at hand for minutes, in order of worth, each within its own time.

    python -m benchmarks.gpu --minutes 9 --cifar cifar10-jpeg.tar.xz --out results
    python -m benchmarks.gpu.page results/results.jsonl       writes docs/gpu.md and docs/gpu.jsonl
    python -m benchmarks.gpu --plan                           times estimated from operations
    python -m benchmarks.gpu --tiny --device cpu              all of it in a minute, to rehearse

It needs a checkout and the library's packages, neither DVC nor Prefect nor MLflow. Every check is a
process of its own, so that one that crashes or hangs costs its own time alone; each result is
written to ``results.jsonl`` as soon as it is known.

The check of language models takes an archive, which may come in parts of any size, and the package
transformers; without it a small network of its own learns about people who do not exist:

    python -m tasks fetch
    tar -chz -C own smollm2 -C ../downloads tofu | split -b 60MB - language.part-
    python -m benchmarks.gpu --only language --language language.part-* --out results

A check is a file in ``benchmarks/gpu/checks``, found by its name, which offers
    ``PLACE``: checks run in this order;
    ``SHARE``: of the minutes; what a check leaves goes to those after it;
    ``PHOTOGRAPHS``: whether it needs CIFAR-10, which is unpacked beside the checks before;
    ``plan()``: ``Work`` that it does, with estimated times;
    ``run(lab)``: yields results, dicts for JSON, as they become known;
    ``page(found)``: its section of docs/gpu.md, from its own results.
"""

from time import time

BEGIN = time()  # before what takes seconds to import
