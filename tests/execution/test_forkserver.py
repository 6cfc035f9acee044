"""A job handed to the fork server cannot be told from one that runs by itself, but for its start."""

import errno
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
import time
from pathlib import Path

import psutil
import pytest
from valleys.execution import forkserver
from valleys.execution.forkserver_client import VARIABLE
from workflow_runs import ROOT, changed, load, snakemake

SCRIPTS = ROOT / "workflow" / "scripts"
pytestmark = pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="the fork server is for Linux")


@pytest.fixture
def server(monkeypatch):
    """A server of this process, and the address that its jobs read."""
    monkeypatch.setenv(VARIABLE, "")
    process = forkserver.start(SCRIPTS)
    yield process
    process.stdin.close()
    process.wait(timeout=60)


@pytest.fixture(scope="module")
def shared():
    """A server for the tests that leave it as it is."""
    process = forkserver.start(SCRIPTS)
    address = os.environ.pop(VARIABLE)
    yield address
    process.stdin.close()
    process.wait(timeout=60)


def client(folder, body, address=None, **options):
    """Start a script as Snakemake does once `Internals.start_scripts_with` has told it how."""
    script = folder / "script.py"
    head = f"""
        import os, signal, sys, time
        before = [*sys.modules]
        sys.path.append({str(SCRIPTS)!r})
        from valleys.execution.forkserver_client import VARIABLE
        """
    script.write_text(textwrap.dedent(head) + textwrap.dedent(body))
    environment = dict(os.environ)
    if address is not None:
        environment[VARIABLE] = str(address)
    # As at a terminal: tests that a shell runs in the background ignore SIGINT, and children inherit that.
    options.setdefault("preexec_fn", lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))
    return subprocess.Popen(
        [sys.executable, "-I", "-S", str(forkserver.CLIENT), str(script), "one", "two"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=folder,
        env=environment | options.pop("environment", {}),
        **options,
    )


def wait_for(path, seconds=60):
    deadline = time.monotonic() + seconds
    while not (path.exists() and path.read_text()):
        assert time.monotonic() < deadline, path
        time.sleep(0.02)
    return path.read_text()


def ends(pid, seconds=20):
    """Whether a process ends within some seconds."""
    try:
        psutil.Process(pid).wait(timeout=seconds)
    except psutil.NoSuchProcess:
        return True
    except psutil.TimeoutExpired:
        return False
    return True


@pytest.mark.slow
def test_a_job_has_its_own_folder_arguments_environment_and_streams(shared, tmp_path):
    body = """
        print(os.getpid(), "torch" in sys.modules, os.getcwd(), sys.argv[1:], os.environ["COLOUR"])
        print(VARIABLE in os.environ, __name__, sys.stdin.read() == "", file=sys.stderr)
        """
    job = client(tmp_path, body, shared, environment={"COLOUR": "blue"})
    out, err = job.communicate(timeout=60)
    pid, rest = out.split(maxsplit=1)
    assert int(pid) != job.pid
    assert rest == f"True {tmp_path} ['one', 'two'] blue\n"
    assert err == "False __main__ True\n"
    assert job.returncode == 0


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        ("sys.exit(3)", 3, ""),
        ("sys.exit()", 0, ""),
        ("sys.exit('no such file')", 1, "no such file\n"),
        ("1 / 0", 1, "ZeroDivisionError: division by zero\n"),
        ("os.kill(os.getpid(), signal.SIGKILL)", -signal.SIGKILL, ""),
        ("os.kill(os.getpid(), signal.SIGTERM)", -signal.SIGTERM, ""),
    ],
)
def test_the_client_ends_as_the_job_does(shared, tmp_path, body, status, message):
    job = client(tmp_path, body, shared)
    _, err = job.communicate(timeout=60)
    assert job.returncode == status
    assert err.endswith(message)
    assert bool(err) == bool(message)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_signals_are_passed_on(shared, tmp_path, number):
    body = f"""
        def stop(number, frame):
            print("saved")
            sys.exit(7)
        signal.signal({int(number)}, stop)
        # The signal may come at any moment from here on. One that came while a file is thrown away would be
        # lost with it, and one just before a sleep would be seen after it.
        with open("ready", "w") as file:
            file.write(str(os.getpid()))
        while True:
            time.sleep(0.01)
        """
    job = client(tmp_path, body, shared)
    wait_for(tmp_path / "ready")
    job.send_signal(number)
    out, _ = job.communicate(timeout=30)
    assert (out, job.returncode) == ("saved\n", 7)


def test_an_ignored_signal_stays_ignored(shared, tmp_path):
    """As of a command that a shell has put into the background."""
    body = """
        open("ready", "w").write("x")
        time.sleep(0.5)
        """
    job = client(tmp_path, body, shared, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN))
    wait_for(tmp_path / "ready")
    job.send_signal(signal.SIGINT)
    assert job.wait(timeout=30) == 0
    job.communicate()


def test_a_job_does_not_outlive_its_client(shared, tmp_path):
    body = """
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        open("ready", "w").write(str(os.getpid()))
        time.sleep(120)
        """
    job = client(tmp_path, body, shared)
    pid = int(wait_for(tmp_path / "ready"))
    job.kill()
    job.communicate()
    assert ends(pid)


def test_jobs_run_side_by_side(shared, tmp_path):
    """Each of two waits for a file that the other makes."""
    folders = [tmp_path / "a", tmp_path / "b"]
    for folder in folders:
        folder.mkdir()
    body = """
        other = {"a": "b", "b": "a"}[os.path.basename(os.getcwd())]
        open("here", "w").write("x")
        while not os.path.exists(f"../{other}/here"):
            time.sleep(0.01)
        """
    jobs = [client(folder, body, shared) for folder in folders]
    assert [job.wait(timeout=60) for job in jobs] == [0, 0]
    for job in jobs:
        job.communicate()


@pytest.mark.parametrize("made", [True, False])
def test_without_a_server_a_job_runs_where_it_is(tmp_path, made):
    """No socket, or one that nobody listens at."""
    address = tmp_path / "socket"
    if made:
        with socket.socket(socket.AF_UNIX) as closed:
            closed.bind(str(address))
    body = """
        print(os.getpid(), signal.getsignal(signal.SIGTERM) == signal.SIG_DFL)
        """
    job = client(tmp_path, body, address)
    out, err = job.communicate(timeout=60)
    assert (out, err, job.returncode) == (f"{job.pid} True\n", "", 0)


@pytest.mark.slow
@pytest.mark.long
def test_a_job_whose_server_died_counts_as_failed(server, tmp_path):
    body = """
        open("ready", "w").write(str(os.getpid()))
        time.sleep(120)
        """
    job = client(tmp_path, body)
    pid = int(wait_for(tmp_path / "ready"))
    server.kill()
    server.wait()
    os.kill(pid, signal.SIGKILL)
    _, err = job.communicate(timeout=30)
    assert job.returncode == 1
    assert err == "error: the fork server ended while this job ran in it\n"


@pytest.mark.slow
@pytest.mark.long
def test_the_server_ends_with_its_parent_after_its_jobs(server, tmp_path):
    folder = Path(os.environ[VARIABLE]).parent
    assert folder.stat().st_mode & 0o777 == 0o700
    body = """
        open("ready", "w").write("x")
        while not os.path.exists("go"):
            time.sleep(0.01)
        print("done")
        """
    job = client(tmp_path, body)
    wait_for(tmp_path / "ready")
    server.stdin.close()
    time.sleep(0.3)
    assert server.poll() is None
    (tmp_path / "go").touch()
    out, _ = job.communicate(timeout=30)
    assert (out, job.returncode) == ("done\n", 0)
    server.wait(timeout=30)
    assert not folder.exists()


def test_a_job_finds_all_of_the_library_imported(shared, tmp_path):
    """Of a module in a sub-package that is not found each job pays the import, and nothing else says so."""
    job = client(tmp_path, "print(*before)", shared)
    loaded = set(job.communicate(timeout=60)[0].split())
    library = SCRIPTS / "valleys"
    names = {path.relative_to(SCRIPTS).with_suffix("").parts for path in library.rglob("*.py")}
    ours = {".".join(parts).removesuffix(".__init__") for parts in names}
    assert len(ours) > 100
    assert ours | set(forkserver.MODULES) <= loaded
    assert "torchvision" not in loaded  # which only the preparation of a few data sets needs


def test_no_thread_runs_in_the_server(shared):
    """A fork has only the thread that forked: a lock that another held stays locked for ever."""
    servers = [p for p in psutil.Process().children() if shared in p.cmdline()]
    assert [p.num_threads() for p in servers] == [1]


MINE = """
import os
from pathlib import Path
import numpy as np
import psutil

def images():
    Path("parent").write_text(" ".join(psutil.Process(os.getppid()).cmdline()))
    draw = np.random.default_rng(0)
    both = [draw.integers(0, 256, (n, 8, 8), dtype=np.uint8) for n in (120, 60)]
    return tuple((x, x[:, 0, 0].astype(int) // 26) for x in both)
"""


@pytest.mark.slow
@pytest.mark.long
def test_a_run_with_and_without_the_server_writes_the_same_bytes(tmp_path):
    """And with it, jobs are forks of it: nothing else would say so."""
    config = load("config/smoke.yaml")
    config["datasets"]["digits"] = {"source": "callable", "factory": "mine:images"}
    cell = f"results/{config['name']}/cells/digits/mlp/quick/seed-0"
    target = f"{cell}/swa.safetensors"
    found = {}
    for forked in (True, False):
        folder = tmp_path / str(forked)
        folder.mkdir()
        (folder / "mine.py").write_text(MINE)
        with_or_without = changed(config, execution__fork_server=forked)
        status, text = snakemake(folder, with_or_without, target, "--cores", "2", own_server=True)
        assert status == 0, text
        assert ("valleys.execution.forkserver" in (folder / "parent").read_text()) == forked
        found[forked] = {
            path.relative_to(folder): path.read_bytes()
            for path in (folder / cell).rglob("*")
            if path.is_file()
        }
    assert len(found[True]) >= 5
    assert found[True] == found[False]


# --- where its socket is ---


@pytest.fixture
def temporary(monkeypatch):
    """A function that sets TMPDIR, as a new process would find it."""

    def set_to(folder):
        monkeypatch.setattr(tempfile, "tempdir", None)
        if folder is None:
            monkeypatch.delenv("TMPDIR", raising=False)
        else:
            monkeypatch.setenv("TMPDIR", str(folder))

    return set_to


def listens():
    """Whether a server can listen; and where."""
    listener, address = forkserver._listen()
    with listener, socket.socket(socket.AF_UNIX) as client:
        client.connect(address)
    shutil.rmtree(Path(address).parent)
    return Path(address)


@pytest.mark.parametrize(
    "name",
    [
        "short",
        "with space",
        "umlaut-\u00e4\u4e2d",
        "100%",
        "quo'te\"s",
        "{braces}",
        "new\nline",
        "-dash",
        "a" * 60,
    ],
)
def test_the_socket_is_in_the_folder_for_temporary_files(temporary, tmp_path, name):
    # Of a short path, as pytest's own are long already.
    with tempfile.TemporaryDirectory(dir="/tmp") as scratch:
        folder = Path(scratch) / name
        folder.mkdir()
        temporary(folder)
        assert listens().parents[1] == folder
        assert not list(folder.iterdir())


@pytest.mark.parametrize("name", ["a" * 90, "a" * 200, "\u4e2d" * 30, "deep/" * 30, "absent"])
def test_a_folder_that_can_have_none_is_passed_over(temporary, tmp_path, name):
    folder = tmp_path / name
    if name != "absent":
        folder.mkdir(parents=True)
    temporary(folder)
    found = listens()
    assert folder not in found.parents
    assert not folder.exists() or not list(folder.iterdir())


@pytest.mark.parametrize("value", [None, "", "here", "./here"])
def test_a_temporary_folder_may_be_unset_or_relative(temporary, monkeypatch, value):
    with tempfile.TemporaryDirectory(dir="/tmp") as scratch:
        monkeypatch.chdir(scratch)
        Path("here").mkdir()
        temporary(value)
        found = listens()
        assert found.is_absolute()
        assert (Path(scratch) / "here" in found.parents) == bool(value)


def test_no_room_anywhere_is_a_line_and_no_server(temporary, monkeypatch, tmp_path):
    folder = tmp_path / ("a" * 120)
    folder.mkdir()
    temporary(folder)
    monkeypatch.setattr(forkserver, "SHORT_FOLDERS", (str(folder), str(tmp_path / "absent")))
    monkeypatch.delenv(VARIABLE, raising=False)
    told = []
    assert forkserver.start(SCRIPTS, told.append) is None
    assert len(told) == 1
    assert told[0].startswith(
        "No fork server, so each job starts anew and takes some seconds more: AF_UNIX path"
    )
    assert VARIABLE not in os.environ
    assert not list(folder.iterdir())
    assert forkserver.start(SCRIPTS) is None


def test_a_full_disk_is_passed_over(temporary, monkeypatch):
    usual = tempfile.mkdtemp

    def full(prefix, dir):
        if dir is None:
            raise OSError(errno.ENOSPC, "No space left on device")
        return usual(prefix=prefix, dir=dir)

    monkeypatch.setattr(tempfile, "mkdtemp", full)
    assert str(listens()).startswith(forkserver.SHORT_FOLDERS)


@pytest.mark.slow
def test_a_forked_job_finds_modules_where_pythonpath_says(temporary, monkeypatch, tmp_path):
    (tmp_path / "mine.py").write_text("HERE = 'found'")
    long = tmp_path / ("a" * 120)
    long.mkdir()
    temporary(long)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv(VARIABLE, "")
    process = forkserver.start(SCRIPTS)
    try:
        job = client(tmp_path, "import mine; print(mine.HERE, VARIABLE in os.environ)")
        out, err = job.communicate(timeout=60)
        assert out == "found False\n", err  # False: in a fork, the variable is taken away
    finally:
        process.stdin.close()
        process.wait(timeout=60)
