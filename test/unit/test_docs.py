# SPDX-License-Identifier: Apache-2.0
import re
from pathlib import Path

from occupancy_nn_ros.cli.config_docs import parameters_page

ROOT = Path(__file__).parents[2]


def test_the_page_of_parameters_is_current():
    assert (ROOT / "docs" / "parameters.md").read_text() == parameters_page()


def test_links_between_pages_lead_somewhere():
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *(ROOT / "models").glob("*.md")]
    links = [
        (page, link) for page in pages for link in re.findall(r"\]\(([^)#]+)", page.read_text()) if "://" not in link
    ]
    assert len(links) > 5
    assert [f"{page.name}: {link}" for page, link in links if not (page.parent / link).exists()] == []
