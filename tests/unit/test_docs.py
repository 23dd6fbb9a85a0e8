"""The documentation hangs together: every page is found, every link leads somewhere."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])

_CODE = re.compile(r"```.*?```|`[^`\n]*`", re.DOTALL)
_LINK = re.compile(r"\[[^]]*\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+ +(.+?) *$", re.MULTILINE)
_FENCED = re.compile(r"```.*?```", re.DOTALL)


def links(page: Path) -> list[str]:
    """Return the links of *page* that lead into the repository."""
    found = _LINK.findall(_CODE.sub("", page.read_text(encoding="utf-8")))
    return [link for link in found if not re.match(r"[a-z][a-z+.-]*:", link)]


def target(page: Path, link: str) -> Path:
    """Return the file that *link* leads to."""
    path = link.partition("#")[0]
    found = (page.parent / path).resolve() if path else page
    index = found / "README.md"
    return index if index.exists() else found


def anchors(page: Path) -> set[str]:
    """Return the names that headings of *page* have on a code host."""
    headings = _HEADING.findall(_FENCED.sub("", page.read_text(encoding="utf-8")))
    names = [re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings]
    return {*names, *(f"{name}-{number}" for name in names for number in range(1, 9))}


def reachable(start: Path) -> set[Path]:
    """Return the pages that links lead to from *start*."""
    found, left = {start}, [start]
    while left:
        page = left.pop()
        new = {target(page, link) for link in links(page)} & set(PAGES) - found
        found |= new
        left += new
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_to_something(page: Path) -> None:
    broken = [link for link in links(page) if not target(page, link).exists()]

    assert broken == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_into_a_page_names_a_heading(page: Path) -> None:
    into = [link for link in links(page) if "#" in link and target(page, link).suffix == ".md"]
    broken = [link for link in into if link.partition("#")[2] not in anchors(target(page, link))]

    assert broken == []


def test_every_page_is_found_from_the_first_one() -> None:
    assert set(PAGES) - reachable(ROOT / "README.md") == set()


def test_the_contents_list_every_page_but_decisions() -> None:
    contents = ROOT / "docs" / "README.md"
    listed = {target(contents, link) for link in links(contents)}
    pages = set((ROOT / "docs").glob("*.md")) - {contents}

    assert pages - listed == set()
