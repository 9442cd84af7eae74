"""What a broken device or process does to a study: nothing that a fresh process does not undo."""

import pytest

from components.errors import ConfigurationError, DataError, TryAgainError
from components.search.study.claims import MAX_ATTEMPTS
from components.search.study.study import Study
from components.search.worker.worker import run_worker
from components.stores import open_store
from components.training_step import check_study
from tests.search import toy

BROKEN = RuntimeError(
    "CUDA error: an illegal memory access was encountered\nCUDA kernel errors might be reported later"
)


@pytest.fixture(params=["toy", "gp"])
def algorithm(request):
    """The sampler that the toy is searched with: a toy as well, and scikit-optimize."""
    return request.param


@pytest.fixture(autouse=True)
def toy_parts(monkeypatch, algorithm):
    """Use that sampler; no faults unless a test plans them."""
    toy.use(monkeypatch, algorithm)


@pytest.fixture
def run(tmp_path):
    """Runs a worker on a study of the directory."""

    def run(approach=toy.APPROACH, **changes):
        return run_worker(
            study_root=str(tmp_path),
            name="toy",
            approach=approach,
            train_data=toy.train_data(),
            settings=toy.settings(**changes),
            worker="w0",
            timing=toy.QUICK,
        )

    return run


@pytest.fixture
def study(tmp_path):
    """Opens the study."""
    return lambda: Study.open(open_store(str(tmp_path)), "toy", timing=toy.QUICK)


def with_trainer(trainer):
    """The toy approach with another trainer."""
    return type(toy.APPROACH)(**{**vars(toy.APPROACH), "Trainer": trainer})


def breaking(error):
    """A fault of the toy."""

    def fault(epoch):  # noqa: ARG001
        raise error

    return fault


@pytest.mark.parametrize("error", [BROKEN, MemoryError("full"), ValueError("bug"), OSError(5, "unreadable")], ids=repr)
def test_a_trainer_that_cannot_be_made_costs_no_trial(run, study, error):
    """Ten processes that cannot prepare their device end with 75 each; the study is as if they had not been."""

    class Unable(toy.ToyTrainer):
        def __init__(self, *arguments, **options):  # noqa: ARG002
            raise error

    for _ in range(10):
        with pytest.raises(TryAgainError, match=type(error).__name__) as caught:
            run(with_trainer(Unable))
        assert 75 == caught.value.exit_code
    assert 0 == study().ledger().count("failed")
    ledger = run()

    assert 5 == ledger.count("completed")


def test_a_missing_device_keeps_its_own_code(run):
    """What the trainer says of settings is passed on as it is."""

    class Unable(toy.ToyTrainer):
        def __init__(self, *arguments, **options):  # noqa: ARG002
            raise ConfigurationError("a GPU must be there; got none. Get one")

    with pytest.raises(ConfigurationError):
        run(with_trainer(Unable))


def test_a_device_that_breaks_gives_the_trial_back(run, study):
    """The step ends with 75 and one line; a fresh process trains the same trial, from its checkpoint on."""

    def fault(epoch):
        if epoch == 3:
            raise BROKEN

    toy.ToyTrainer.faults[1] = fault
    with pytest.raises(
        TryAgainError, match="trial 1 must have a working device; got RuntimeError: CUDA error"
    ) as caught:
        run()
    assert "\n" not in str(caught.value)
    assert ["completed", "running"] == [t.status for t in study().ledger().trials]
    toy.ToyTrainer.faults.clear()
    toy.ToyTrainer.fits.clear()
    ledger = run()

    assert ["completed"] * 5 == [t.status for t in ledger.trials]
    assert (1, 3) in toy.ToyTrainer.fits


def test_a_device_that_stays_broken_fails_no_trial(run, study):
    """However many processes try on it, no trial is to blame, and the first one on another device goes on."""
    everything = type("", (dict,), {"get": lambda *_: breaking(BROKEN)})()
    toy.ToyTrainer.faults = everything
    for _ in range(3 * MAX_ATTEMPTS):
        with pytest.raises(TryAgainError):
            run()
    assert 0 == study().ledger().count("failed")
    toy.ToyTrainer.faults = {}

    assert 5 == run().count("completed")


def test_a_trial_that_breaks_devices_which_train_the_defaults_is_failed(run):
    """Three processes that broke under it, two of which had just trained the defaults, are evidence enough."""
    toy.ToyTrainer.faults[1] = breaking(BROKEN)
    for _ in range(MAX_ATTEMPTS):
        with pytest.raises(TryAgainError):
            run()
    ledger = run()

    assert ["completed", "failed"] + ["completed"] * 3 == [t.status for t in ledger.trials]
    assert "the device broke 3 times" in ledger.trials[1].error


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), ImportError("no such library")], ids=repr)
def test_files_and_libraries_are_not_the_trials_either(run, study, error):
    """The error ends the step as it is, and the trial is given back."""
    toy.ToyTrainer.faults[0] = breaking(error)
    with pytest.raises(type(error)):
        run()
    toy.ToyTrainer.faults.clear()

    assert 0 == study().ledger().count("failed")
    assert 5 == run().count("completed")


def test_out_of_memory_and_mistakes_are_the_trials(run, study):
    """Another setting may fit, and will not make the same mistake."""
    toy.ToyTrainer.faults.update(
        {0: breaking(RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"))}
    )
    toy.ToyTrainer.faults[1] = "bug"
    toy.ToyTrainer.faults[2] = breaking(RuntimeError("Expected all tensors to be on the same device, cuda:0 and cpu"))
    ledger = run(trials=10)

    assert ["failed"] * 3 + ["completed"] * 7 == [t.status for t in ledger.trials]
    assert ledger.trials[0].error.startswith("out of memory: CUDA error: CUBLAS_STATUS_ALLOC_FAILED")
    assert ledger.trials[1].error.startswith("ValueError")
    check_study(study())


def test_a_study_in_which_only_devices_failed_can_be_checked(run, study):
    """Before anything finished, the step after the search says that there is no score, not that trials failed."""
    toy.ToyTrainer.faults[0] = breaking(BROKEN)
    with pytest.raises(TryAgainError):
        run()
    with pytest.raises(DataError, match="0 failed"):
        check_study(study())
    assert not study().is_finished()
