"""Build the documentation as a site: ``python3 deploy/docs.py``.

It makes an environment from ``deploy/docs.lock`` (once; this needs a package index), collects the
pages, has Sphinx build them, and checks every link. Then it needs no network. The site is
``deploy/docs/_build/html/index.html``: a browser opens it as a file, search included.

The pages are ``deploy/docs/``, README, the notebooks as they are committed, and the documents of
the other folders. Each keeps its place, so that a link between two documents leads to the same one
on GitHub and in the site. A link to any other file of the repository leads to its source: to GitHub
if a workflow builds the site, else to a copy of the file in the site.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import bootstrap

ROOT = bootstrap.ROOT
PAGES = ROOT / "deploy" / "docs"
BUILD = PAGES / "_build"
VENV = BUILD / "venv"
PYTHON = VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
LOCK = ROOT / "deploy" / "docs.lock"
SOURCE = BUILD / "source"
SITE = BUILD / "html"

# Documents of other folders that are pages. What is not here is linked as source.
DOCUMENTS = (
    "README.md", ".github/CONTRIBUTING.md", ".github/SECURITY.md", "mousetrap/*.md", "tests/*.md",
    "notebooks/*.ipynb",
)  # fmt: skip
PICTURES = ("notebooks/pictures/*",)
LINK = re.compile(r"(!?\[(?:[^\]\[]|\[[^\]]*\])*\]\()([^)\s#]*)(#[^)\s]*)?(\))")
FENCE = re.compile(r"(^ *(?:```|~~~).*?^ *(?:```|~~~) *$)", re.MULTILINE | re.DOTALL)


def main() -> int:
    """Build the site and check its links; the exit code is 1 if a page or a link is wrong."""
    parser = argparse.ArgumentParser(
        description=__doc__.partition("\n\n")[2],
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--clean", action="store_true", help="build every page again")
    arguments = parser.parse_args()
    make_environment()
    started = time.monotonic()
    if arguments.clean:
        shutil.rmtree(SITE, ignore_errors=True)
        shutil.rmtree(BUILD / "doctrees", ignore_errors=True)
    stage()
    if build() != 0:
        return 1
    pages, links, external, dead = check_links(SITE)
    (BUILD / "external-links.txt").write_text("".join(f"{each}\n" for each in sorted(external)))
    for line in dead:
        print(f"dead link: {line}")
    seconds = time.monotonic() - started
    print(f"{pages} pages, {links} links within the site, {len(dead)} of them dead; "
          f"{len(external)} to other places, not tried ({BUILD / 'external-links.txt'}); "
          f"{seconds:.0f} s\n{SITE / 'index.html'}")  # fmt: skip
    return 1 if dead else 0


def make_environment() -> None:
    """Make the environment of Sphinx from the lock, checked by hash, unless that is done."""
    stamp = VENV / "mousetrap.stamp"
    wanted = hashlib.sha256(LOCK.read_bytes() + str(sys.version_info[:2]).encode()).hexdigest()
    if stamp.is_file() and stamp.read_text() == wanted:
        return
    bootstrap.say(f"installing what builds the documentation, from deploy/{LOCK.name} (once)")
    subprocess.run([sys.executable, "-m", "venv", "--clear", str(VENV)], check=True)
    install = [str(PYTHON), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    exact = ["--require-hashes", "--no-deps", "--only-binary", ":all:", "-r", str(LOCK)]
    subprocess.run([*install, *exact], check=True)
    stamp.write_text(wanted)


# ---- the pages ---------------------------------------------------------------------------------


def places() -> dict[Path, Path]:
    """Return where each page goes: its path in the repository, and in the source of the site."""
    found = {
        path.relative_to(ROOT): path.relative_to(PAGES)
        for path in PAGES.rglob("*.md")
        if BUILD not in path.parents
    }
    for pattern in (*DOCUMENTS, *PICTURES):
        for path in sorted(ROOT.glob(pattern)):
            place = path.relative_to(ROOT)
            # A name with a dot in front is hidden on some servers.
            found[place] = Path(str(place).removeprefix("."))
    return found


def stage() -> None:
    """Copy all pages to one folder, with links that are right there."""
    shutil.rmtree(SOURCE, ignore_errors=True)
    shutil.copytree(PAGES, SOURCE, ignore=shutil.ignore_patterns("_build", "__pycache__", "*.md"))
    all_places = places()
    for path, place in all_places.items():
        target = SOURCE / place
        target.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".ipynb":
            target.write_text(_notebook((ROOT / path).read_text("utf-8"), path, all_places))
        elif path.suffix == ".md":
            target.write_text(
                with_links((ROOT / path).read_text("utf-8"), path, all_places), "utf-8"
            )
        else:
            shutil.copyfile(ROOT / path, target)


def _notebook(text: str, path: Path, all_places: dict[Path, Path]) -> str:
    """Return the notebook with the links of its Markdown cells changed."""
    notebook = json.loads(text)
    for cell in notebook["cells"]:
        if cell["cell_type"] == "markdown":
            cell["source"] = with_links("".join(cell["source"]), path, all_places)
    return json.dumps(notebook, ensure_ascii=True)


def with_links(text: str, path: Path, all_places: dict[Path, Path]) -> str:
    """Return Markdown whose links lead to the same documents in the site, or to the source."""

    def link(found: re.Match[str]) -> str:
        begin, file, anchor, end = found[1], found[2], found[3] or "", found[4]
        if not file or urlsplit(file).scheme:
            return found[0]
        target = Path(os.path.normpath(path.parent / unquote(file)))
        if target in all_places:
            return f"{begin}{_relative(all_places[target], all_places[path])}{anchor}{end}"
        if not (ROOT / target).exists():
            raise SystemExit(f"{path}: the link {file} leads nowhere")
        if address := repository():
            return f"{begin}{address}/blob/main/{target.as_posix()}{anchor}{end}"
        if (ROOT / target).is_dir():
            return begin[1:].removesuffix("](")
        copy = Path("source") / target
        if copy.suffix in (".md", ".ipynb"):  # else Sphinx takes it for a page
            copy = copy.with_name(f"{copy.name}.txt")
        (SOURCE / copy).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / target, SOURCE / copy)
        return f"{begin}{_relative(copy, all_places[path])}{end}"

    parts = FENCE.split(text)  # every second part is a code block
    parts[::2] = [LINK.sub(link, part) for part in parts[::2]]
    return "".join(parts)


def _relative(target: Path, page: Path) -> str:
    return Path(os.path.relpath(target, page.parent)).as_posix()


def repository() -> str:
    """Return the address of the repository; empty if no workflow of GitHub builds the site."""
    server, name = os.environ.get("GITHUB_SERVER_URL"), os.environ.get("GITHUB_REPOSITORY")
    return f"{server}/{name}" if server and name else ""


# ---- the site ----------------------------------------------------------------------------------


def build() -> int:
    """Run Sphinx; each warning is an error, but all of them are shown."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [
        str(PYTHON), "-m", "sphinx", "-W", "--keep-going", "-q", "-j", "2", "-b", "html",
        "-d", str(BUILD / "doctrees"), str(SOURCE), str(SITE),
    ]  # fmt: skip
    return subprocess.run(command, env=environment, check=False).returncode


class _Page(HTMLParser):
    """The links and the anchors of a page."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.links: list[str] = []
        self.anchors: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note what the element refers to, and by which name others refer to it."""
        del tag
        for name, value in attrs:
            if name in ("href", "src") and value:
                self.links.append(value)
            elif name in ("id", "name") and value:
                self.anchors.add(value)


def check_links(site: Path) -> tuple[int, int, set[str], list[str]]:
    """Check every link of every page without a network.

    Returns the number of pages and of links within the site, the addresses of other places, and a
    line for each link that leads nowhere.
    """
    pages = {}
    for path in sorted(site.rglob("*.html")):
        pages[path] = _Page()
        pages[path].feed(path.read_text("utf-8"))
    count, external, dead = 0, set(), []
    for path, page in pages.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme in ("data", "mailto", "javascript"):
                continue
            if parts.scheme or parts.netloc:
                external.add(link)
                continue
            count += 1
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            anchors = pages[target].anchors if target in pages else None
            is_dead = not target.exists() or (
                parts.fragment and anchors is not None and unquote(parts.fragment) not in anchors
            )
            if is_dead:
                dead.append(f"{path.relative_to(site)}: {link}")
    return len(pages), count, external, dead


if __name__ == "__main__":
    sys.exit(main())
