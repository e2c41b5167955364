"""zorac_deploy/models/family.py, and its result in the inventory."""

import json
import shutil

import pytest
import yaml

from zorac_deploy import content, runner
from zorac_deploy.connection import Connection
from zorac_deploy.errors import Refused
from zorac_deploy.inventory import Target
from zorac_deploy.models.family import FAMILIES, chat_template, served

# Registered in vllm/tool_parsers/__init__.py of both 0.26.0 and 0.32.0.
PARSERS = {
    *("apertus", "cohere_command3", "cohere_command4", "deepseek_v3", "deepseek_v31", "deepseek_v32", "deepseek_v4"),
    *("ernie45", "functiongemma", "gemma4", "gigachat3", "glm45", "glm47", "granite", "granite-20b-fc", "granite4"),
    *("hermes", "hunyuan_a13b", "hy_v3", "inkling", "internlm", "jamba", "kimi_k2", "lfm2", "llama3_json"),
    *("llama4_json", "llama4_pythonic", "longcat", "mimo", "minicpm5", "minimax_m2", "minimax_m3", "mistral", "olmo3"),
    *("openai", "phi4_mini_json", "poolside_v1", "pythonic", "qwen3_coder", "qwen3_xml", "seed_oss", "step3"),
    *("step3p5", "xlam"),
}
DEEPSEEK = "<｜tool▁calls▁begin｜>"  # noqa: RUF001


@pytest.fixture
def model(model_folder):
    """A model of a type, with a chat template and further files."""

    def made(model_type, template="{{ messages }}", *more):
        (model_folder / "config.json").write_text(json.dumps({"model_type": model_type}))
        (model_folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": template}))
        for name in more:
            (model_folder / name).write_text("{}")
        return model_folder

    return made


@pytest.mark.parametrize(
    ("model_type", "template", "family", "parser"),
    [
        ("qwen2", "<tool_call>", "Qwen2.5, Qwen3", "hermes"),
        ("qwen3_moe", "<tool_call>\n<function=name>", "Qwen3-Coder, Qwen3.5", "qwen3_xml"),
        ("qwen2", f"{DEEPSEEK}```json", "", None),  # R1 distilled into Qwen
        ("llama", "Environment: ipython", "Llama 3.1 to 3.3", "llama3_json"),
        ("llama", "<tool_call>", "Hermes", "hermes"),
        ("llama", "<|im_start|>", "", None),
        ("mistral", "[INST] [TOOL_CALLS]", "Mistral", "mistral"),
        ("mistral", "<|im_start|> <tool_call>", "Hermes", "hermes"),
        ("granite", "<|tool_call|>", "Granite 3", "granite"),
        ("granitemoehybrid", "<tool_call>", "Granite 4", "granite4"),
        ("deepseek_v3", f"{DEEPSEEK} ```json", "DeepSeek V3, R1", "deepseek_v3"),
        ("deepseek_v3", DEEPSEEK, "DeepSeek V3.1", "deepseek_v31"),
        ("glm4_moe", "<tool_call>{function-name}<arg_key>", "GLM-4.5 to 4.7", "glm47"),
        ("gpt_oss", "<|channel|>", "gpt-oss", "openai"),
        ("gemma3", "<start_of_turn>", "Gemma 1 to 3", None),
        ("gemma4", "<|tool_call>", "Gemma 4", "gemma4"),
        ("phi3", "<|tool|>", "Phi", None),
        ("mamba9", "<tool_call>", "", None),
    ],
)
def test_a_family_is_recognised_by_type_and_template(model, model_type, template, family, parser):
    found = served(model(model_type, template))
    assert (found.family, found.tool_call_parser, found.tokenizer_mode) == (family, parser, "auto")
    assert any("no tool-call parser is known" in note for note in found.notes) == (parser is None)


def test_tekken_json_is_mistrals_own_tokenizer(model):
    found = served(model("mistral", "[INST]", "tekken.json"))
    assert (found.family, found.tokenizer_mode, found.tool_call_parser) == ("Mistral", "mistral", "mistral")
    assert found.notes == ()


def test_a_mistral_model_without_tekken_json_has_a_note(model):
    assert "Zorac summarizes" in served(model("mistral3", "[INST]")).notes[0]


def test_a_base_model_has_no_chat_template(model_folder):
    assert "no chat template" in served(model_folder).notes[0]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("chat_template.jinja", "<tool_call>"),
        ("chat_template.json", '{"chat_template": "<tool_call>"}'),
        (
            "tokenizer_config.json",
            '{"chat_template": [{"name": "default", "template": "a"}, {"template": "<tool_call>"}]}',
        ),
    ],
)
def test_a_chat_template_may_be_in_several_places(model_folder, name, text):
    (model_folder / name).write_text(text)
    assert "<tool_call>" in chat_template(model_folder)


@pytest.mark.parametrize(
    "text", ["", "[", "[" * 100_000, "[]", '{"chat_template": 7}', "\udcff", '"' + "a" * 2**21 + '"']
)
def test_unreadable_files_are_ignored(model_folder, text):
    (model_folder / "tokenizer_config.json").write_bytes(text.encode(errors="surrogateescape"))
    (model_folder / "config.json").write_text('{"model_type": ["llama"]}')
    assert served(model_folder).tool_call_parser is None


def test_a_gguf_file_has_no_vllm_flags(tmp_path):
    assert served(tmp_path / "model.gguf").notes == ()


def test_both_engines_have_the_parsers():
    assert {family.parser for family in FAMILIES} - {None} <= PARSERS


MISTRAL, OTHER, PLAIN = ("mistral", "[INST]", "tekken.json"), ("qwen2", "<tool_call>"), ("llama", "<|im_start|>")


def test_the_users_settings_override_the_family(tmp_path, monkeypatch, model):
    cases = [
        ("headless", MISTRAL, {}, ("mistral", True, "mistral")),  # as in earlier versions: no needless restart
        ("display", MISTRAL, {"vllm_tokenizer_mode": "hf"}, ("hf", True, "mistral")),
        ("headless", MISTRAL, {"vllm_tool_call_parser": None}, ("mistral", False, None)),
        ("headless", MISTRAL, {"vllm_enable_auto_tool_choice": False}, ("mistral", False, "mistral")),
        ("cpu", MISTRAL, {"vllm_tool_call_parser": "hermes"}, ("mistral", True, "hermes")),
        ("cpu", PLAIN, {}, ("auto", False, None)),  # the sandbox's model, as in earlier versions
        ("headless", OTHER, {}, ("auto", True, "hermes")),
        ("display", PLAIN, {}, ("auto", False, None)),
        (
            "display",
            PLAIN,
            {"vllm_enable_auto_tool_choice": True},
            ("auto", True, None),
        ),  # and refused, like the last one
    ]
    groups, names = {}, ("tokenizer_mode", "enable_auto_tool_choice", "tool_call_parser")
    for number, (profile, made, variables, _) in enumerate(cases):
        folder = shutil.copytree(model(*made), tmp_path / f"model-{number}")
        (model(*made) / "tekken.json").unlink(missing_ok=True)
        host = {"ansible_connection": "local", "model_weights_source": str(folder), **variables}
        groups.setdefault(profile, {"hosts": {}})["hosts"][f"host{number}"] = host
    (tmp_path / "hosts.yml").write_text(yaml.safe_dump(groups))
    role = {"ansible.builtin.import_role": {"name": "model_weights", "tasks_from": "preflight"}}
    told = {"{{ inventory_hostname }}": [f"{{{{ vllm_service_flags.{name} }}}}" for name in names]}
    look = {"ansible.builtin.import_role": {"name": "vllm_service", "tasks_from": "preflight"}}
    tasks = [{"name": "Look", **role}, {"name": "Tell", "ansible.builtin.set_fact": told}, {"name": "Check", **look}]
    known = {"engine_path": "/nowhere", "gpu_compatibility_result": {"selected": []}}
    play = [{"name": "Try", "hosts": "all", "gather_facts": False, "vars": known, "tasks": tasks}]
    (tmp_path / "try.yml").write_text(yaml.safe_dump(play))
    monkeypatch.setattr(content, "playbook", lambda _: tmp_path / "try.yml")
    everyone, steps = Connection(Target("all", "cpu", "here", local=True)), []
    sources = [content.profiles(), tmp_path / "hosts.yml"]
    with pytest.raises(Refused, match="no parser is known for this model's tool calls"):
        runner.run("try", sources, everyone, tmp_path / "log", on_step=steps.append)
    assert [step.task for step in steps if step.outcome == "failed"] == ["Require valid settings"]
    facts = {name: value for step in steps for name, value in step.facts.items()}
    for number, (*_, expected) in enumerate(cases):
        assert tuple(facts[f"host{number}"]) == expected, cases[number]
