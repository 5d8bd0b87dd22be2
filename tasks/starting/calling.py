"""How ``python -m MODULE`` is called."""

from argparse import ArgumentParser, RawDescriptionHelpFormatter
from pathlib import Path


def parser(module: str, about: str | None) -> ArgumentParser:
    """about: the module's docstring, which ``--help`` shows as it stands."""
    return ArgumentParser(
        prog=f"python -m {module}",
        description=about,
        formatter_class=RawDescriptionHelpFormatter,
    )


def with_file(settings: Path | None) -> str:
    """What an error begins with where a file of settings was given: values stand there as well."""
    return f", with {settings}" if settings else ""
