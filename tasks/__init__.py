"""One pipeline stage per file; ``python -m tasks STAGE [ITEM]`` runs it in the current folder."""
