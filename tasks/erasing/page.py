"""A certificate as an HTML page that needs no network."""

from pathlib import Path
from typing import Any


def page(content: dict[str, Any]) -> str:
    """content: the statement."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["clock"] = lambda time: time.replace("T", " ").replace("+00:00", " UTC")
    said = content["predicate"]
    judged = [step for step in said["tried"] if step["step"] == "unlearned"]
    return environment.get_template("certificate.html.j2").render(
        said=said, subject=content["subject"][0], judged=judged, last=judged[-1] if judged else None
    )
