"""Rows out of files as people's programs really write them."""

import csv
import io
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vidmill.api.body import DECODER
from vidmill.domain.errors import InvalidRequest
from vidmill.services.batch_files import GUESSED, RawRow, RowFile, read_csv, read_items
from vidmill.services.batch_files import read_json_lines as read_lines


def read(text: str | bytes, *, rows_max: int = 100, encoding: str | None = None) -> RowFile:
    data = text.encode() if isinstance(text, str) else text
    return read_csv(data, rows_max=rows_max, encoding=encoding)


def read_jsonl(data: bytes, *, rows_max: int = 100) -> RowFile:
    return read_lines(data, rows_max=rows_max, decode=DECODER.decode)


def values(file: RowFile) -> list[Any]:
    return [row.value for row in file.rows]


def faults(row: RawRow) -> list[tuple[str, str]]:
    return [(problem.pointer, problem.code) for problem in row.problems]


def refusal(data: str | bytes, **given: Any) -> list[tuple[str, str]]:
    with pytest.raises(InvalidRequest) as caught:
        read(data, **given)
    return [(problem.pointer, problem.code) for problem in caught.value.problems]


def test_cells_become_what_the_field_is_in_json() -> None:
    file = read(
        "prompt,duration,seed,enable_physics,cache,frame_rate,metadata.team,custom_id\n"
        "a red ball,5.5,7,TRUE,no,24,blue,00123\n"
    )

    assert values(file) == [
        {
            "prompt": "a red ball",
            "duration": 5.5,
            "seed": 7,
            "enable_physics": True,
            "cache": False,
            "frame_rate": 24,
            "metadata": {"team": "blue"},
            "custom_id": "00123",
        }
    ]


def test_an_empty_cell_is_a_field_that_was_left_out() -> None:
    assert values(read("prompt,seed,style\na ball,, \n")) == [{"prompt": "a ball"}]


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_the_separator_is_found_by_the_header(delimiter: str) -> None:
    file = read(f'prompt{delimiter}seed\n"a, b; c\td"{delimiter}7\n')

    assert (file.delimiter, values(file)) == (delimiter, [{"prompt": "a, b; c\td", "seed": 7}])


def test_a_decimal_comma_is_read_where_semicolons_separate() -> None:
    assert values(read("prompt;duration\nein Ball;3,5\n")) == [
        {"prompt": "ein Ball", "duration": 3.5}
    ]


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("prompt\n赤いボールが青い床で弾む\n", "cp932"),
        ("custom_id,prompt\n商品1,白い猫が走る\n", "cp932"),
        ("prompt\n红色的球在蓝色地板上弹跳\n", "gb18030"),
        ("编号,prompt\n商品1,白猫在奔跑\n", "gb18030"),
        ("prompt\nein Café mit Bäumen und Straßen\n", "cp1252"),
        ("prompt\n빨간 공이 파란 바닥에서 튄다\n", "cp949"),
    ],
)
def test_the_code_page_of_a_spreadsheet_is_guessed_and_said_to_be_a_guess(
    text: str, encoding: str
) -> None:
    file = read(text.encode(encoding))

    assert (file.encoding, file.is_guess) == (encoding, True)
    assert dict(file.rows[0].value)["prompt"] in text  # type: ignore[call-overload]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_byte_order_mark_says_the_encoding(encoding: str) -> None:
    file = read("prompt\n赤いボール\n".encode(encoding))

    assert (file.is_guess, values(file)) == (False, [{"prompt": "赤いボール"}])


@pytest.mark.parametrize("said", ["utf-8", "UTF8", "utf-8-sig"])
def test_a_mark_before_text_that_is_said_to_be_utf8_is_no_part_of_the_header(said: str) -> None:
    file = read("prompt\n赤い\n".encode("utf-8-sig"), encoding=said)

    assert values(file) == [{"prompt": "赤い"}]


def test_the_encoding_somebody_chose_is_taken() -> None:
    file = read("prompt\n商品\n".encode("cp932"), encoding="shift_jis")

    assert (file.is_guess, values(file)) == (False, [{"prompt": "商品"}])


@pytest.mark.parametrize("encoding", ["klingon", "rot13", "punycode", "zip", "\x00"])
def test_only_encodings_of_spreadsheets_are_taken(encoding: str) -> None:
    assert refusal("prompt\nx\n", encoding=encoding) == [("#/encoding", "not_offered")]


def test_bytes_that_the_chosen_encoding_lacks_are_told_by_line() -> None:
    assert refusal(b"prompt\nball\n\xff\n", encoding="utf-8") == [("#/line/3", "encoding")]


def test_lines_are_those_an_editor_shows() -> None:
    file = read('\nprompt\n"two\nlines"\n\nlast\n')

    assert [(row.line, row.value) for row in file.rows] == [
        (3, {"prompt": "two\nlines"}),
        (6, {"prompt": "last"}),
    ]


def test_one_cell_too_many_spoils_its_row_alone() -> None:
    file = read("prompt,seed\nred, round,7\nblue,8\n")

    assert [faults(row) for row in file.rows] == [[("#", "width")], []]
    assert file.rows[1].value == {"prompt": "blue", "seed": 8}


@pytest.mark.parametrize("cell", ["4.29E+09", "7.5", "seven", "0x7", "９", "1_000"])
def test_a_seed_that_lost_digits_or_is_none_is_refused_and_the_rest_read(cell: str) -> None:
    (row,) = read(f"prompt,seed\nball,{cell}\n").rows

    assert (faults(row), row.value) == ([("#/seed", "type")], {"prompt": "ball"})


@pytest.mark.parametrize("cell", ["nan", "inf", "1e3", "five", "1,000.5"])
def test_what_is_no_plain_number_is_no_duration(cell: str) -> None:
    (row,) = read(f'prompt,duration\nball,"{cell}"\n').rows

    assert faults(row) == [("#/duration", "type")]


def test_a_yes_is_no_maybe() -> None:
    (row,) = read("prompt,cache\nball,maybe\n").rows

    assert faults(row) == [("#/cache", "type")]


def test_headers_in_chinese_and_japanese_are_understood() -> None:
    assert values(read("编号,提示词,时长\nA,红球,5\n")) == [
        {"custom_id": "A", "prompt": "红球", "duration": 5.0}
    ]
    assert values(read("番号,プロンプト,秒数,備考\nA,赤,5,あとで\n")) == [
        {"custom_id": "A", "prompt": "赤", "duration": 5.0}
    ]


def test_all_wrong_columns_are_named_at_once_with_what_was_meant() -> None:
    with pytest.raises(InvalidRequest) as caught:
        read("promt,seed,seed,a/b\nx,1,1,\n")

    problems = {problem.pointer: problem for problem in caught.value.problems}
    assert list(problems) == [
        "#/line/1/promt",
        "#/line/1/a~1b",
        "#/line/1/seed",
        "#/line/1/prompt",
    ]
    assert "did you mean 'prompt'" in problems["#/line/1/promt"].message


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", [("#/line/1/prompt", "required")]),
        ("prompt\n", [("#/line/1", "blank")]),
        ('prompt\nx\n"open\nball\n', [("#/line/4", "malformed")]),
        ("prompt\n" + "x" * 200_000, [("#/line/2", "malformed")]),
        ("prompt\nx\ny\nz\n", [("#/line/4", "max_items")]),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_whole(
    text: str, expected: list[tuple[str, str]]
) -> None:
    assert refusal(text, rows_max=2) == expected


def test_a_line_of_blanks_is_no_row() -> None:
    assert values(read("prompt,seed\n , \nball,\n")) == [{"prompt": "ball"}]


def test_json_lines_are_strict_and_each_wrong_one_is_told() -> None:
    data = b'{"prompt":"a"}\n\n{"prompt":"b","prompt":"c"}\n{"seed":NaN}\nnonsense\n"\xff"\n[1]\n'

    file = read_jsonl(data)

    assert [(row.line, faults(row)) for row in file.rows] == [
        (1, []),
        (3, [("#", "malformed")]),
        (4, [("#", "malformed")]),
        (5, [("#", "malformed")]),
        (6, [("#", "encoding")]),
        (7, []),
    ]
    assert file.rows[-1].value == [1]


def test_json_lines_of_windows_and_with_a_mark_are_read() -> None:
    file = read_jsonl(b'\xef\xbb\xbf{"prompt":"a"}\r\n{"prompt":"b"}\r\n')

    assert values(file) == [{"prompt": "a"}, {"prompt": "b"}]


def test_a_line_nested_too_deeply_spoils_itself_alone() -> None:
    file = read_jsonl(b"[" * 200_000 + b'\n{"prompt":"a"}\n')

    assert [bool(row.problems) for row in file.rows] == [True, False]


def test_items_are_numbered_from_one() -> None:
    file = read_items([{"prompt": "a"}, 7], rows_max=2)

    assert [(row.line, row.value) for row in file.rows] == [(1, {"prompt": "a"}), (2, 7)]


@pytest.mark.parametrize("count", [0, 3])
def test_too_few_and_too_many_items_are_refused(count: int) -> None:
    with pytest.raises(InvalidRequest):
        read_items([{}] * count, rows_max=2)


@given(
    st.lists(
        st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1).map(str.strip),
        min_size=1,
        max_size=8,
    )
)
def test_what_a_spreadsheet_writes_comes_back(prompts: list[str]) -> None:
    text = io.StringIO(newline="")
    writer = csv.writer(text, quoting=csv.QUOTE_ALL)
    writer.writerow(["prompt", "custom_id"])
    writer.writerows([[prompt, f"row {n}"] for n, prompt in enumerate(prompts)])

    file = read(text.getvalue())

    assert [row.get("prompt", "") for row in values(file)] == prompts
    assert [row["custom_id"] for row in values(file)] == [f"row {n}" for n in range(len(prompts))]


@given(st.binary(max_size=400), st.sampled_from([None, "utf-8", *GUESSED]))
def test_no_bytes_do_more_than_be_refused(data: bytes, encoding: str | None) -> None:
    readers: list[Callable[[], RowFile]] = [
        lambda: read(data, encoding=encoding),
        lambda: read_jsonl(data),
    ]
    for reader in readers:
        try:
            file = reader()
        except InvalidRequest:
            continue
        assert all(row.line >= 1 for row in file.rows)


@given(st.lists(st.dictionaries(st.text(), st.integers() | st.text()), min_size=1, max_size=5))
def test_what_json_writes_comes_back(items: list[dict[str, Any]]) -> None:
    data = "\n".join(json.dumps(item) for item in items).encode()

    assert values(read_jsonl(data)) == items
