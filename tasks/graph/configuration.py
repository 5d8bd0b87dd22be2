"""DVC's configuration of workspaces that belong to a clone."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tasks.files import artifacts


def configure_as(root: Path, folder: Path) -> None:
    """Give ``folder`` the cache, remotes and page of plots of the clone ``root``, without git.

    What the clone keeps in ``config.local``, such as passwords, is for its owner's eyes alone here
    as well; what DVC reads for a user or a machine is not copied.
    """
    from dvc.config import Config

    clone = Config(str(root / ".dvc"))
    core = {"no_scm": "true", "analytics": "false", "check_update": "false"}
    if remote := clone["core"].get("remote"):
        core["remote"] = remote
    cache = {"dir": str(clone["cache"].get("dir") or root / ".dvc" / "cache")}
    page = clone["plots"].get("html_template")  # without it plots need a network
    plots = {"html_template": str((root / ".dvc" / page).resolve())} if page else {}
    shared, private = (_remotes(clone.load_one(level)) for level in ("repo", "local"))
    sections = {"core": core, "plots": plots, "cache": cache} | shared
    artifacts.write_text(folder / ".dvc" / "config", _text(sections))
    local = folder / ".dvc" / "config.local"
    local.unlink(missing_ok=True)
    local.touch(mode=0o600)
    local.write_text(_text(private), encoding="utf-8")


def _remotes(config: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    return {
        f'remote "{name}"': {key: str(value) for key, value in options.items()}
        for name, options in config["remote"].items()
    }


def _text(sections: dict[str, dict[str, str]]) -> str:
    from configobj import ConfigObj  # type: ignore[import-untyped]

    return "\n".join(ConfigObj(sections).write()) + "\n"
