"""Files of rows, whatever bytes are in them."""

import csv
import io

from hypothesis import given, settings
from hypothesis import strategies as st

from vidmill.api.body import DECODER
from vidmill.domain.errors import InvalidRequest
from vidmill.services.batch_files import RowFile, read_csv, read_json_lines

ROWS_MAX = 50

plain = st.characters(exclude_categories=["Cs", "Cc"])
prompts = st.text(plain, min_size=1, max_size=30).map(str.strip).filter(bool)


def csv_of(data: bytes) -> RowFile | InvalidRequest:
    try:
        return read_csv(data, rows_max=ROWS_MAX)
    except InvalidRequest as refusal:
        return refusal


def json_lines_of(data: bytes) -> RowFile | InvalidRequest:
    try:
        return read_json_lines(data, rows_max=ROWS_MAX, decode=DECODER.decode)
    except InvalidRequest as refusal:
        return refusal


@given(st.binary(max_size=400) | st.binary(max_size=300).map(lambda tail: b"prompt,seed\n" + tail))
@settings(max_examples=300, deadline=None)
def test_any_bytes_are_rows_of_a_csv_or_refused_with_a_reason(data: bytes) -> None:
    found = csv_of(data)
    if isinstance(found, RowFile):
        lines = [row.line for row in found.rows]
        assert lines == sorted(lines)
        assert len(lines) <= ROWS_MAX
    else:
        assert all(problem.code and problem.message for problem in found.problems)


@given(st.binary(max_size=400))
@settings(max_examples=300, deadline=None)
def test_any_bytes_are_json_lines_or_refused_with_a_reason(data: bytes) -> None:
    found = json_lines_of(data)
    if isinstance(found, RowFile):
        assert len(found.rows) <= ROWS_MAX
    else:
        assert all(problem.code and problem.message for problem in found.problems)


@given(
    st.lists(prompts, min_size=1, max_size=10),
    st.sampled_from([",", ";", "\t"]),
    st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
)
@settings(max_examples=150, deadline=None)
def test_what_a_spreadsheet_writes_is_read_as_it_was(
    texts: list[str], delimiter: str, encoding: str
) -> None:
    file = io.StringIO()
    writer = csv.writer(file, delimiter=delimiter)
    writer.writerows([["prompt", "seed"], *([text, str(n)] for n, text in enumerate(texts))])

    found = csv_of(file.getvalue().encode(encoding))

    assert isinstance(found, RowFile)
    assert [row.value for row in found.rows] == [
        {"prompt": text, "seed": number} for number, text in enumerate(texts)
    ]
