"""A certificate as an HTML page that needs no network."""

from pathlib import Path
from typing import Any

from tasks.pages.templates import environment


def page(content: dict[str, Any]) -> str:
    """content: the statement."""
    templates = environment(Path(__file__).parent)
    templates.filters["clock"] = lambda time: time.replace("T", " ").replace("+00:00", " UTC")
    said = content["predicate"]
    judged = [step for step in said["tried"] if step["step"] == "unlearned"]
    return templates.get_template("certificate.html.j2").render(
        said=said, subject=content["subject"][0], judged=judged, last=judged[-1] if judged else None
    )
