"""The content of a bundle is downloaded by pip and apt: the real ones, from directories of this test."""

import io
import os
import shutil
import subprocess
import tarfile
import zipfile

import pytest

from zorac_deploy.bundle import about, packages, parts, wheels
from zorac_deploy.errors import ZoracDeployError


@pytest.mark.parametrize(
    ("python", "has", "lacks"),
    [
        ("3.11", {"networkx==3.6.1", "numpy==2.3.5"}, {"six"}),
        ("3.12", {"networkx==3.7", "numpy==2.3.5", "six==1.17.0"}, set()),
        ("3.13", {"networkx==3.7", "numpy==2.4.6", "six==1.17.0"}, set()),
    ],
)
def test_a_lock_is_evaluated_for_the_hosts_python(python, has, lacks):
    lock = wheels._lock_file("cuda-0.26.0").read_text()
    found = [line.split(" --hash=") for line in wheels.requirements(lock, about.System(python, 36))]
    assert all(len(words) > 1 and all(word.startswith("sha256:") for word in words[1:]) for words in found)
    names = [words[0].partition("==")[0] for words in found]
    assert len(names) == len(set(names)) > 190
    assert has <= {words[0] for words in found}
    assert not {*lacks, "pywin32", "colorama"} & set(names)


def wheel(folder, name, tag="py3-none-any"):
    with zipfile.ZipFile(folder / f"{name}-{tag}.whl", "w") as archive:
        project, version = name.split("-")
        archive.writestr(f"{name}.dist-info/METADATA", f"Metadata-Version: 2.1\nName: {project}\nVersion: {version}\n")
        archive.writestr(f"{name}.dist-info/WHEEL", f"Wheel-Version: 1.0\nTag: {tag}\n")
    return folder / f"{name}-{tag}.whl"


@pytest.fixture
def shelf(tmp_path, monkeypatch):
    """A directory with wheels as pip's only source."""
    folder = tmp_path / "shelf"
    folder.mkdir()
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    wheel(folder, "uv-0.13.9")
    return folder


def fetch(tmp_path, monkeypatch, lock, name="some"):
    (tmp_path / "lock.txt").write_text(lock)
    monkeypatch.setattr(wheels, "_lock_file", lambda _: tmp_path / "lock.txt")
    engine = about.Engine(lock=name, lock_sha256="0" * 64, uv="0.13.9")
    (tmp_path / "got").mkdir()
    wheels.download(engine, about.SYSTEMS["debian13"], [], tmp_path / "got", lambda *_: None)
    return {path.name for path in (tmp_path / "got" / "wheels").iterdir()}


def test_pip_downloads_the_wheel_for_the_hosts_python(tmp_path, shelf, monkeypatch):
    hashes = []
    for tag in ("cp311-cp311-manylinux_2_28_x86_64", "cp313-cp313-manylinux_2_28_x86_64"):
        made = wheel(shelf, "thing-1.0", tag)
        hashes.append(f"--hash=sha256:{parts.hashlib.sha256(made.read_bytes()).hexdigest()}")
    lock = f"thing==1.0 ; python_version >= '3.13' \\\n    {hashes[0]} \\\n    {hashes[1]}\n"
    assert fetch(tmp_path, monkeypatch, lock) == {
        "uv-0.13.9-py3-none-any.whl",
        "thing-1.0-cp313-cp313-manylinux_2_28_x86_64.whl",
    }


def test_a_wheel_with_another_hash_is_refused_in_pips_words(tmp_path, shelf, monkeypatch):
    wheel(shelf, "thing-1.0")
    with pytest.raises(ZoracDeployError, match=r"(?s)pip reported:.*Re-run the command to resume"):
        fetch(tmp_path, monkeypatch, f"thing==1.0 \\\n    --hash=sha256:{'0' * 64}\n")


def test_llama_cpps_sources_are_downloaded(tmp_path, shelf, monkeypatch):
    source = "llama_cpp_python-0.3.36"
    wheel(shelf, source)  # pip would prefer it
    with tarfile.open(shelf / f"{source}.tar.gz", "w:gz") as archive:
        for name, text in (("PKG-INFO", "Metadata-Version: 2.1\nName: llama_cpp_python\nVersion: 0.3.36\n"), *_BACKEND):
            member = tarfile.TarInfo(f"{source}/{name}")
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text.encode()))
    digest = parts.hashlib.sha256((shelf / f"{source}.tar.gz").read_bytes()).hexdigest()
    wanted = {"__llama_cpp_source": f"llama-cpp-python==0.3.36 --hash=sha256:{digest}"}
    monkeypatch.setattr(wheels, "_role", lambda _: wanted)
    assert fetch(tmp_path, monkeypatch, "", "llama-cpp-cpu-0.3.36") == {"uv-0.13.9-py3-none-any.whl"}
    assert [path.name for path in (tmp_path / "got" / "sources").iterdir()] == [f"{source}.tar.gz"]


# A build backend with metadata, which pip requests.
_BACKEND = (
    ("pyproject.toml", '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'),
    (
        "backend.py",
        "import pathlib\n"
        "def prepare_metadata_for_build_wheel(folder, settings=None):\n"
        "    made = pathlib.Path(folder) / 'llama_cpp_python-0.3.36.dist-info'\n"
        "    made.mkdir()\n"
        "    made.joinpath('METADATA').write_text(pathlib.Path('PKG-INFO').read_text())\n"
        "    return made.name\n",
    ),
)


@pytest.fixture
def archive(tmp_path, monkeypatch):
    """A Debian archive with two packages, one of which requires the other, as apt's only source."""
    folder = tmp_path / "archive"
    entries = []
    for name, version, needs in (("first", "1:2.0", "second"), ("second", "1.0~rc1", "")):
        control = (
            f"Package: {name}\nVersion: {version}\nArchitecture: all\nMaintainer: none\nDescription: made for a test\n"
        )
        control += f"Depends: {needs}\n" if needs else ""
        (tmp_path / name / "DEBIAN").mkdir(parents=True)
        (tmp_path / name / "DEBIAN" / "control").write_text(control)
        folder.mkdir(exist_ok=True)
        subprocess.run(
            ["dpkg-deb", "--build", tmp_path / name, folder / f"{name}.deb"], check=True, capture_output=True
        )
        data = (folder / f"{name}.deb").read_bytes()
        digest = parts.hashlib.sha256(data).hexdigest()
        entries.append(f"{control}Filename: ./{name}.deb\nSize: {len(data)}\nSHA256: {digest}\n")
    (folder / "Packages").write_text("\n".join(entries))
    (tmp_path / "sources.list").write_text(f"deb [trusted=yes] copy:{folder} ./\n")
    (tmp_path / "apt.conf").write_text(
        f'Dir::Etc::SourceList "{tmp_path}/sources.list";\nDir::Etc::SourceParts "/dev/null";\n'
    )
    monkeypatch.setenv("APT_CONFIG", str(tmp_path / "apt.conf"))
    return folder


needs_apt = pytest.mark.skipif(shutil.which("apt-get") is None, reason="needs apt")


@needs_apt
@pytest.mark.usefixtures("archive")
def test_apt_downloads_packages_with_their_dependencies_and_an_index(tmp_path):
    assert packages.download(["first"], tmp_path / "got", lambda *_: None) == ("first", "second")
    assert {path.name for path in (tmp_path / "got").iterdir()} == {"Packages", "first_1.2.0.deb", "second_1.0~rc1.deb"}
    index = (tmp_path / "got" / "Packages").read_text()
    assert "Filename: ./first_1.2.0.deb" in index
    assert index.count("SHA256: ") == 2
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("tmp")] == []


@needs_apt
@pytest.mark.usefixtures("archive")
def test_an_unknown_package_is_refused(tmp_path):
    with pytest.raises(ZoracDeployError, match=r"(?s)Unable to locate package third.*--no-packages"):
        packages.download(["third"], tmp_path / "got", lambda *_: None)
