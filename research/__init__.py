"""The lab notebook: ideas that were tried, and their page. Not part of the package."""
