"""What lies outside `docs/` and belongs to the site: the changelog, what contributors are told.

Links that lead out of `docs/` on GitHub lead to their pages here.
"""

import re
from pathlib import Path, PurePosixPath

from sphinx.application import Sphinx

PAGES = {"CHANGELOG.md": "changelog", "CONTRIBUTING.md": "contributing"}
LINK = re.compile(r"(?<=\]\()(?P<path>[^)#:\s]+)(?P<anchor>#[^)\s]*)?(?=\))")


def within(root: Path, path: str, page: str) -> str:
    """Where a link of `path`, from the root of the clone, leads on the site, seen from `page`."""
    up = "../" * page.count("/")
    pure = PurePosixPath(path)
    if path.startswith("docs/"):
        return up + path.removeprefix("docs/")
    if path == "README.md":
        return f"{up}index.md"
    if path in PAGES:
        return f"{up}project/{PAGES[path]}.md"
    if path in {"examples", "examples/README.md"}:
        return f"{up}gallery/index.md"
    if pure.parent.name == "examples" and pure.suffix == ".py":
        return f"{up}gallery/{pure.stem}.md"
    raise ValueError(f"a link to {path} on {page}, for which the site has no page")


def relinked(root: Path, text: str, folder: str, page: str) -> str:
    """A page's text, written in `folder` of the clone, with the links that the site has."""

    def link(match: re.Match[str]) -> str:
        written = match["path"]
        if written.startswith(("images/", "../images/")):
            return match[0]
        absolute = (root / folder / written).resolve()
        if not absolute.exists():  # a page that is made by the build
            return match[0]
        target = within(root, absolute.relative_to(root.resolve()).as_posix(), page)
        return target + (match["anchor"] or "")

    return LINK.sub(link, text)


def read(app: Sphinx, page: str, content: list[str]) -> None:
    """Change the links of a page as it is read."""
    root = Path(app.srcdir).parent
    if not page.startswith(("project/", "gallery/")):
        folder = (PurePosixPath("docs") / page).parent.as_posix()
        content[0] = relinked(root, content[0], folder, page)


def write(app: Sphinx) -> None:
    """Write the pages that lie at the root of the clone."""
    docs, root = Path(app.srcdir), Path(app.srcdir).parent
    (docs / "project").mkdir(exist_ok=True)
    for name, page in PAGES.items():
        path, text = docs / "project" / f"{page}.md", (root / name).read_text(encoding="utf-8")
        text = relinked(root, text, ".", f"project/{page}")
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


def setup(app: Sphinx) -> dict[str, bool]:
    """Write before pages are looked for, change links as they are read."""
    app.connect("builder-inited", write)
    app.connect("source-read", read)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
