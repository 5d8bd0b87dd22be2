"""How ``python -m MODULE`` is called."""

from argparse import ArgumentParser, RawDescriptionHelpFormatter


def parser(module: str, about: str | None) -> ArgumentParser:
    """about: the module's docstring, which ``--help`` shows as it stands."""
    return ArgumentParser(
        prog=f"python -m {module}",
        description=about,
        formatter_class=RawDescriptionHelpFormatter,
    )
