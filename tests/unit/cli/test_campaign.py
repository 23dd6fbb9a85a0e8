"""Campaign files: every mistake by line and column, before anything is sent."""

import csv
import io
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vidmill.cli.campaign import COLUMNS, Campaign, parse_campaign, read_campaign, slug
from vidmill.cli.limits import check_limits
from vidmill.client import Capabilities, ClipRequest

CAPABILITIES = Capabilities.model_validate(
    {
        "model": {"name": "tiny"},
        "resolutions": [
            {"name": name, "width": 1, "height": 1, "native_width": 1, "native_height": 1}
            for name in ("480p", "720p")
        ],
        "duration": {"min": 3.0, "max": 10.0, "step": 0.1},
        "frame_rates": [16, 24],
        "default_frame_rate": 24,
        "priorities": ["normal", "low"],
        "aspect_ratios": {"16:9": ["832x480"], "9:16": ["480x832"]},
        "loras": [{"name": "acme"}],
        "limits": {
            "prompt_max_chars": 200,
            "negative_prompt_max_chars": 500,
            "seed_max": 2**31 - 1,
        },
    }
)


def problems(campaign: Campaign) -> list[tuple[int, str]]:
    return [(problem.line, problem.column) for problem in campaign.problems]


def test_row_becomes_a_request_and_blank_cells_mean_the_default() -> None:
    text = "prompt,duration,resolution,seed,frame_rate,negative_prompt,name,enable_physics\n"
    found = parse_campaign(text + "a ball,3.5,480p,7.0,24,,ball,yes\nb,,,,,,,\n")
    assert found.problems == []
    assert [(row.line, row.name) for row in found.rows] == [(2, "ball"), (3, "002-b")]
    assert found.rows[0].clip == ClipRequest(
        prompt="a ball",
        duration_s=3.5,
        resolution="480p",
        seed=7,
        frame_rate=24,
        enable_physics=True,
    )
    assert found.rows[1].clip == ClipRequest(prompt="b")


def test_a_row_names_its_brand_style_with_or_without_strength() -> None:
    found = parse_campaign("prompt,lora,aspect_ratio\na,acme,9:16\nb,acme:0.8,\nc,,\n")
    loras = [row.clip.lora for row in found.rows]
    assert loras == [{"name": "acme"}, {"name": "acme", "strength": 0.8}, None]
    assert found.rows[0].clip.aspect_ratio == "9:16"
    assert check_limits(found.rows, CAPABILITIES) == []


def test_a_brand_style_that_is_not_on_offer_is_told_before_anything_is_sent() -> None:
    found = parse_campaign("prompt,lora,aspect_ratio\na,acne,2:1\nb,acme:3,\n")
    assert [str(problem) for problem in check_limits(found.rows, CAPABILITIES)] == [
        "line 2, aspect_ratio: '2:1' is not on offer; choose one of: 16:9, 9:16",
        "line 2, lora: 'acne' is not on offer; choose one of: acme",
        "line 3, lora: the strength 3 is out of range; take more than 0, at most 2",
    ]
    (wrong,) = parse_campaign("prompt,lora\na,acme:strong\n").problems
    assert str(wrong) == "line 2, lora: 'strong' is not a number; write acme or acme:0.8"
    none = CAPABILITIES.model_copy(update={"loras": []})
    (told,) = check_limits(parse_campaign("prompt,lora\na,acme\n").rows, none)
    assert told.message == "'acme' is not on offer; there is none; leave it out"


def test_words_of_the_rules_that_are_not_on_offer_are_told_with_the_choices() -> None:
    offers = {"styles": ["noir", "anime"], "cameras": ["static"], "languages": ["en", "zh"]}
    with_rules = CAPABILITIES.model_copy(update=offers)
    rows = parse_campaign(
        "prompt,style,camera,language\na,Noir,zoom,fr\nb,noir,static,zh\nc,,,\n"
    ).rows
    assert [str(problem) for problem in check_limits(rows, with_rules)] == [
        "line 2, style: 'Noir' is not on offer; choose one of: noir, anime",
        "line 2, camera: 'zoom' is not on offer; choose one of: static",
        "line 2, language: 'fr' is not on offer; choose one of: en, zh",
    ]


def test_a_model_without_rules_takes_no_style_and_a_server_of_old_judges_it_itself() -> None:
    rows = parse_campaign("prompt,style\na,noir\n").rows
    (told,) = check_limits(rows, CAPABILITIES.model_copy(update={"styles": []}))
    assert str(told) == "line 2, style: 'noir' is not on offer; there is none; leave it out"
    assert check_limits(rows, CAPABILITIES) == []


def test_every_mistake_is_told_at_once_with_its_line_and_column() -> None:
    text = (
        "prompt,duration,seed,name\n"
        "a,3,1,x\n"
        ",four,1.5,y\n"
        "\n"
        '"two\nlines",3,2,X\n'
        "b,3,3,z,extra\n"
        "c,3,4,../up\n"
    )
    found = parse_campaign(text)
    assert sorted(problems(found)) == [
        (3, "duration"),
        (3, "prompt"),
        (3, "seed"),
        (5, "name"),  # the first line of the record, and the same file name as line 2
        (7, ""),
        (8, "name"),
    ]


@pytest.mark.parametrize(
    ("header", "found"),
    [
        ("prompt,colour", [(1, "colour")]),
        ("duration", [(1, "")]),
        ("prompt,seed,SEED", [(1, "seed")]),
        ("prompt,", [(1, "(blank)")]),
        ("", [(2, "")]),  # the first line that is not blank is the header
    ],
)
def test_wrong_header_stops_before_the_rows(header: str, found: list[tuple[int, str]]) -> None:
    campaign = parse_campaign(f"{header}\nx,y,z\n")
    assert (problems(campaign)[:1], campaign.rows) == (found, [])


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_delimiters_of_other_countries_are_read(delimiter: str) -> None:
    campaign = parse_campaign(f"prompt{delimiter}duration\na{delimiter}3\n")
    assert campaign.rows[0].clip == ClipRequest(prompt="a", duration_s=3)


def test_excel_bom_is_no_part_of_the_header(tmp_path: Path) -> None:
    path = tmp_path / "c.csv"
    path.write_bytes("prompt\n緑の三角形\n".encode("utf-8-sig"))
    assert read_campaign(path).rows[0].clip.prompt == "緑の三角形"


def test_other_encodings_are_refused_with_the_remedy(tmp_path: Path) -> None:
    path = tmp_path / "c.csv"
    path.write_bytes("prompt\n緑の三角形\n".encode("cp932"))
    assert "CSV UTF-8" in str(read_campaign(path).problems[0])


@pytest.mark.parametrize("text", ["prompt\n", "prompt\n\n , \n"])
def test_file_without_rows_is_a_mistake(text: str) -> None:
    assert parse_campaign(text).problems


def test_unclosed_quote_is_a_mistake_and_no_crash() -> None:
    assert "not CSV" in str(parse_campaign('prompt\n"never closed\n').problems[0])


@pytest.mark.parametrize("cell", ["nan", "inf", "1e999", "3 s"])
def test_duration_must_be_a_finite_number(cell: str) -> None:
    assert problems(parse_campaign(f"prompt,duration\na,{cell}\n")) == [(2, "duration")]


def test_limits_of_the_server_are_checked_for_every_field() -> None:
    text = "prompt,duration,resolution,seed,frame_rate,priority,negative_prompt\n"
    wrong = f"{'x' * 201},2.9,4k,-1,23,high,{'y' * 501}\n"
    edge = f"{'x' * 200},10,720p,{2**31 - 1},16,low,{'y' * 500}\n"
    rows = parse_campaign(text + wrong + edge + "a,3.05,480p,,,,\n").rows
    found = [(problem.line, problem.column) for problem in check_limits(rows, CAPABILITIES)]
    columns = ("prompt", "negative_prompt", "duration", "resolution", "frame_rate", "seed")
    assert found == [(2, column) for column in (*columns, "priority")] + [(4, "duration")]


def test_length_counts_code_points_of_the_nfc_text() -> None:
    decomposed = "e\u0301"
    rows = parse_campaign("prompt\n" + decomposed * 200).rows
    assert check_limits(rows, CAPABILITIES) == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A Red  Ball!", "a-red-ball"),
        ("緑の三角形", "clip"),
        ("café", "cafe"),
        ("a red ball moves up on a black background", "a-red-ball-moves-up-on-a-black"),
        ("x" * 99, "x" * 40),
    ],
)
def test_slug_is_short_ascii_cut_between_words(text: str, expected: str) -> None:
    assert slug(text) == expected


CELLS = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=20)


@given(st.lists(st.dictionaries(st.sampled_from(list(COLUMNS)), CELLS), max_size=6))
def test_any_table_gives_rows_or_mistakes_and_never_crashes(rows: list[dict[str, str]]) -> None:
    file = io.StringIO()
    writer = csv.DictWriter(file, list(COLUMNS))
    writer.writeheader()
    writer.writerows(rows)
    campaign = parse_campaign(file.getvalue())
    assert campaign.rows or campaign.problems
    names = [row.name.casefold() for row in campaign.rows]
    assert campaign.problems or len(set(names)) == len(names)


@given(st.text(max_size=200))
def test_any_text_gives_rows_or_mistakes_and_never_crashes(text: str) -> None:
    campaign = parse_campaign(text)
    assert campaign.rows or campaign.problems
