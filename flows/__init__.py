"""Prefect flows: the order of the stages, and where they run. No tensors here."""

from flows.running.failures import say_plainly

say_plainly()  # here, as a flow is entered by command, by a worker and by another module
