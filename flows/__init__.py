"""Prefect flows: the order of the stages, and where they run. No tensors here."""
