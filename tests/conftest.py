"""Keeps TensorFlow and torch in separate test processes, slow tests out of the default run, real data optional."""

import inspect
import os
import signal
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("MPLBACKEND", "agg")

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
REAL_DATA = ROOT.parent / "shared" / "data"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--framework`, `--slow` and `--gpu`."""
    parser.addoption("--framework", choices=("base", "keras", "torch"), default="base", help="which test files to run")
    parser.addoption("--slow", action="store_true", help="run the tests marked slow, and only those")
    parser.addoption(
        "--gpu", action="store_true", help="use this machine's GPU; what needs none or is slow runs as well"
    )


def pytest_configure(config: pytest.Config) -> None:
    """Keep tests off a GPU that they were not asked to use: bit for bit is a promise of CPUs.

    Hear SIGINT even where the tests were started in the background, whose shell has it ignored: children inherit that.
    """
    if not config.getoption("gpu"):
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Ignore the test files of the other frameworks: collecting them would load both into one process."""
    if collection_path.suffix != ".py" or not collection_path.name.startswith("test_"):
        return None
    kind = next((kind for kind in ("keras", "torch") if collection_path.stem.endswith(f"_{kind}")), "base")
    return True if kind != config.getoption("framework") else None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip what was not asked for, with the reason; begin with what takes longest."""
    items.sort(key=lambda item: "long" not in item.keywords)
    on_gpu = config.getoption("gpu")
    for item in items:
        if item.get_closest_marker("gpu") and not on_gpu:
            item.add_marker(pytest.mark.skip(reason="tests marked gpu run with --gpu, on a machine that has one"))
        if not on_gpu and ("slow" in item.keywords) != config.getoption("slow"):
            item.add_marker(pytest.mark.skip(reason="slow tests run with --slow, the others without"))
        if "real" in item.keywords and not REAL_DATA.is_dir():
            item.add_marker(pytest.mark.skip(reason=f"{REAL_DATA} is absent"))


def pytest_collection_finish() -> None:
    """Spare kfp from reading the source of every frame of the tests, which takes it more than half of each compilation.

    It wants to know the name of its caller. In a process with the modules of a whole test run that costs a second.
    """
    if tasks := sys.modules.get("kfp.dsl.pipeline_task"):
        tasks.inspect = SimpleNamespace(stack=lambda: inspect.stack(context=0))


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail where both frameworks were loaded into one process."""
    loaded = {"tensorflow", "torch"} & set(sys.modules)
    if len(loaded) == 2:
        session.exitstatus = pytest.ExitCode.INTERNAL_ERROR
        print("TensorFlow and torch were loaded into one process", file=sys.stderr)  # noqa: T201


@pytest.fixture(scope="session")
def on_gpu(pytestconfig: pytest.Config) -> bool:
    """Whether the tests were asked to use this machine's GPU; where it is not found, those marked gpu fail."""
    return bool(pytestconfig.getoption("gpu"))


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder with the published data sets."""
    return REAL_DATA
