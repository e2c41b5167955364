"""zorac_deploy/quantize: what cannot work is refused before the work, and the output is complete or absent.

The quantizing program is a stub here: it writes a file of weights and prints what the real one prints. The real one
is tested with `make bench-formats`.
"""

import json
import os
import runpy
import shutil
import stat
import sys
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import MagicMock

import pytest
import yaml
from click.testing import CliRunner

from tests.conftest import safetensors
from tests.hub_server import Hub
from zorac_deploy import environments
from zorac_deploy.cli import cli
from zorac_deploy.errors import Refused
from zorac_deploy.quantize import job, making, prepare, recipe, shipped
from zorac_host import model_manifest

LAYER = recipe.Layer("model.layers.0.self_attn.q_proj", inputs=576, outputs=576)
WIDE = recipe.Layer("model.layers.0.mlp.down_proj", inputs=1536, outputs=576)
HEAD = recipe.Layer("lm_head", inputs=576, outputs=49152)


def header(**shapes):
    """The header of a file of weights in bfloat16."""
    found, at = {}, 0
    for name, (rows, columns) in shapes.items():
        size = rows * columns * 2
        found[name] = {"dtype": "BF16", "shape": [rows, columns], "data_offsets": [at, at + size]}
        at += size
    return found, at


@pytest.fixture
def model(model_folder):
    """A complete model with one linear layer, 64 wide."""
    tensors, size = header(**{"model.embed_tokens.weight": (8, 64), "model.layers.0.mlp.up_proj.weight": (8, 64)})
    (model_folder / "model.safetensors").write_bytes(safetensors(size, tensors))
    (model_folder / "chat_template.jinja").write_text("{{ messages }}")
    (model_folder / "tekken.json").write_text("{}")
    (model_folder / "README.md").write_text("the source's card")
    return model_folder


@pytest.fixture
def program(tmp_path, monkeypatch):
    """A stub for the program; `program.body` is what it does."""
    path = tmp_path / "program.py"
    monkeypatch.setattr(making, "_PROGRAM", path)
    monkeypatch.setattr(environments, "ensure", lambda *_: sys.executable)
    monkeypatch.setattr(environments, "is_there", lambda *_: True)
    words = {
        "perplexity": {"before": 20.0, "after": 21.5, "text": "a book", "windows": 20, "length": 512},
        "calibration": None,
        "seed": 0,
        "versions": {"llmcompressor": "1", "compressed-tensors": "1", "torch": "1", "transformers": "1"},
    }
    start = (
        "import json, os, shutil, sys, time\n"
        "job, out = json.load(open(sys.argv[1])), os.fdopen(int(sys.argv[2]), 'w', buffering=1)\n"
        "def say(**words): out.write(json.dumps(words) + '\\n')\n"
    )
    good = (
        "print('words of a library')\n"
        "say(doing='quantize'); say(layer=1, of=1)\n"
        "shutil.copy(job['source'] + '/model.safetensors', job['output'])\n"
        "os.chmod(job['output'] + '/model.safetensors', 0o600)\n"
        "config = {'model_type': 'rewritten', 'quantization_config': {'quant_method': 'compressed-tensors'}}\n"
        "json.dump(config, open(job['output'] + '/config.json', 'w'))\n"
        f"say(**{words!r})\n"
    )

    def write(body):
        path.write_text(start + body)

    write(good)
    return SimpleNamespace(write=write)


def made(source, told=lambda _: None, **options):
    found = prepare(str(source), "fp8-dynamic", **options)
    return making.make(found, source.parent / "log" / "quantize.log", told)


def refusal(function, *words, **options):
    with pytest.raises(Refused) as refused:
        function(*words, **options)
    return refused.value.refusal, str(refused.value)


def written(tmp_path, content):
    path = tmp_path / "mine.yaml"
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    return str(path)


def quantizing(**words):
    return {"quant_stage": {"quant_modifiers": {"QuantizationModifier": words}}}


@pytest.mark.parametrize("name", shipped())
def test_a_shipped_recipe_is_compatible_with_a_model_that_its_groups_divide(name):
    wide = recipe.Layer("model.layers.0.mlp.down_proj", inputs=1024, outputs=576)
    found = recipe.read(name)
    recipe.check(found, [wide, HEAD])
    assert found.group_of(wide)
    assert not found.group_of(HEAD)


def test_a_group_size_that_does_not_divide_is_refused_with_those_that_do():
    _, said = refusal(recipe.check, recipe.read("awq-w4a16"), [LAYER, WIDE, HEAD])
    assert "576 inputs of model.layers.0.self_attn.q_proj" in said
    assert "--group-size 64 (32 also works)" in said
    recipe.check(recipe.read("awq-w4a16", 64), [LAYER, WIDE, HEAD])


def test_the_requested_group_size_is_in_the_recipe():
    assert recipe.read("gptq-w4a16", 32).groups[0].size == 32
    assert "group_size: 32" in recipe.read("gptq-w4a16", 32).text


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("a: [", "is not YAML"),
        ("just words", "has no modifiers"),
        ({"quant_stage": {"quant_modifiers": {"AWQModifer": {}}}}, "Did you mean AWQModifier"),
        ({"quant_stage": {"quant_modifiers": {"AWQModifier": {"targets": ["Linear"]}}}}, "Add a QuantizationModifier"),
        (quantizing(targets=["Linear"], scheme="W4A15"), "has the unknown scheme W4A15"),
        (quantizing(targets=["Linear"]), "without config_groups or scheme"),
        (quantizing(config_groups={"group_0": {"targets": ["Linear"], "weights": {}}}), "without num_bits"),
    ],
)
def test_an_invalid_recipe_is_refused(tmp_path, content, says):
    found, said = refusal(recipe.read, written(tmp_path, content))
    assert (found, says in said) == ("recipe-invalid", True), said


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ({"targets": ["Linaer"]}, "It has Linear"),
        ({"targets": ["Linear"], "ignore": ["q_porj"]}, "re:.*q_proj$ means all of them"),
        ({"targets": ["re:.*["]}, "is not a regular expression"),
        ({"targets": ["Linear"], "ignore": ["re:.*"]}, "ignores every layer"),
    ],
)
def test_an_unknown_layer_is_refused_with_similar_names(tmp_path, words, says):
    found = recipe.read(written(tmp_path, quantizing(scheme="FP8_DYNAMIC", **words)))
    assert refusal(recipe.check, found, [LAYER, HEAD])[0] == "recipe-invalid"
    assert says in refusal(recipe.check, found, [LAYER, HEAD])[1]


def test_a_scheme_by_name_has_its_own_group_size(tmp_path):
    path = written(tmp_path, quantizing(targets=["Linear"], scheme="W4A16"))
    assert recipe.read(path).groups[0].size == 128
    assert "leave out --group-size" in refusal(recipe.read, path, 64)[1]


def spoiled(model, what):
    if what == "missing":
        shutil.rmtree(model)
    elif what == "gguf":
        for path in model.glob("*.safetensors"):
            path.unlink()
        (model / "model.gguf").write_bytes(b"GGUF\x03\0\0\0")
    elif what == "quantized":
        (model / "config.json").write_text('{"model_type": "x", "quantization_config": {"quant_method": "awq"}}')
    elif what == "tekken":
        (model / "tokenizer.json").unlink()
    elif what == "cut off":
        (model / "model.safetensors").write_bytes(safetensors()[:-1])


@pytest.mark.parametrize(
    ("what", "refused", "says"),
    [
        ("missing", "model-missing", "model not found"),
        ("gguf", "format-unsupported", "is a GGUF file"),
        ("quantized", "format-unsupported", "already quantized by awq"),
        ("tekken", "model-incomplete", "has only tekken.json"),
        ("cut off", "model-damaged", "cut off"),
    ],
)
def test_a_model_that_cannot_be_quantized_is_refused(model, what, refused, says):
    spoiled(model, what)
    found, said = refusal(prepare, str(model), "fp8-dynamic")
    assert (found, says in said) == (refused, True), said


def test_an_existing_output_or_too_little_space_is_refused(model, tmp_path, monkeypatch):
    assert "exists. Remove it" in refusal(prepare, str(model), "fp8-dynamic", output=tmp_path)[1]
    assert "no text" in refusal(prepare, str(model), "fp8-dynamic", calibration=str(tmp_path / "none.txt"))[1]
    monkeypatch.setattr(job, "_available_gib", lambda: 1.0)
    assert refusal(prepare, str(model), "fp8-dynamic")[0] == "model-does-not-fit"
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=0))
    assert refusal(prepare, str(model), "fp8-dynamic")[0] == "disk-full"


@pytest.mark.usefixtures("program")
def test_the_output_is_complete_and_readable_by_the_service(model):
    events = []
    found = made(model, events.append)
    assert found.folder == model.with_name("model-fp8-dynamic")
    assert {path.name for path in found.folder.iterdir()} == {
        "README.md",
        "chat_template.jinja",
        "config.json",
        "model.safetensors",
        "quantization.json",
        "tekken.json",
        "tokenizer.json",
    }
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o644 for path in found.folder.iterdir())
    config = json.loads((found.folder / "config.json").read_text())
    assert config == {"model_type": "llama", "quantization_config": {"quant_method": "compressed-tensors"}}
    assert model_manifest.check(found.folder, tekken=True) == "safetensors"
    assert [(event.layer, event.layers) for event in events if event.layer] == [(1, 1)]


@pytest.mark.usefixtures("program", "new_user")
def test_a_hubs_model_is_checked_before_the_download(model, tmp_path, monkeypatch):
    with Hub("org/name", {path.name: path.read_bytes() for path in model.iterdir()}) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
        monkeypatch.chdir(tmp_path)
        assert refusal(prepare, "hf://org/name", "awq-w4a16")[0] == "recipe-invalid"
        found = prepare("hf://org/name", "fp8-dynamic")
        assert not (tmp_path / "XDG_CACHE_HOME" / "zorac-deploy" / "fetched").exists()
        done = making.make(found, tmp_path / "log", lambda _: None)
    assert done.folder == tmp_path / "name-fp8-dynamic"
    assert done.card["source"]["name"] == f"hf://org/name@{hub.head}"
    assert (done.folder / "chat_template.jinja").read_text() == "{{ messages }}"


@pytest.mark.usefixtures("program")
def test_the_model_card_has_source_recipe_and_results(model):
    found = made(model)
    card = json.loads((found.folder / "quantization.json").read_text())
    assert card == found.card
    assert card["source"]["digest"] == model_manifest.manifest(model)["digest"]
    text = (found.folder / "README.md").read_text()
    for words in ("20.0 | 21.5", card["source"]["digest"], "scheme: FP8_DYNAMIC", "llmcompressor 1"):
        assert words in text


@pytest.mark.parametrize(
    ("body", "refused", "says"),
    [
        ("say(fault='the text holds 3 tokens', id='settings-invalid')", "settings-invalid", "3 tokens"),
        ("sys.exit('it broke')", "quantize-failed", "it broke"),
        ("os.kill(os.getpid(), 9)", "quantize-failed", "killed"),
    ],
)
def test_a_failure_leaves_nothing_behind(model, program, body, refused, says):
    program.write(body)
    found, said = refusal(made, model)
    assert (found, says in said) == (refused, True), said
    assert not list(model.parent.glob("model-fp8-dynamic*"))


@pytest.mark.usefixtures("program")
def test_a_killed_runs_output_is_rebuilt(model):
    left = model.with_name("model-fp8-dynamic.partial")
    left.mkdir()
    (left / "half.safetensors").write_bytes(b"half")
    assert not (made(model).folder / "half.safetensors").exists()
    assert not left.exists()


@pytest.mark.usefixtures("program")
def test_two_runs_do_not_share_an_output(model):
    with making._partial(model.with_name("model-fp8-dynamic")):
        assert "another run is creating" in refusal(made, model)[1]


def test_the_program_ends_with_its_parent(model, program):
    program.write("say(doing='wait')\nsys.stdin.read()\nsay(doing='gone')")

    def stop(_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        made(model, stop)
    assert not list(model.parent.glob("model-fp8-dynamic*"))


@pytest.mark.usefixtures("program")
def test_the_command_reports_as_json(model):
    done = CliRunner().invoke(cli, ["quantize", str(model), "--recipe", "fp8-dynamic", "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["perplexity"]["after"] == 21.5


def test_a_refusal_has_its_exit_code(model):
    done = CliRunner().invoke(cli, ["quantize", str(model), "--recipe", "nothing"])
    assert done.exit_code == 82
    assert "Use one of awq-w4a16" in done.stderr


@pytest.fixture
def real_program(monkeypatch, tmp_path):
    """The functions of the real program, without the libraries of its own environment."""
    fakes = ("torch", "datasets", "llmcompressor", "llmcompressor.modifiers", "llmcompressor.pipelines.cache")
    for name in (*fakes, "llmcompressor.recipe", "transformers"):
        monkeypatch.setitem(sys.modules, name, MagicMock(Modifier=object))
    with (tmp_path / "told").open("w") as told:
        monkeypatch.setattr(sys, "argv", ["program.py", "job.json", str(os.dup(told.fileno()))])
    return SimpleNamespace(**runpy.run_path(str(Path(making.__file__).with_name("program.py"))))


@pytest.mark.parametrize(("length", "windows"), [(16, [16] * 20), (512, [512] * 12), (16384, [6500])])
def test_a_length_beyond_the_text_is_measured_on_the_whole_text(real_program, length, windows):
    real_program.held_out.__globals__["book"] = lambda: "x" * 65_000
    found = real_program.held_out(lambda text, **_: {"input_ids": list(text)}, length)
    assert [len(window) for window in found] == windows
