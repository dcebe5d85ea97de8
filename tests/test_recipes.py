import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import vitsearch.recipes
from vitsearch.errors import RecipeError
from vitsearch.recipes import Recipe, auto_lists, list_recipes, load_recipe

FOLDER = Path(__file__).parents[1] / "indexes" / "recipes"


def test_the_recipes_that_come_with_vitsearch():
    assert list_recipes() == ["flat", "hnsw", "ivf", "sq8"]
    facts = {name: (load_recipe(name).factory, dict(load_recipe(name).search)) for name in list_recipes()}
    assert facts == {
        "flat": ("IDMap2,Flat", {}),
        "hnsw": ("HNSW32", {"efSearch": 128}),
        "ivf": ("IVF{lists},Flat", {"nprobe": 32}),
        "sq8": ("SQ8", {}),
    }
    assert [name for name in list_recipes() if load_recipe(name).is_exact] == ["flat"]


@pytest.mark.parametrize("name", ["flat", "hnsw", "ivf", "sq8"])
def test_a_name_and_its_file_give_the_same_recipe(name, monkeypatch):
    monkeypatch.chdir(FOLDER)
    recipe = load_recipe(name)
    assert recipe.name == name
    assert recipe == load_recipe(FOLDER / f"{name}.toml") == load_recipe(f"./{name}.toml") == load_recipe(f"{name}.toml")
    assert recipe == Recipe.from_toml(recipe.to_toml()) == Recipe.from_dict(recipe.to_dict())


def test_a_name_works_from_an_installed_wheel(tmp_path):
    package = tmp_path / "vitsearch"
    package.mkdir()
    for module in ("recipes.py", "errors.py"):
        shutil.copy(Path(vitsearch.recipes.__file__).parent / module, package)
    (package / "__init__.py").touch()
    shutil.copytree(FOLDER, package / "recipes_data")  # as pyproject.toml says
    code = "from vitsearch.recipes import *; print(list_recipes(), load_recipe('hnsw').factory)"
    result = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert result.stdout == "['flat', 'hnsw', 'ivf', 'sq8'] HNSW32\n"


@pytest.mark.parametrize(("count", "lists"), [(0, 1), (1, 1), (3, 1), (77, 1), (78, 2), (1000, 25), (10_000, 200), (1_000_000, 2000)])
def test_the_number_of_lists_follows_the_number_of_photos(count, lists):
    assert auto_lists(count) == lists
    assert load_recipe("ivf").factory_for(count) == f"IVF{lists},Flat"


def test_a_fixed_number_of_lists_and_a_recipe_without_a_factory():
    assert Recipe("mine", factory="IVF{lists},SQ8", lists=7).factory_for(10) == "IVF7,SQ8"
    with pytest.raises(RecipeError, match="has no factory string"):
        Recipe("mine", kind="exact").factory_for(10)


def test_an_unknown_name_is_told_the_known_ones():
    with pytest.raises(RecipeError) as caught:
        load_recipe("fast")
    assert str(caught.value) == "unknown recipe 'fast'; known: flat, hnsw, ivf, sq8; or give a TOML file, such as ./my-recipe.toml"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("name = ", "not a TOML file: Invalid value (at end of document)"),
        ('factory = "SQ8"', 'a recipe needs a name, such as name = "mine"'),
        ('name = "x"', 'a recipe of kind "faiss" needs a factory string, such as factory = "HNSW32"'),
        (
            'name = "x"\nfactroy = "SQ8"',
            "unknown key 'factroy'; known keys: name, kind, factory, search, lists, train_size, description",
        ),
        ('name = "x"\nkind = "annoy"', 'kind must be "exact" or "faiss", not \'annoy\''),
        ('name = "x"\nfactory = 3', "factory must be a text in quotes"),
        ('name = "x"\nfactory = "SQ8"\ntrain_size = 0', "train_size must be a whole number above 0"),
        ('name = "x"\nfactory = "SQ8"\ntrain_size = true', "train_size must be a whole number above 0"),
        ('name = "x"\nfactory = "SQ8"\nsearch = 3', "search must be a table, such as [search] with nprobe = 16 below it"),
        ('name = "x"\nfactory = "SQ8"\n[search]\nnprobe = "16"', "search parameter nprobe must be a number"),
        ('name = "x"\nfactory = "SQ8"\n[search]\nnprobe = nan', "search parameter nprobe must be a number"),
        ('name = "x"\nfactory = "SQ8"\n[search]\n"a b" = 1', "search parameter 'a b' is not a name"),
        (
            'name = "x"\nfactory = "IVF{lists},Flat"',
            'lists and {lists} in the factory string go together: lists = "auto" with factory = "IVF{lists},Flat"',
        ),
        (
            'name = "x"\nfactory = "SQ8"\nlists = 4',
            'lists and {lists} in the factory string go together: lists = "auto" with factory = "IVF{lists},Flat"',
        ),
        ('name = "x"\nfactory = "IVF{lists},Flat"\nlists = "many"', 'lists must be "auto" or a whole number above 0'),
        ('name = "x"\nfactory = "IVF{lists},Flat"\nlists = -1', 'lists must be "auto" or a whole number above 0'),
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
    for place, problem in ((tmp_path / "no.toml", "no recipe file"), (tmp_path, "cannot be read"), (odd, "cannot be read")):
        with pytest.raises(RecipeError, match=problem) as caught:
            load_recipe(place)
        assert "\n" not in str(caught.value)
        assert str(caught.value).isascii()


NUMBERS = st.integers(-(2**40), 2**40) | st.floats(allow_nan=False, allow_infinity=False)
TEXTS = st.text(st.characters(codec="utf-8"), max_size=20)


@given(
    st.builds(
        Recipe,
        name=TEXTS.filter(bool),
        factory=TEXTS.filter(lambda text: text and "{lists}" not in text),
        search=st.dictionaries(st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,8}", fullmatch=True), NUMBERS, max_size=3),
        train_size=st.integers(1, 10**9),
        description=TEXTS,
    )
)
def test_every_recipe_survives_its_file(recipe):
    assert Recipe.from_toml(recipe.to_toml()) == recipe
