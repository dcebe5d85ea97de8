"""Plans: every figure from rates with a source, rules that hold for all numbers, and outputs of the page on scale that are true."""

import json
import re
import shlex
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from conftest import vitsearch
from hypothesis import given, settings
from hypothesis import strategies as st

from vitsearch.distributed.plan import TOGETHER, Machines, Plan, Stage, Wish, make_plan, parse_count, parse_machines
from vitsearch.distributed.rates import architecture, decode_per_core, encode_rate
from vitsearch.errors import RecipeError, VitsearchError

PAGE = Path(__file__).parents[1] / "docs" / "scale.md"
EXAMPLES = [block.split("\n", 1) for block in re.findall(r"```text\n\$ (.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)]
WISH = Wish(50_000_000, "open_clip:ViT-B-32/openai", Machines(4, 1, "4090"), price_per_hour=1.0)
LINEAR = ("listing", *TOGETHER, "embedding", "pushing to Milvus")
photos = st.integers(10_000_000, 10_000_000_000)
machines = st.builds(Machines, st.integers(1, 200), st.integers(1, 8), st.just("4090")) | st.builds(
    Machines, st.integers(1, 200), st.just(0), st.just("cpu")
)


def stages(plan: Plan) -> dict[str, Stage]:
    return {stage.name: stage for stage in (*plan.stages, plan.embedding, *plan.after)}


@pytest.mark.parametrize(("command", "output"), EXAMPLES, ids=[command.split()[3] + command.split()[5] for command, _ in EXAMPLES])
def test_the_page_shows_what_the_command_prints(command: str, output: str) -> None:
    done = vitsearch(*shlex.split(command)[1:])
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.decode() == output


def test_the_page_has_an_example_of_each_size() -> None:
    assert [re.search(r"--photos (\w+)", command)[1] for command, _ in EXAMPLES] == ["1M", "1M", "50M", "5B"]  # type: ignore[index]


def test_a_plan_by_hand() -> None:
    given = {"photo_mb": 1, "read_mbps": 100, "list_rate": 1000, "decode_per_core": 10, "cores": 2, "encode_rate": 50, "dim": 100}
    given |= {"write_mbps": 10, "row_bytes": 50, "milvus_rate": 100}
    made = stages(make_plan(Wish(3_600_000, "mine", Machines(1, 1, "9999"), given=given, price_per_hour=2)))
    hours = {"listing": 1, "reading": 10, "decoding": 50, "encoding": 20, "embedding": 50, "pushing to Milvus": 10}
    assert {name: made[name].hours for name in hours} == hours
    assert made["writing shards"].hours == pytest.approx(3.6e6 * 250 / 10e6 / 3600)
    assert (made["embedding"].bound, made["embedding"].money, made["reading"].money) == ("decoding", 100, None)
    assert made["reading"].bytes == 3_600_000_000_000


def test_cores_without_a_gpu_decode_and_encode_by_turns() -> None:
    given = {"decode_per_core": 10, "cores": 2, "encode_rate": 5, "dim": 100}
    made = stages(make_plan(Wish(3_600_000, "mine", Machines(1, 0, "cpu"), given=given)))
    assert (made["decoding"].hours, made["encoding"].hours, made["embedding"].hours) == (50, 100, 150)
    assert made["embedding"].bound == "decoding and encoding"


@given(photos, machines)
@settings(max_examples=60, deadline=None)
def test_twice_the_photos_take_twice_the_hours_and_bytes(count: int, of: Machines) -> None:
    given = {"shard_size": 10_000}
    one = stages(make_plan(replace(WISH, photos=count, machines=of, given=given)))
    two = stages(make_plan(replace(WISH, photos=2 * count, machines=of, given=given)))
    busy = count >= 10_000 * of.count * max(1, of.gpus)
    for name in LINEAR if busy else ("listing", "pushing to Milvus"):
        assert two[name].hours == pytest.approx(2 * one[name].hours, rel=1e-6)
        assert two[name].bytes == pytest.approx(2 * one[name].bytes, abs=2)


@given(st.integers(1, 10_000_000_000), machines, st.integers(1, 50))
@settings(max_examples=60, deadline=None)
def test_more_machines_are_never_slower(count: int, of: Machines, more: int) -> None:
    few = make_plan(replace(WISH, photos=count, machines=of))
    many = make_plan(replace(WISH, photos=count, machines=replace(of, count=of.count + more)))
    for name, stage in stages(few).items():
        assert stages(many)[name].hours <= stage.hours * (1 + 1e-12)
    assert many.total_hours <= few.total_hours * (1 + 1e-12)


@given(photos, machines)
@settings(max_examples=40, deadline=None)
def test_the_total_is_the_sum_and_embedding_its_slowest_part(count: int, of: Machines) -> None:
    plan = make_plan(replace(WISH, photos=count, machines=of))
    made = stages(plan)
    counted = [made[name] for name in ("listing", "embedding", "building index", "pushing to Milvus")]
    assert plan.total_hours == pytest.approx(sum(stage.hours for stage in counted))
    paid = (1, of.count, of.count, 1)
    assert plan.total_money == pytest.approx(sum(stage.hours * machines for stage, machines in zip(counted, paid, strict=True)))
    hours = [made[name].hours for name in TOGETHER]
    assert max(hours) * (1 - 1e-12) <= plan.embedding.hours <= sum(hours) * (1 + 1e-12)


@given(st.sampled_from(["read_mbps", "list_rate", "decode_per_core", "encode_rate", "cores", "write_mbps", "build_per_core"]))
def test_a_faster_rate_is_never_slower_and_is_named_as_given(name: str) -> None:
    plain = make_plan(WISH)
    rate = next(one for one in plain.assumptions if one.name == name)
    quick = make_plan(replace(WISH, given={name: 2 * rate.value}))
    assert quick.total_hours <= plain.total_hours
    (found,) = [one for one in quick.assumptions if one.name == name]
    assert (found.value, found.source) == (2 * rate.value, f"given: --{name.replace('_', '-')}")


def test_every_assumption_names_its_source_and_has_its_flag() -> None:
    from vitsearch.cli.plan import RATES

    for of in (Machines(1, 1, "5090"), Machines(1, 0, "cpu")):
        plan = make_plan(replace(WISH, machines=of))
        assert {one.name for one in plan.assumptions} == set(RATES)
        assert [one for one in plan.assumptions if not re.match(r"assumed|measured|published|the catalogue", one.source)] == []


@pytest.mark.parametrize(
    ("text", "count"),
    [("50M", 50_000_000), ("5B", 5_000_000_000), ("1.5M", 1_500_000), ("200k", 200_000), ("1,000", 1000), ("7", 7), ("0.29k", 290)],
)
def test_numbers_as_people_write_them(text: str, count: int) -> None:
    assert parse_count(text) == count


@pytest.mark.parametrize("text", ["", "M", "0", "-5", "5T", "1e6", "nan", "0.1", "٣"])
def test_no_number(text: str) -> None:
    with pytest.raises(VitsearchError, match="is no number of photos: write it as 200k, 1.5M, 50M or 5B"):
        parse_count(text)


@given(st.integers(1, 10**12))
def test_any_number_with_commas_is_read_back(count: int) -> None:
    assert parse_count(f"{count:,}") == count


@pytest.mark.parametrize(
    ("text", "machines"),
    [
        ("4x4090", Machines(4, 1, "4090")),
        ("2x8xH100", Machines(2, 8, "H100")),
        ("4090", Machines(1, 1, "4090")),
        ("16xcpu", Machines(16, 0, "cpu")),
        ("3 x RTX PRO 6000", Machines(3, 1, "RTX PRO 6000")),
    ],
)
def test_machines_as_people_write_them(text: str, machines: Machines) -> None:
    assert parse_machines(text) == machines


@pytest.mark.parametrize("text", ["", "0x4090", "4x0x4090", "4x"])
def test_no_machines(text: str) -> None:
    with pytest.raises(VitsearchError, match="names no machines"):
        parse_machines(text)


def test_published_and_measured_rates() -> None:
    assert encode_rate("open_clip:ViT-B-32/openai", "RTX 4090", "float32")[0] == 12151
    assert encode_rate("hf:openai/clip-vit-base-patch16", "3090", "float32")[0] == 1571
    assert encode_rate("open_clip:ViT-SO400M-14-SigLIP-384/webli", "NVIDIA RTX PRO 6000", "float32")[0] == 282
    assert encode_rate("mini", "cpu", "float32")[0] == pytest.approx(1000 / (2000 / 54.3 - 2.3), abs=0.01)
    assert encode_rate("open_clip:ViT-B-32/openai", "cpu", "int8")[0] == pytest.approx(1000 / (2000 / 28.9 - 2.3), abs=0.01)
    assert (decode_per_core(0.3072).value, decode_per_core(12.2).value) == (434.8, 40.0)
    assert architecture("open_clip:ViT-L-14-quickgelu/dfn2b") == "vit-l-14"


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        ({"machines": Machines(1, 1, "H100")}, VitsearchError, "give --encode-rate"),
        ({"encoder": "open_clip:ViT-L-14-336/openai"}, VitsearchError, "give --encode-rate"),
        ({"encoder": "mine"}, VitsearchError, "give --dim"),
        ({"machines": Machines(1, 0, "cpu"), "encoder": "open_clip:ViT-L-14/openai"}, VitsearchError, "give --encode-rate"),
        ({"given": {"cores": 0}}, VitsearchError, "--cores is a number above 0, not 0"),
        ({"given": {"photo_mb": float("nan")}}, VitsearchError, "--photo-mb is a number above 0"),
        ({"given": {"colour": 1}}, VitsearchError, "a plan has no 'colour'"),
        ({"recipe": "hnsw"}, RecipeError, "is not built from shards"),
        ({"recipe": "none"}, RecipeError, "unknown recipe"),
        ({"photos": 0}, VitsearchError, "one photo or more"),
    ],
)
def test_what_cannot_be_planned(change: dict, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        make_plan(replace(WISH, **change))


def test_json_is_the_plan() -> None:
    done = vitsearch("plan", "--photos", "50M", "--encoder", WISH.encoder, "--machines", "4x4090", "--price-per-hour", "1", "--json")
    assert (done.returncode, done.stderr) == (0, b"")
    assert json.loads(done.stdout) == json.loads(json.dumps(asdict(make_plan(WISH))))


def test_errors_are_one_line() -> None:
    done = vitsearch("plan", "--photos", "many")
    assert (done.returncode, done.stdout) == (1, b"")
    assert done.stderr == b"vitsearch: 'many' is no number of photos: write it as 200k, 1.5M, 50M or 5B\n"
