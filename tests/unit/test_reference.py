"""Reference pages are generated, and current."""

import json
import re

from vidmill.api.reference import openapi_document
from vidmill.reference import settings_page, stale_pages
from vidmill.settings import Settings


def test_every_generated_page_is_what_the_code_says_today() -> None:
    assert stale_pages() == []


def test_every_setting_is_described() -> None:
    undescribed = [name for name, field in Settings.model_fields.items() if not field.description]

    assert undescribed == []
    assert all(f"VIDMILL_{name.upper()}" in settings_page() for name in Settings.model_fields)


def test_every_reference_in_the_openapi_document_leads_somewhere() -> None:
    doc = json.loads(openapi_document())
    named = {f"#/components/schemas/{name}" for name in doc["components"]["schemas"]}
    assert set(re.findall(r'"\$ref": "([^"]+)"', json.dumps(doc))) <= named
