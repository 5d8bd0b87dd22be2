"""DVC's configuration of workspaces that belong to a clone."""

from pathlib import Path

from tasks.files import artifacts


def configure_as(root: Path, folder: Path) -> None:
    """Give ``folder`` the cache, remotes and page of plots of the clone ``root``, without git."""
    from configobj import ConfigObj  # type: ignore[import-untyped]
    from dvc.config import Config

    clone = Config(str(root / ".dvc"))
    core = {"no_scm": "true", "analytics": "false", "check_update": "false"}
    if remote := clone["core"].get("remote"):
        core["remote"] = remote
    page = clone["plots"].get("html_template")  # without it plots need a network
    plots = {"html_template": str((root / ".dvc" / page).resolve())} if page else {}
    lines = ConfigObj(
        {
            "core": core,
            "plots": plots,
            "cache": {"dir": str(clone["cache"].get("dir") or root / ".dvc" / "cache")},
            **{
                f'remote "{name}"': {key: str(value) for key, value in options.items()}
                for name, options in clone["remote"].items()
            },
        }
    ).write()
    artifacts.write_text(folder / ".dvc" / "config", "\n".join(lines) + "\n")
