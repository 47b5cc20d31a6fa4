"""What MkDocs calls while it builds the site."""

from __future__ import annotations

import logging
import posixpath
import re
from pathlib import Path
from typing import Any

log = logging.getLogger("mkdocs.hooks.repository")

_LINK = re.compile(r"(?<!!)\[([^\]]*)\]\((\.\./[^)\s#]*)\)")


def on_page_markdown(markdown: str, *, page: Any, config: Any, files: Any) -> str:
    """A link out of docs/ becomes one into the repository at ``repo_url``, or the path while there is no such address.

    On a code host the same link works as it stands. A target that does not exist ends a strict build. The changelog is
    the repository's.
    """
    folder, root = posixpath.dirname(page.file.src_uri), Path(config.docs_dir).parent
    if page.file.src_uri == "changelog.md":
        markdown = (root / "CHANGELOG.md").read_text(encoding="utf-8").replace("](docs/", "](")

    def replace(match: re.Match[str]) -> str:
        text, target = match.groups()
        path = posixpath.normpath(posixpath.join("docs", folder, target))
        if path.startswith("docs/"):
            return match[0]
        if path.startswith("..") or not (root / path).exists():
            log.warning("%s links to %s, which is not in the repository", page.file.src_uri, target)
        if config.repo_url:
            return f"[{text}]({config.repo_url.rstrip('/')}/blob/main/{path})"
        return text if posixpath.basename(path) in text else f"{text} \\[`{path}`\\]"

    return _LINK.sub(replace, markdown)


def on_page_content(html: str, **_: Any) -> str:
    """A number and its interval stay on one line."""
    return html.replace(" ± ", "&nbsp;±&nbsp;")
