"""What every test may ask for: folders of four photos, and an S3 server on loopback."""

import os
import re
import shutil
import signal
import urllib.request
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

# how fast a machine is decides nothing; the same examples in every run, and with
# --hypothesis-profile=explore others each time
settings.register_profile("explore", deadline=None)
settings.register_profile("same examples", deadline=None, derandomize=True)
settings.register_profile("fast", settings.get_profile("same examples"), max_examples=20)
settings.load_profile("same examples")
pytest.register_assert_rewrite("helpers")
# read when NumPy, PyTorch and FAISS are loaded: threads that wait for each other cost more than
# they bring to small data, and several test processes share the cores
os.environ.setdefault("OMP_NUM_THREADS", "1")
# files in memory, where there is room: every collection waits for the disk many times over
MEMORY, ROOM = Path("/dev/shm"), 6 * 2**30
if MEMORY.is_dir() and os.access(MEMORY, os.W_OK) and shutil.disk_usage(MEMORY).free > ROOM:
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(MEMORY))
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as a shell starts what runs behind it
    signal.signal(signal.SIGINT, signal.default_int_handler)

from helpers.photos import COLOURS, paint  # noqa: E402
from helpers.remarks import logged_remarks  # noqa: E402
from vitsearch import index_folder  # noqa: E402
from vitsearch.encoders.colour import ColourEncoder  # noqa: E402

TOGETHER = (  # in one process of `make test`, since they share what takes long to make
    ("tests/cluster/",),  # Ray
    ("tests/test_architecture.py", "tests/test_names.py"),  # the trees of all modules
    ("tests/test_docs_run.py", "tests/test_examples.py"),  # the fixture `programs`
    tuple(  # `samples`, and the land of the map
        f"tests/web/test_browser{name}.py" for name in ("", "_labels", "_places", "_several")
    ),
)
SLOW_MODULE = re.compile(r"^pytestmark = .*\bpytest\.mark\.slow\b", re.MULTILINE)
FAST_CASES = 2  # of a test with parameters, by `make test-fast`


def _group(nodeid: str) -> str:
    """Return what stays in one process of `make test`: a file, or those of `TOGETHER`."""
    file = nodeid.partition("::")[0]
    return next((group[0] for group in TOGETHER if file.startswith(group)), file)


@pytest.hookimpl(optionalhook=True)  # only where pytest-xdist is installed
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    from xdist.scheduler import LoadScopeScheduling

    class ByGroup(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return _group(nodeid)

    return ByGroup(config, log)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--fast",
        action="store_true",
        help=f"none that is slow or needs a GPU or engines, and {FAST_CASES} cases of each other",
    )


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--fast"):
        settings.load_profile("fast")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Whether a module is slow as a whole: what it needs takes seconds to load."""
    if not config.getoption("--fast") or collection_path.suffix != ".py":
        return None
    return bool(SLOW_MODULE.search(collection_path.read_text(encoding="utf-8"))) or None


@pytest.hookimpl(trylast=True)  # after -m has left some out
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Begin with the groups of the most slow tests, so that the processes end together."""
    if config.getoption("--fast"):
        _keep_fast(config, items)
    slow = Counter(_group(item.nodeid) for item in items if "slow" in item.keywords)
    items.sort(key=lambda item: -slow[_group(item.nodeid)])


def _keep_fast(config: pytest.Config, items: list[pytest.Item]) -> None:
    cases: Counter[str] = Counter()
    kept, left = [], []
    for item in items:
        test = item.nodeid.partition("[")[0]
        is_slow = not {"slow", "gpu", "engines"}.isdisjoint(item.keywords)
        cases[test] += not is_slow
        (left if is_slow or cases[test] > FAST_CASES else kept).append(item)
    items[:] = kept
    config.hook.pytest_deselected(items=left)


@pytest.fixture(autouse=True, scope="session")
def _own_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep hashes and exports of throw-away models out of the user's cache folder, in this process
    and in those that it starts.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VITSEARCH_HOME", str(tmp_path_factory.mktemp("home")))
        yield


@pytest.fixture(scope="session")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with `vitsearch` and `python` that start at once (helpers/prepared.py)."""
    from helpers.prepared import prepared

    with prepared(tmp_path_factory.mktemp("programs")) as folder:
        yield folder


@pytest.fixture
def remarks() -> Iterator[list[str]]:
    """What the library has remarked in this test."""
    with logged_remarks() as lines:
        yield lines


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder of four photos, one of each colour, one of them in a folder below; not indexed."""
    folder = tmp_path / "photos"
    for colour in COLOURS:
        paint(folder / ("sub" if colour == "blue" else "") / f"{colour}.png", colour)
    return folder


@pytest.fixture
def indexed(photos: Path) -> Path:
    """The folder of four photos, indexed with `colour`."""
    index_folder(photos, encoder=ColourEncoder())
    return photos


@pytest.fixture(scope="session")
def s3_endpoint() -> Iterator[str]:
    """The address of an S3 server on loopback that runs as long as the tests."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def s3(s3_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The URL of an empty bucket; keys, region and endpoint are in the environment."""
    from helpers.s3 import BUCKET, s3_client

    for name, value in {
        "AWS_ENDPOINT_URL": s3_endpoint,
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    urllib.request.urlopen(
        urllib.request.Request(f"{s3_endpoint}/moto-api/reset", method="POST"), timeout=10
    ).close()
    s3_client().create_bucket(Bucket=BUCKET)
    return f"s3://{BUCKET}"
