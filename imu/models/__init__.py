"""One network per file; a file offers ``Config`` and ``build(config, image, classes)``.

``image`` is the shape of one image: (channels, height, width). A file that says
``OBJECTIVE = "language"`` offers ``build(config, vocabulary)`` instead.
"""

from imu.models.common.head import (
    WITHOUT_HEAD,
    find_head,
    has_head,
    head,
    head_name,
    without_head,
)
from imu.models.common.modes import evaluating, only_trains, places, trainable

__all__ = [
    "WITHOUT_HEAD",
    "evaluating",
    "find_head",
    "has_head",
    "head",
    "head_name",
    "only_trains",
    "places",
    "trainable",
    "without_head",
]
