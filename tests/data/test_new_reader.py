"""A data set of a format of its own, added as CONTRIBUTING.md says: one reader and one line in `READERS`."""

from types import SimpleNamespace

from components.data import ingest
from components.data.findings import Findings
from components.data.readers.labels import make_table
from components.data.readers.members import Limits
from components.data.readers.pairing import pair
from tests.data.builders import jpeg, run_ingest, write_files


def read(members, *, scratch, limit=0):
    """A folder for each class, and nothing else."""
    findings, images = Findings(), {name: name for name in members.names}
    rows = [(name, name, name.partition("/")[0], ()) for name in members.names]
    table = make_table(rows, len(rows), findings, "folders", ())
    return pair(members, table, images, (24, 18), findings, scratch, limit=limit)


FOLDERS = SimpleNamespace(DEFAULT_SOURCE="", KAGGLE_DATASET="", PATTERN=r"[^/]+/[^/]+\.jpg", LIMITS=Limits(), read=read)


def test_a_reader_and_a_line_make_a_data_set(tmp_path, monkeypatch):
    """Ingest reads it, with splits, classes and report as any other."""
    files = {f"{kind}/{n}.jpg": jpeg(seed=10 * k + n) for k, kind in enumerate(("boots", "hats")) for n in range(20)}
    write_files(tmp_path / "source", files)
    monkeypatch.setitem(ingest.READERS, "folders", FOLDERS)

    info = run_ingest(f"folders={tmp_path / 'source'}", tmp_path / "out")

    assert (("boots", "hats"), 40) == (info.classes, info.report["images"])
