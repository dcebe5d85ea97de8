"""Which class of a model is which label: derived, written and read."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vitsearch.encoders.mini import load_mini
from vitsearch.errors import QueryError, VitsearchError
from vitsearch.evaluation import ClassMap, derive_class_map, read_class_map, write_class_map
from vitsearch.evaluation.class_map import IMAGENET, SELDOM


@pytest.fixture(scope="module")
def imagenet() -> tuple[str, ...]:
    return load_mini().class_names


def of(found: ClassMap, label: str | None) -> list[str]:
    return [name for name, given in zip(found.classes, found.labels, strict=True) if given == label]


def test_a_label_takes_all_that_wordnet_has_below_it(imagenet: tuple[str, ...]) -> None:
    found = derive_class_map(imagenet, ["dog", "cat", "coffee"])
    assert (len(of(found, "dog")), len(of(found, "coffee"))) == (118, 1)
    assert of(found, "dog") == list(imagenet[151:269])
    assert of(found, "coffee") == ["espresso"]
    assert of(found, "cat")[:5] == [
        "tabby",
        "tiger cat",
        "Persian cat",
        "Siamese cat",
        "Egyptian cat",
    ]


@pytest.mark.slow
def test_the_nearest_label_wins(imagenet: tuple[str, ...]) -> None:
    found = derive_class_map(imagenet, ["animal", "dog", "poodle", "animal > toy poodle"])
    assert of(found, "poodle") == ["miniature poodle", "standard poodle"]
    assert of(found, "animal > toy poodle") == ["toy poodle"]
    assert len(of(found, "dog")) == 115
    assert of(found, "animal")[0] == "tench"
    assert len(of(found, "animal")) == 398 - 118


@pytest.mark.parametrize("label", ["Dogs", "DOG", "a dog", "keep := dog", "pet = hound | dogs"])
def test_case_plural_article_and_words_of_a_label_make_no_difference(
    imagenet: tuple[str, ...], label: str
) -> None:
    assert [
        given is not None for given in derive_class_map(imagenet, [label, "rocket"]).labels[151:269]
    ] == [True] * 118


@pytest.mark.parametrize(
    ("label", "classes"),
    [
        ("hammerhead_shark", ["hammerhead"]),
        ("great-white sharks", ["great white shark"]),
        ("n01443537", ["goldfish"]),
        ("foxes", ["red fox", "kit fox", "Arctic fox", "grey fox"]),
        ("wolves", ["timber wolf", "white wolf", "red wolf", "coyote"]),
        ("entity", []),
        ("whole", []),
        ("zzz", []),
    ],
)
def test_names_as_people_write_them(
    imagenet: tuple[str, ...], label: str, classes: list[str]
) -> None:
    assert of(derive_class_map(imagenet, [label]), label) == classes


@pytest.mark.parametrize(
    ("label", "count", "some", "none"),
    [
        ("toy", 2, ["swing", "teddy"], []),
        ("plants", 2, ["daisy", "yellow lady's slipper"], ["lumbermill"]),
        ("car", 10, ["cab", "minivan", "sports car"], ["freight car", "passenger car"]),
        ("food", 48, ["bagel", "Granny Smith", "guacamole"], ["Crock Pot"]),
        ("drink", 4, ["red wine", "espresso", "eggnog"], []),
        ("house", 2, ["monastery", "palace"], ["cinema", "home theater"]),
        ("dog", 118, ["pug"], ["timber wolf"]),
        ("cat", 13, ["tabby", "lion"], []),
        ("bird", 59, ["cock", "flamingo"], []),
        ("vehicle", 67, ["moped", "canoe", "freight car"], ["car wheel"]),
        ("instrument", 54, ["cello", "barometer"], []),
        ("musical instrument", 26, ["cello"], ["barometer"]),
        ("bank", 0, [], ["piggy bank"]),
        ("glasses", 1, ["sunglasses"], ["beer glass"]),
        ("glass", 2, ["beer glass", "goblet"], ["sunglasses"]),
        ("machine", 20, ["printer"], ["cab"]),
        ("theater = house", 4, ["cinema", "home theater", "palace"], []),
        ("bank = piggy bank", 1, ["piggy bank"], []),
    ],
)
def test_words_of_several_meanings(
    imagenet: tuple[str, ...], label: str, count: int, some: list[str], none: list[str]
) -> None:
    found = derive_class_map(imagenet, [label])
    taken = {name for name, given in zip(found.classes, found.labels, strict=True) if given}
    assert (
        sum(given is not None for given in found.labels),
        set(some) - taken,
        set(none) & taken,
    ) == (count, set(), set())


def test_other_names_of_a_meaning_count_where_the_first_is_no_classs(
    imagenet: tuple[str, ...],
) -> None:
    assert derive_class_map(["cinema", "home theater", "tench"], ["house"]).labels == (
        "house",
        "house",
        None,
    )
    assert derive_class_map(["cinema", "palace", "tench"], ["house"]).labels == (
        None,
        "house",
        None,
    )


def test_seldom_meanings_are_those_of_the_data() -> None:
    rows = {
        line.split("\t")[0]: line.split("\t")[2].split("|")
        for line in IMAGENET.read_text(encoding="utf-8").splitlines()
        if line[0] == "n"
    }
    assert [wnid for wnid, word in SELDOM.items() if word not in rows[wnid]] == []


def test_upper_levels_tell_labels_of_one_name_apart(imagenet: tuple[str, ...]) -> None:
    found = derive_class_map(imagenet, ["device > crane", "bird > crane"])
    assert [(place, label) for place, label in enumerate(found.labels) if label] == [
        (134, "bird > crane"),
        (517, "device > crane"),
    ]


@pytest.mark.slow
def test_transformers_names_of_imagenet_in_order(imagenet: tuple[str, ...]) -> None:
    rows = [
        line.split("\t")
        for line in IMAGENET.read_text(encoding="utf-8").splitlines()
        if not line.startswith("#")
    ]
    named = tuple(words.replace("|", ", ") for _, name, words, _ in rows if name)
    wnids = tuple(wnid for wnid, name, _, _ in rows if name)
    labels = ["dog", "bird > crane", "device > crane", "vehicle", "musical instrument"]
    expected = derive_class_map(imagenet, labels).labels
    assert derive_class_map(named, labels).labels == expected
    assert derive_class_map(wnids, labels).labels == expected


def test_other_classes_have_their_names_parts_head_noun_and_shared_meanings() -> None:
    classes = (
        "tabby, tabby cat",
        "sports car",
        "paper cup of mud",
        "zebra crossing",
        "crane",
        "golden retriever",
    )
    labels = ["cat", "car", "cup", "crossing", "bird", "dog"]
    assert derive_class_map(classes, labels).labels == (
        "cat",
        "car",
        "cup",
        "crossing",
        None,
        "dog",
    )
    assert derive_class_map(classes, ["tabby cats", "sports cars"]).labels == (
        "tabby cats",
        "sports cars",
        None,
        None,
        None,
        None,
    )


NAME = st.text(
    st.characters(blacklist_categories=["Cs", "Cc", "Zl", "Zp", "Zs"]), min_size=1, max_size=6
)


@given(classes=st.lists(NAME, min_size=1, max_size=8), data=st.data())
def test_what_was_written_is_read(
    tmp_path_factory: pytest.TempPathFactory, classes: list[str], data: st.DataObject
) -> None:
    labels = tuple(
        data.draw(
            st.lists(
                st.sampled_from(["cat", "a > dog", None]),
                min_size=len(classes),
                max_size=len(classes),
            )
        )
    )
    file = tmp_path_factory.mktemp("map") / "map.txt"
    write_class_map(file, ClassMap(tuple(classes), labels))
    assert read_class_map(file, classes, ["cat", "a > dog = hound"]) == ClassMap(
        tuple(classes), labels
    )


def test_the_file_as_a_person_reads_and_edits_it(tmp_path: Path) -> None:
    file = tmp_path / "map.txt"
    write_class_map(file, derive_class_map(["tabby", "car", "tabby"], ["cat", "dog"]))
    assert file.read_text() == (
        "# which class of the model is which label; - is none of them\ntabby = cat\ncar = "
        "-\ntabby = cat\n"
    )
    file.write_bytes(b"\xef\xbb\xbf# mine\r\n\r\n  car   =  dog \r\ntabby = cat")
    assert read_class_map(file, ["tabby", "car", "tabby", "boat"], ["cat", "dog"]).labels == (
        "cat",
        "dog",
        "cat",
        None,
    )


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (
            "tabby = cat\n\ntaby = cat\n",
            "line 3: the model has no class 'taby': its classes are tabby, car, ...",
        ),
        (
            "car = dog\ntabby = cow\n",
            (
                "line 2: there is no label 'cow': write one of cat, dog, or - for none; if the "
                "file "
                "was made for other labels, name a new file"
            ),
        ),
        (
            "tabby = cat\n# so\ntabby = -\n",
            "line 3: the class 'tabby' is there already: keep one line",
        ),
        ("tabby\n", "line 1: it is not of the form class = label: write - for no label"),
        ("tabby = \n", "line 1: it is not of the form class = label: write - for no label"),
    ],
)
def test_errors_of_a_file_say_the_line(tmp_path: Path, text: str, reason: str) -> None:
    (tmp_path / "map.txt").write_text(text)
    with pytest.raises(QueryError) as caught:
        read_class_map(tmp_path / "map.txt", ["tabby", "car"], ["cat", "dog"])
    assert str(caught.value) == f"{tmp_path / 'map.txt'}, {reason}"


@pytest.mark.parametrize(
    ("text", "theirs"),
    [("tabby = cow\ncar = -\n", "cow"), ("tabby = cow\ncar = cat\ntram = ox\n", "cow, cat, ox")],
)
def test_a_file_made_for_other_labels_is_said_to_be(tmp_path: Path, text: str, theirs: str) -> None:
    (tmp_path / "map.txt").write_text(text)
    with pytest.raises(QueryError) as caught:
        read_class_map(tmp_path / "map.txt", ["tabby", "car", "tram"], ["dog", "cat"])
    assert str(caught.value) == (
        f"the class map {tmp_path / 'map.txt'} was made for other labels ({theirs}): name a "
        "new file for cat, dog"
    )


def test_files_that_cannot_be_read_or_written(tmp_path: Path) -> None:
    (tmp_path / "latin").write_bytes(b"caf\xe9 = cat\n")
    with pytest.raises(QueryError, match="is not UTF-8 text .*: save it as UTF-8"):
        read_class_map(tmp_path / "latin", ["tabby"], ["cat"])
    with pytest.raises(QueryError, match="cannot read the class map .*: check the path"):
        read_class_map(tmp_path / "none", ["tabby"], ["cat"])
    with pytest.raises(
        VitsearchError, match="cannot write .*; name another place for the class map"
    ):
        write_class_map(tmp_path / "no/map.txt", ClassMap(("tabby",), (None,)))


def test_labels_of_a_map_must_be_among_those_asked_for() -> None:
    found = ClassMap(("tabby", "car", "poodle"), ("cat", None, "cat"))
    assert found.columns(["dog", "cat"]) == [[], [0, 2]]
    with pytest.raises(
        QueryError, match="the class map gives 'tabby' the label 'cat', which is none: make it anew"
    ):
        found.columns(["dog"])


def test_the_data_is_whole() -> None:
    rows = [
        line.split("\t")
        for line in IMAGENET.read_text(encoding="utf-8").splitlines()
        if not line.startswith("#")
    ]
    known = {row[0] for row in rows}
    assert [len(row) for row in rows] == [4] * len(rows)
    assert tuple(row[1] for row in rows if row[1]) == load_mini().class_names
    assert {wnid for row in rows for wnid in row[3].split()} <= known
    assert len(known) == len(rows)
    assert IMAGENET.stat().st_size < 250_000
    assert "WordNet 3.0 Copyright 2006 by Princeton University" in IMAGENET.with_name(
        "NOTICE"
    ).read_text(encoding="utf-8")
