"""What it takes to embed, index and serve so many photos on so many machines: bytes, hours and money of each stage, before anything runs.

Every figure is worked out from rates (`vitsearch.distributed.rates`), each with its source; none is a promise.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from vitsearch.distributed.rates import (
    Assumption,
    chosen,
    common_rates,
    decode_per_core,
    dim_of,
    encode_rate,
    gpu_name,
    photo_mb,
)
from vitsearch.errors import RecipeError, VitsearchError
from vitsearch.recipes import Recipe, auto_lists, load_recipe, predict, training_rows

LISTED_BYTES = 100  # of a name, a size and a date
BUILT_DIM, BUILT_LISTS = 512, 4096  # of the build that was measured
TRAINING = 5.0e10  # multiplications and additions a second on the two cores of that build
TRAINED_ROUNDS = 10
OBJECTS_A_SECOND = 5_500  # GET requests that S3 promises for a prefix (its user guide, "Performance design patterns")
TOGETHER = ("reading", "decoding", "encoding", "writing shards")
ALONE = ("listing", "pushing to Milvus")  # one machine is paid for; the cluster of Milvus is not in the price


@dataclass(frozen=True, slots=True)
class Machines:
    """So many equal machines, each with so many GPUs of one kind; kind "cpu" has none."""

    count: int
    gpus: int
    kind: str

    def __str__(self) -> str:
        what = "without a GPU" if self.kind == "cpu" else f"with {self.gpus} x {self.kind}"
        return f"{self.count:,} machine{'s' * (self.count != 1)} {what}"


@dataclass(frozen=True, slots=True)
class Wish:
    """What is to be planned: how many photos, by which encoder, on which machines; ``given`` are rates in place of the assumed ones."""

    photos: int
    encoder: str
    machines: Machines
    recipe: str = "ivf-sq8"
    dtype: str = "float32"
    given: Mapping[str, float] = field(default_factory=dict)
    price_per_hour: float | None = None


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage: bytes that it reads or writes, hours, money where a price is known, what bounds it, and where it stops being linear."""

    name: str
    bytes: int
    hours: float
    money: float | None
    bound: str
    linear: str


@dataclass(frozen=True, slots=True)
class Serving:
    """What searching takes afterwards: bytes in memory and on disk, machines that hold them, milliseconds of one search on two cores."""

    memory_bytes: int
    disk_bytes: int
    machines: int
    search_ms: float
    money_per_month: float | None
    note: str


@dataclass(frozen=True, slots=True)
class Plan:
    """The stages in order, those of embedding also as one (they go on at the same time), the total, and what all of it rests on."""

    wish: Wish
    stages: tuple[Stage, ...]
    embedding: Stage
    after: tuple[Stage, ...]
    total_hours: float
    total_money: float | None
    serving: Serving
    assumptions: tuple[Assumption, ...]


@dataclass(frozen=True, slots=True)
class _Ground:
    """What the stages are worked out from."""

    wish: Wish
    recipe: Recipe
    rates: Mapping[str, float]

    @property
    def photos(self) -> int:
        return self.wish.photos

    @property
    def shards(self) -> int:
        return math.ceil(self.photos / self.rates["shard_size"])

    @property
    def working(self) -> int:
        """Machines that have a shard to work on."""
        return min(self.wish.machines.count, self.shards)

    @property
    def encoders(self) -> int:
        return min(self.wish.machines.count * max(1, self.wish.machines.gpus), self.shards)

    def stage(self, name: str, size: float, seconds: float, *, bound: str, linear: str) -> Stage:
        hours = seconds / 3600
        price = self.wish.price_per_hour
        paid = 1 if name in ALONE else self.wish.machines.count
        money = None if price is None or name in TOGETHER else hours * price * paid
        return Stage(name, round(size), hours, money, bound, linear)


def make_plan(wish: Wish) -> Plan:
    """Return the plan for a wish.

    Raises VitsearchError where a rate is neither known nor given, or a number is not above 0, RecipeError for an unknown recipe and for
    one without inverted lists, which cannot be built from shards.
    """
    if wish.photos < 1 or wish.machines.count < 1:
        raise VitsearchError("a plan is for one photo or more on one machine or more")
    recipe = load_recipe(wish.recipe)
    if recipe.lists is None:
        raise RecipeError(f"recipe {recipe.name!r} is not built from shards: take one of inverted lists, such as ivf-sq8 or ivf-pq")
    assumptions = _assumptions(wish)
    ground = _Ground(wish, recipe, {name: one.value for name, one in assumptions.items()})
    listing, *together = _listing(ground), _reading(ground), _decoding(ground), _encoding(ground), _writing(ground)
    embedding = _embedding(ground, together)
    after = (_building(ground), _pushing(ground))
    counted = [listing, embedding, *after]
    money = None if wish.price_per_hour is None else sum(stage.money or 0.0 for stage in counted)
    hours = sum(stage.hours for stage in counted)
    return Plan(wish, (listing, *together), embedding, after, hours, money, _serving(ground), tuple(assumptions.values()))


def parse_count(text: str) -> int:
    """Return the number of "50M", "5B", "1.5M", "200k" or "1,000,000". Raises VitsearchError for anything else."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmb]?)", text.strip().replace(",", "").replace("_", "").lower(), re.ASCII)
    count = round(float(match[1]) * {"": 1, "k": 1e3, "m": 1e6, "b": 1e9}[match[2]]) if match else 0
    if count < 1:
        raise VitsearchError(f"{text!r} is no number of photos: write it as 200k, 1.5M, 50M or 5B")
    return count


def parse_machines(text: str) -> Machines:
    """Return the machines of "4x4090" (one GPU each), "2x8x4090" (eight each), "4090" or "16xcpu". Raises VitsearchError."""
    match = re.fullmatch(r"(?:(\d{1,6})\s*x\s*)?(?:(\d{1,3})\s*x\s*)?(.+)", text.strip(), re.IGNORECASE | re.ASCII)
    if match is None or "0" in (match[1], match[2]) or not gpu_name(match[3]) or re.match(r"\d+\s*x", match[3]):
        raise VitsearchError(f"{text!r} names no machines: write 4x4090, 2x8x4090 (eight GPUs in each) or 16xcpu")
    kind = "cpu" if match[3].lower() == "cpu" else match[3]
    return Machines(int(match[1] or 1), 0 if kind == "cpu" else int(match[2] or 1), kind)


def _assumptions(wish: Wish) -> dict[str, Assumption]:
    given = wish.given
    rates = {rate.name: rate for rate in common_rates()}
    megapixels = given.get("megapixels", rates["megapixels"].value)
    rates |= {rate.name: rate for rate in (photo_mb(megapixels), decode_per_core(megapixels))}
    rates["cores"] = Assumption("cores", 16, "cores a machine", "assumed")
    rates["dim"] = Assumption("dim", 0, "numbers a vector", "") if "dim" in given else dim_of(wish.encoder)
    of = "core" if wish.machines.kind == "cpu" else "GPU"
    unit = f"photos a second a {of}"
    if "encode_rate" in given:
        rates["encode_rate"] = Assumption("encode_rate", 0, unit, "")
        share = Assumption("encode_share", 1, "of that rate", "a rate that was given is taken as it is")
    else:
        rate, source = encode_rate(wish.encoder, wish.machines.kind, wish.dtype)
        rates["encode_rate"] = Assumption("encode_rate", rate, unit, source)
        share = Assumption("encode_share", 1, "of that rate", "assumed: all cores add up, where two were measured")
        if of == "GPU":
            share = Assumption("encode_share", 0.7, "of that rate", "assumed: what a stream of photos reaches of the ceiling")
    return chosen(rates | {"encode_share": share}, given)


def _listing(ground: _Ground) -> Stage:
    seconds = ground.photos / ground.rates["list_rate"]
    note = "one process lists: more machines do not help; list prefixes apart where it takes hours"
    return ground.stage("listing", ground.photos * LISTED_BYTES, seconds, bound="answers of the store", linear=note)


def _reading(ground: _Ground) -> Stage:
    size = ground.photos * ground.rates["photo_mb"] * 1e6
    a_second = ground.working * ground.rates["read_mbps"] / ground.rates["photo_mb"]
    prefixes = math.ceil(a_second / OBJECTS_A_SECOND)
    spread = f"{prefixes:,} prefix{'es' * (prefixes > 1)} or more"
    note = f"{a_second:,.0f} photos a second at full speed: S3 promises 5,500 a prefix, so {spread}"
    return ground.stage("reading", size, ground.photos / a_second, bound="the network of a machine, then the store", linear=note)


def _decoding(ground: _Ground) -> Stage:
    cores = ground.working * ground.rates["cores"]
    seconds = ground.photos / (cores * ground.rates["decode_per_core"])
    size = ground.photos * 224 * 224 * 3
    return ground.stage("decoding", size, seconds, bound="cores", linear="linear in cores, while each machine has shards left")


def _encoding(ground: _Ground) -> Stage:
    rates, wish = ground.rates, ground.wish
    units = ground.working * rates["cores"] if wish.machines.kind == "cpu" else ground.encoders
    seconds = ground.photos / (units * rates["encode_rate"] * rates["encode_share"])
    if wish.machines.kind == "cpu":
        note = "linear in cores, which decoding takes from too"
    else:
        note = f"linear while there are many more shards ({ground.shards:,}) than GPUs ({wish.machines.count * wish.machines.gpus:,})"
    return ground.stage("encoding", ground.photos * rates["dim"] * 2, seconds, bound=_encoder_of(wish), linear=note)


def _encoder_of(wish: Wish) -> str:
    return "cores" if wish.machines.kind == "cpu" else "GPUs"


def _writing(ground: _Ground) -> Stage:
    size = ground.photos * (2 * ground.rates["dim"] + ground.rates["row_bytes"])
    seconds = size / (ground.working * ground.rates["write_mbps"] * 1e6)
    note = f"linear: {ground.shards:,} files, each by one machine"
    return ground.stage("writing shards", size, seconds, bound="the network of a machine", linear=note)


def _embedding(ground: _Ground, together: list[Stage]) -> Stage:
    """Return the four stages as one: they go on at the same time, but where there is no GPU the cores do two of them."""
    hours = {stage.name: stage.hours for stage in together}
    if ground.wish.machines.kind == "cpu":
        hours["decoding and encoding"] = hours.pop("decoding") + hours.pop("encoding")
    slowest = max(hours, key=lambda name: hours[name])
    others = sorted((value for name, value in hours.items() if name != slowest), reverse=True)
    note = f"speed that up, and from {hours[slowest] / others[0]:.1f} times on the next stage is the bound" if others[0] else ""
    size = sum(stage.bytes for stage in together if stage.name in ("reading", "writing shards"))
    return ground.stage("embedding", size, hours[slowest] * 3600, bound=slowest, linear=note)


def _building(ground: _Ground) -> Stage:
    rates, dim = ground.rates, ground.rates["dim"]
    lists, size = _lists(ground), _index_bytes(ground)
    trained = training_rows(lists, ground.recipe.train_size) * TRAINED_ROUNDS * 2 * lists * dim
    train = trained / (TRAINING * rates["cores"] / 2)
    speed = rates["build_per_core"] * rates["cores"] * ground.working * BUILT_DIM / dim * BUILT_LISTS / lists
    add = ground.photos / speed
    merge = (2 * size + 2 * 2 * dim * ground.photos) / (rates["disk_mbps"] * 1e6)  # read and written: the lists, and the vectors
    parts = {"training on one machine": train, "giving each vector its list": add, "merging on one disk": merge}
    a_list = ground.photos / lists
    note = f"{lists:,} lists of {a_list:,.0f}; the merge ({merge / 3600:.1f} h) is one machine's"
    if ground.recipe.lists == "auto":
        note += "; below 4.2M photos lists grow with them, so that time grows as their number to the power 1.5"
    return ground.stage("building index", size, train + add + merge, bound=max(parts, key=lambda name: parts[name]), linear=note)


def _pushing(ground: _Ground) -> Stage:
    size = ground.photos * (4 * ground.rates["dim"] + ground.rates["row_bytes"])
    seconds = ground.photos / ground.rates["milvus_rate"]
    note = "the cluster's own growth: data and index nodes, not machines that push"
    return ground.stage("pushing to Milvus", size, seconds, bound="the Milvus cluster", linear=note)


def _serving(ground: _Ground) -> Serving:
    dim, price = int(ground.rates["dim"]), ground.wish.price_per_hour
    cost = predict(ground.recipe, ground.photos, dim)
    disk = _index_bytes(ground) + 2 * dim * ground.photos
    machines = max(1, math.ceil(cost.memory_bytes / (ground.rates["memory_gb"] * 1e9)))
    a_list = ground.photos / _lists(ground)
    note = f"a search reads whole lists ({a_list:,.0f} vectors each), so it slows down with the photos once there are 4,096 lists"
    if ground.recipe.lists != "auto":
        note = f"a search reads whole lists ({a_list:,.0f} vectors each), so it slows down with the photos"
    money = None if price is None else machines * price * 730
    return Serving(cost.memory_bytes, disk, machines, cost.query_ms, money, note)


def _lists(ground: _Ground) -> int:
    return auto_lists(ground.photos) if ground.recipe.lists == "auto" else int(ground.recipe.lists or 1)


def _index_bytes(ground: _Ground) -> int:
    """Return the bytes of the lists on disk, whether they are mapped or read into memory later."""
    dim = int(ground.rates["dim"])
    in_memory = Recipe(ground.recipe.name, "faiss", ground.recipe.factory, lists=ground.recipe.lists)
    return predict(in_memory, ground.photos, dim).memory_bytes
