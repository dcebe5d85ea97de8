import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

import vitsearch.errors
from helpers.paths import ROOT
from vitsearch.errors import RecipeError
from vitsearch.index.backends import BACKENDS, backend_for
from vitsearch.index.recipe import (
    Kind,
    Recipe,
    auto_lists,
    choose_recipe,
    list_recipes,
    load_recipe,
)

FOLDER = ROOT / "indexes" / "recipes"


def test_the_recipes_that_come_with_vitsearch():
    facts = {
        name: (
            load_recipe(name).factory,
            dict(load_recipe(name).search),
            load_recipe(name).overfetch,
        )
        for name in list_recipes()
    }
    assert facts == {
        "auto": (None, {}, 4),
        "disk": ("IVF{lists},SQ8", {"nprobe": 32}, 4),
        "flat": ("IDMap,Flat", {}, 4),
        "gpu-cagra": ("CAGRA", {"efSearch": 128}, 4),
        "gpu-flat": ("IDMap,Flat", {}, 4),
        "gpu-ivf": ("IVF{lists},Flat", {"nprobe": 64}, 4),
        "hnsw": ("HNSW32", {"efSearch": 128}, 4),
        "ivf": ("IVF{lists},Flat", {"nprobe": 32}, 4),
        "ivf-pq": ("IVF{lists},PQ{pq}", {"nprobe": 32}, 16),
        "ivf-sq8": ("IVF{lists},SQ8", {"nprobe": 32}, 4),
        "pq-fastscan": ("PCAR{principal},IVF{lists},PQ{pairs}x4fs", {"nprobe": 64}, 12),
        "rabitq": ("IVF{lists},RaBitQ", {"nprobe": 32}, 16),
        "sq8": ("SQ8", {}, 4),
    }
    assert list(facts) == list_recipes()
    assert [name for name in list_recipes() if load_recipe(name).is_exact] == ["flat", "gpu-flat"]
    assert (load_recipe("auto").kind, load_recipe("auto").recall, load_recipe("disk").on_disk) == (
        "auto",
        0.95,
        True,
    )
    assert [name for name in list_recipes() if load_recipe(name).gpu] == [
        "gpu-cagra",
        "gpu-flat",
        "gpu-ivf",
    ]


@pytest.mark.parametrize("name", list_recipes())
def test_a_name_and_its_file_give_the_same_recipe(name, monkeypatch):
    monkeypatch.chdir(FOLDER)
    recipe = load_recipe(name)
    assert recipe.name == name
    assert (
        recipe
        == load_recipe(FOLDER / f"{name}.toml")
        == load_recipe(f"./{name}.toml")
        == load_recipe(f"{name}.toml")
    )
    assert recipe == Recipe.from_toml(recipe.to_toml()) == Recipe.from_dict(recipe.to_dict())


@pytest.mark.slow
def test_a_name_works_from_an_installed_wheel(tmp_path):
    package = tmp_path / "vitsearch"
    weights = shutil.ignore_patterns("*.onnx", "*.safetensors", "__pycache__")
    shutil.copytree(Path(vitsearch.errors.__file__).parent, package, ignore=weights)
    shutil.copytree(FOLDER, package / "recipes_data")  # as pyproject.toml says
    code = (
        "from vitsearch.index.recipe import *; print(list_recipes(), load_recipe('hnsw').factory)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert result.stdout == f"{list_recipes()} HNSW32\n"


LISTS = [
    (0, 1),
    (1, 1),
    (3, 1),
    (77, 1),
    (78, 2),
    (1000, 25),
    (10_000, 200),
    (1_000_000, 2000),
    (10_000_000, 4096),
]


@pytest.mark.parametrize(("count", "lists"), LISTS)
def test_the_number_of_lists_follows_the_number_of_photos(count, lists):
    assert auto_lists(count) == lists
    assert load_recipe("ivf").factory_for(count, 8) == f"IVF{lists},Flat"


def test_a_fixed_number_of_lists_and_a_recipe_without_a_factory():
    assert Recipe("mine", factory="IVF{lists},SQ8", lists=7).factory_for(10, 8) == "IVF7,SQ8"
    with pytest.raises(RecipeError, match="has no factory string"):
        Recipe("mine", kind="exact").factory_for(10, 8)


def test_an_unknown_name_is_told_the_known_ones():
    with pytest.raises(RecipeError) as caught:
        load_recipe("fast")
    assert str(caught.value) == (
        f"unknown recipe 'fast'; known: {', '.join(list_recipes())}; or give a TOML file, such "
        "as ./my-recipe.toml"
    )


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("name = ", "not a TOML file: Invalid value (at end of document)"),
        ('factory = "SQ8"', 'a recipe needs a name, such as name = "mine"'),
        (
            'name = "x"',
            'a recipe of kind "faiss" needs a factory string, such as factory = "HNSW32"',
        ),
        (
            'name = "x"\nfactroy = "SQ8"',
            "unknown key 'factroy'; known keys: name, kind, factory, search, lists, train_size, "
            "overfetch, on_disk, gpu, recall, memory, "
            "description",
        ),
        ('name = "x"\nkind = "annoy"', 'kind must be "exact", "faiss" or "auto", not \'annoy\''),
        ('name = "x"\nfactory = 3', "factory must be a text in quotes"),
        (
            'name = "x"\nfactory = "SQ8"\ntrain_size = 0',
            "train_size must be a whole number above 0",
        ),
        (
            'name = "x"\nfactory = "SQ8"\ntrain_size = true',
            "train_size must be a whole number above 0",
        ),
        (
            'name = "x"\nfactory = "SQ8"\noverfetch = 1.5',
            "overfetch must be a whole number above 0",
        ),
        ('name = "x"\nfactory = "SQ8"\ngpu = 1', "gpu must be true or false"),
        (
            'name = "x"\nkind = "auto"\nmemory = -1',
            "memory must be a whole number of bytes, or 0 for no limit",
        ),
        (
            'name = "x"\nkind = "auto"\nrecall = 1',
            (
                "recall must be from 0 (as it comes) to below 1, such as 0.95; for 1 take the "
                "recipe "
                "flat"
            ),
        ),
        (
            'name = "x"\nfactory = "SQ8"\nsearch = 3',
            "search must be a table, such as [search] with nprobe = 16 below it",
        ),
        (
            'name = "x"\nfactory = "SQ8"\n[search]\nnprobe = "16"',
            "search parameter nprobe must be a number",
        ),
        (
            'name = "x"\nfactory = "SQ8"\n[search]\nnprobe = nan',
            "search parameter nprobe must be a number",
        ),
        (
            'name = "x"\nfactory = "SQ8"\n[search]\n"a b" = 1',
            "search parameter 'a b' is not a name",
        ),
        (
            'name = "x"\nfactory = "IVF{lists},Flat"',
            (
                'lists and {lists} in the factory string go together: lists = "auto" with factory '
                "= "
                '"IVF{lists},Flat"'
            ),
        ),
        (
            'name = "x"\nfactory = "SQ8"\nlists = 4',
            (
                'lists and {lists} in the factory string go together: lists = "auto" with factory '
                "= "
                '"IVF{lists},Flat"'
            ),
        ),
        (
            'name = "x"\nfactory = "IVF{lists},Flat"\nlists = "many"',
            'lists must be "auto" or a whole number above 0',
        ),
        (
            'name = "x"\nfactory = "IVF{lists},Flat"\nlists = -1',
            'lists must be "auto" or a whole number above 0',
        ),
    ],
)
def test_a_bad_file_is_named_with_its_problem(tmp_path, text, problem):
    file = tmp_path / "bad.toml"
    file.write_text(text)
    with pytest.raises(RecipeError) as caught:
        load_recipe(str(file))
    assert str(caught.value) == f"{file}: {problem}"


def test_a_missing_file_a_folder_and_bytes_that_are_not_text(tmp_path):
    odd = Path(os.fsdecode(bytes(tmp_path) + b"/\xff.toml"))
    odd.write_bytes(b"\xff\xfe")
    for place, problem in (
        (tmp_path / "no.toml", "no recipe file"),
        (tmp_path, "cannot be read"),
        (odd, "cannot be read"),
    ):
        with pytest.raises(RecipeError, match=problem) as caught:
            load_recipe(place)
        assert "\n" not in str(caught.value)
        assert str(caught.value).isascii()


MOST = 2**20  # of a search parameter
NUMBERS = st.integers(0, MOST) | st.floats(0, MOST)
TEXTS = st.text(st.characters(codec="utf-8"), max_size=20)


@given(
    st.builds(
        Recipe,
        name=TEXTS.filter(bool),
        factory=TEXTS.filter(lambda text: text and "{lists}" not in text),
        search=st.dictionaries(
            st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,8}", fullmatch=True), NUMBERS, max_size=3
        ),
        train_size=st.integers(1, 10**9),
        description=TEXTS,
    )
)
@pytest.mark.slow
def test_every_recipe_survives_its_file(recipe):
    assert Recipe.from_toml(recipe.to_toml()) == recipe


@pytest.mark.parametrize(
    ("dim", "size"), [(512, 64), (640, 80), (768, 96), (384, 48), (12, 1), (7, 1), (37, 1), (24, 3)]
)
def test_a_product_quantiser_divides_the_numbers(dim, size):
    assert (
        Recipe("mine", factory="IVF{lists},PQ{pq}", lists=3).factory_for(9, dim) == f"IVF3,PQ{size}"
    )


@given(
    st.integers(1, 10**8), st.sampled_from([384, 512, 640, 768, 1024]), st.integers(10**6, 10**12)
)
def test_what_is_chosen_fits_the_memory_or_stays_on_disk(count, dim, memory):
    choice = choose_recipe(count, dim, memory=memory)
    assert choice.recipe.name in ("flat", "ivf-sq8", "ivf-pq", "rabitq", "disk")
    assert (choice.recipe.name == "flat") == (count <= 30_000)
    assert choice.recipe.name in ("flat", "disk") or choice.memory_bytes <= memory
    assert choice.recipe.recall == (0.95 if choice.recipe.name != "flat" else 0)
    more = choose_recipe(count, dim, memory=2 * memory)  # more memory never chooses a coarser index
    order = ["disk", "rabitq", "ivf-pq", "ivf-sq8", "flat"]
    assert order.index(more.recipe.name) >= order.index(choice.recipe.name)
    assert choose_recipe(count, dim, memory=memory, faiss=False).recipe.name == "flat"


def test_every_kind_of_recipe_has_a_backend_but_auto_which_chooses_one():
    assert {*BACKENDS, "auto"} == {*get_args(Kind)}
    with pytest.raises(RecipeError, match="choose_recipe"):
        backend_for(load_recipe("auto"))
