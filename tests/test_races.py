"""Many writers of one name: each version has one winner, and everybody else knows that he lost."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import dask
import dask.dataframe as dd
import pytest

from pamola_dwriter import finalize, manifest, verify
from pamola_dwriter.artifacts import update_artifact
from pamola_dwriter.errors import ConcurrentWriteError, DataWriteError, MissingKeyError
from pamola_dwriter.paths import open_place
from pamola_dwriter.spec import WriterResult
from pamola_dwriter.targets import Wanted
from tests.places import TUNING, Place, batch

WRITERS = 8
ROUNDS = 3
PARTITIONS = 2

Outcome = WriterResult | Exception
_BEATEN = ConcurrentWriteError.__name__


def people(number: int) -> dd.DataFrame:
    """Return the rows that are of one writer alone."""
    return dd.from_pandas(batch(100 * number), npartitions=PARTITIONS)


def prepare(place: Place, number: int, key: str | None = None, **options: Any) -> Any:
    return place.writer().write_dataframe(
        people(number),
        "people",
        "parquet",
        encryption_key=key,
        write_index=False,
        compute=False,
        **options,
    )


def race(calls: Sequence[Callable[[], WriterResult]]) -> list[Outcome]:
    """Call all at once, each in a thread of its own; return what each of them came to."""
    start = threading.Barrier(len(calls))

    def run(call: Callable[[], WriterResult]) -> Outcome:
        start.wait()
        try:
            return call()
        except DataWriteError as error:
            return error

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(run, calls))


def split(outcomes: Sequence[Outcome]) -> tuple[list[int], list[Outcome]]:
    """Return who won, and the errors of the others."""
    won = [n for n, outcome in enumerate(outcomes) if isinstance(outcome, WriterResult)]
    return won, [outcome for outcome in outcomes if not isinstance(outcome, WriterResult)]


def assert_stands(place: Place, key: str | None, *numbers: int) -> None:
    """Assert that the rows of these writers stand, each once, and that every part is in order."""
    path = f"{place.root}/output/people"
    stored = place.read(path, encryption_key=key)
    assert sorted(stored["x"]) == sorted(x for n in numbers for x in batch(100 * n)["x"])
    verify(path, encryption_key=key, storage_options=place.options)


def test_one_overwrite_wins_each_version(place: Place) -> None:
    """Of 8 threads that overwrite one version, one commits; the others leave nothing behind."""
    for _ in range(ROUNDS):
        lazy = [prepare(place, number) for number in range(WRITERS)]
        outcomes = race([one.compute for one in lazy])
        (winner,), lost = split(outcomes)
        assert {type(error) for error in lost} == {ConcurrentWriteError}
        assert_stands(place, None, winner)
        result = outcomes[winner]
        assert isinstance(result, WriterResult)
        place.assert_no_leftovers(result.write_id)


def test_losers_leave_the_retained_version_alone(place: Place) -> None:
    """What was replaced is still there after a race, and nothing of those who lost."""
    first = prepare(place, 0).compute()
    with dask.config.set({"pamola-dwriter.retain-seconds": 60}):
        lazy = [prepare(place, number) for number in range(WRITERS)]
    outcomes = race([one.compute for one in lazy])
    (winner,), _ = split(outcomes)
    result = outcomes[winner]
    assert isinstance(result, WriterResult)
    assert_stands(place, None, winner)
    assert sum(first.write_id in file for file in place.files()) == PARTITIONS
    place.assert_no_leftovers(first.write_id, result.write_id)


def test_one_first_write_wins(place: Place, key: str | None) -> None:
    """Two writers that both found nothing: one makes the dataset, whoever stages first."""
    for number in range(ROUNDS):
        subdir = f"round{number}"
        lazy = [prepare(place, n, key, subdir=subdir) for n in range(2)]
        outcomes = race([one.compute for one in lazy])
        (winner,), (error,) = split(outcomes)
        assert isinstance(error, ConcurrentWriteError)
        stored = place.read(f"{place.root}/{subdir}/people", encryption_key=key)
        assert stored["x"].tolist() == batch(100 * winner)["x"].tolist()


def test_no_first_write_overwrites_another(place: Place) -> None:
    """With overwrite=False there is one winner too."""
    outcomes = race([prepare(place, n, overwrite=False).compute for n in range(WRITERS)])
    (winner,), lost = split(outcomes)
    assert {type(error) for error in lost} == {ConcurrentWriteError}
    assert_stands(place, None, winner)


def test_every_append_counts_once(place: Place, key: str | None) -> None:
    """Eight threads append; the first of them makes the dataset, and one part table stands."""
    with dask.config.set({"pamola-dwriter.inline-parts": 1}):
        if key is not None:  # the first write of an encrypted dataset draws its key
            prepare(place, WRITERS, key, append=True).compute()
        lazy = [prepare(place, number, key, append=True) for number in range(WRITERS)]
        outcomes = race([one.compute for one in lazy])
    assert split(outcomes)[1] == []
    assert_stands(place, key, *range(WRITERS + (key is not None)))
    assert sum("_parts-" in file for file in place.files()) == 1
    assert place.pending_uploads() == []


def test_appends_race_with_overwrites(place: Place) -> None:
    """Rows stand that were appended to the version that stands; each call says what became of it.

    An overwrite wins against the version that it was prepared for alone, so that no append is
    lost that was committed before it.
    """
    for _ in range(ROUNDS):
        base = prepare(place, 9).compute()
        lazy = [prepare(place, n, append=n % 2 == 0) for n in range(WRITERS)]
        outcomes = race([one.compute for one in lazy])
        won, lost = split(outcomes)
        assert {type(error) for error in lost} <= {ConcurrentWriteError}
        appends = [n for n in range(WRITERS) if n % 2 == 0]
        assert set(appends) <= set(won)
        overwritten = [n for n in won if n % 2 == 1]
        assert len(overwritten) <= 1
        stored = place.read(base.path)
        standing = {x // 100 for x in stored["x"]}
        assert len(stored) == 10 * len(standing)
        if overwritten:  # before the first append, or it would have lost
            assert standing == {*overwritten, *appends}
        else:
            assert standing == {9, *appends}
        verify(base.path, storage_options=place.options)


def test_a_lazy_write_that_was_overwritten_says_so(place: Place, key: str | None) -> None:
    """Computed before or not, it neither comes back nor claims to stand."""
    for computed in (False, True):
        lazy = prepare(place, 1, key)
        if computed:
            lazy.compute()
        winner = prepare(place, 2, key).compute()
        with pytest.raises(ConcurrentWriteError):
            lazy.compute()
        assert_stands(place, key, 2)
        place.assert_no_leftovers(winner.write_id)


@pytest.mark.parametrize("retain", [0, 60])
def test_an_append_that_was_overwritten_does_not_come_back(place: Place, retain: int) -> None:
    """Run once more, its rows are not added to the version that replaced them."""
    with dask.config.set({"pamola-dwriter.retain-seconds": retain}):
        prepare(place, 0).compute()
        lazy = prepare(place, 1, append=True)
        lazy.compute()
        prepare(place, 2).compute()
        with pytest.raises(ConcurrentWriteError):
            lazy.compute()
    assert_stands(place, None, 2)


@pytest.mark.parametrize("retain", [0, 60])
def test_a_late_commit_does_not_come_back(place: Place, retain: int) -> None:
    """A commit that Dask runs again, because its worker died, finds that it was replaced."""
    with dask.config.set({"pamola-dwriter.retain-seconds": retain}):
        prepare(place, 0).compute()
        lazy = prepare(place, 1, append=True)
        graph = dict(lazy.__dask_graph__())
        records = dask.get(graph, [key for key in graph if "gather" in str(key)][-1])
        finalize.finalize(records, None, lazy._spec)
        prepare(place, 2).compute()
        with pytest.raises(ConcurrentWriteError):
            finalize.finalize(records, None, lazy._spec)
    assert_stands(place, None, 2)


def test_keys_that_changed_meanwhile_stay_changed(tmp_path: Any) -> None:
    """An append does not bring back a key that was taken from the dataset since it began."""
    place = Place(str(tmp_path))
    both: Any = ["first passphrase", "second passphrase"]
    result = prepare(place, 0, both).compute()
    lazy = prepare(place, 1, "second passphrase", append=True)
    document = json.loads(result.manifest.read_bytes())
    del document["encryption"]["keys"][0]
    result.manifest.write_text(json.dumps(document))
    lazy.compute()
    assert len(manifest.parse_envelope(result.manifest.read_bytes()).wrapped) == 1
    assert_stands(place, "second passphrase", 0, 1)


@pytest.mark.usefixtures("pii_key")
def test_a_plain_file_does_not_come_back(place: Place) -> None:
    """An append to a plain file that is under way while a sealed one replaces it leaves no twin."""
    place.writer().write_json([1], "log", subdir="")
    target = open_place(place.root, place.options, TUNING)
    wanted = Wanted(name="log", subdir="", extension="json", sealed_as=None)
    sealing: list[threading.Thread] = []

    def seal() -> None:
        place.writer().write_json([2], "log", subdir="", encryption_key="env:PII_KEY")

    def change(stored: bytes | None) -> bytes:
        if not sealing:
            sealing.append(threading.Thread(target=seal))
            sealing[0].start()
            while not target.store.is_file("log.json.pdw"):
                sealing[0].join(0.01)
        return b"[1, 3]"

    try:
        update_artifact(target, wanted, change, (), format_name="json")
    except MissingKeyError:  # the store has no lock: it is told that the file was replaced
        assert place.options
    sealing[0].join()
    assert [file for file in place.files() if not file.endswith(".lock")] == ["log.json.pdw"]


# Processes of their own, as in a cluster: nothing in memory is shared.
_WRITER = """
import json, sys
from pamola_dwriter.errors import DataWriteError
from tests.places import Place
from tests.test_races import prepare

root, options, key = json.loads(sys.stdin.readline())
for line in sys.stdin:
    numbers, append = json.loads(line)
    lazy = [prepare(Place(root, options), number, key, append=append) for number in numbers]
    print("ready", flush=True)
    sys.stdin.readline()
    outcomes = []
    for one in lazy:
        try:
            outcomes.append(one.compute().write_id)
        except DataWriteError as error:
            outcomes.append(type(error).__name__)
    print(json.dumps(outcomes), flush=True)
"""


class Racer:
    """A process that prepares some writes and, when told, computes them one after another."""

    def __init__(self, place: Place, key: str | None) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", _WRITER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._say([place.root, dict(place.options), key])

    def prepare(self, numbers: Sequence[int], *, append: bool) -> None:
        self._say([list(numbers), append])

    def wait_until_ready(self) -> None:
        assert self._hear() == "ready\n"

    def go(self) -> None:
        self._say("go")

    def outcomes(self) -> list[str]:
        """Return the write id of each write, or the type of its error."""
        heard: list[str] = json.loads(self._hear())
        return heard

    def end(self) -> None:
        self._process.communicate(timeout=30)

    def _say(self, message: Any) -> None:
        print(json.dumps(message), file=self._process.stdin, flush=True)

    def _hear(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline()


@pytest.fixture(params=["posix", "s3"])
def scene(request: pytest.FixtureRequest) -> tuple[Place, str | None]:
    """A plain dataset on a disk, or an encrypted one on S3."""
    key = request.getfixturevalue("pii_key") and "env:PII_KEY"
    if request.param == "s3":
        return request.getfixturevalue("s3_place"), key
    return Place(str(request.getfixturevalue("tmp_path"))), None


def test_processes_race(scene: tuple[Place, str | None]) -> None:
    """Of 8 overwrites in 4 processes one commits, twice over; then 8 appends count once each."""
    place, key = scene
    numbers = [[2 * n, 2 * n + 1] for n in range(4)]
    with ExitStack() as stack:
        racers = [Racer(place, key) for _ in numbers]
        for racer in racers:
            stack.callback(racer.end)

        def run(*, append: bool) -> list[str]:
            for racer, own in zip(racers, numbers, strict=True):
                racer.prepare(own, append=append)
            for racer in racers:
                racer.wait_until_ready()
            for racer in racers:
                racer.go()
            return [outcome for racer in racers for outcome in racer.outcomes()]

        prepare(place, 9, key).compute()
        for _ in range(2):
            outcomes = run(append=False)
            (winner,) = (n for n, outcome in enumerate(outcomes) if outcome != _BEATEN)
            assert_stands(place, key, winner)
            place.assert_no_leftovers(outcomes[winner])
        assert _BEATEN not in run(append=True)
    assert_stands(place, key, winner, *range(8))
