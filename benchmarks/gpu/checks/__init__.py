"""One check a file; what a file offers stands in ``benchmarks.gpu``."""
