"""Influence-guided machine unlearning: make a trained network forget chosen training samples.

Method: IMU, arXiv 2508.01620. The library needs torch, numpy, pandas and scikit-learn alone;
the pipeline around it lives in ``tasks`` and ``flows``.
"""
