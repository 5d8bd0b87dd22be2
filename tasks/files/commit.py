"""Which commit lies in a folder."""

import subprocess
from pathlib import Path


def git_tags(root: Path) -> dict[str, str]:
    """Commit and whether tracked files differ from it; {} outside a git repository."""

    def git(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True)

    commit = git("rev-parse", "HEAD")
    if commit.returncode:
        return {}
    # dvc.lock is written by the run itself and would make every run dirty.
    changed = git("status", "--porcelain", "--untracked-files=no", "--", ".", ":!dvc.lock")
    return {
        "git.commit": commit.stdout.strip(),
        "git.dirty": str(bool(changed.stdout.strip())).lower(),
    }
