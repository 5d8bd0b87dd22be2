"""A page of prose and tables in the style of the report."""

from html import escape
from pathlib import Path

HTML = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
<style>
{style}
</style>
</head>
<body><main class="prose">
{body}
</main></body>
</html>
"""


def page(title: str, text: str) -> str:
    """text: Markdown; HTML in it is shown as it is typed. The page needs no network."""
    from markdown_it import MarkdownIt

    body = MarkdownIt("commonmark", {"html": False}).enable("table").render(text)
    style = Path(__file__).with_name("report.css").read_text(encoding="utf-8")
    return HTML.format(title=escape(title), style=style, body=body)
