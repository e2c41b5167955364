"""Quantize a model as a job says. ``zorac_deploy.quantize.making`` runs it in the environment of ``locks/``.

Usage: ``program.py JOB_JSON DESCRIPTOR``. Writes one JSON object per line to the file descriptor: ``{"doing": …}``
at the start of a step, ``{"layer": …, "of": …}`` after each layer, ``{"perplexity": …}`` at the end, or
``{"fault": …}``. It ends when its standard input closes, so it does not outlive its parent.
"""

import gc
import hashlib
import json
import math
import os
import sys
import threading
from importlib.metadata import files, version
from pathlib import Path

import torch
from datasets import Dataset, get_dataset_split_names, load_dataset
from llmcompressor import oneshot
from llmcompressor.modifiers import Modifier
from llmcompressor.pipelines.cache import IntermediatesCache
from llmcompressor.recipe import Recipe
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

_SEED = 0
# A book that this package has: Isaac Newton's Opticks, in the public domain. Its last tenth is held out to measure.
_BOOK = ("apache-tvm-ffi", "Isaac.Newton-Opticks.txt")
_HELD_OUT = 0.1
_WINDOWS = 20  # of the held-out text, each as long as a sample

_PACKAGES = ("llmcompressor", "compressed-tensors", "torch", "transformers")

_out = os.fdopen(int(sys.argv[2]), "w", buffering=1)  # not standard output: the libraries print to it


class Fault(Exception):
    """The job cannot be done; the message says why. The second argument is the refusal's id."""


class Progress(Modifier):
    """A modifier that changes nothing and reports each layer."""

    layers: int
    done: int = 0

    def on_initialize(self, state, **_):  # noqa: ARG002
        """Nothing to prepare."""
        return True

    def on_sequential_epoch_end(self, state, event, modules, **_):  # noqa: ARG002
        """A layer is done, or the step after the last one."""
        self.done += 1
        if self.done <= self.layers:
            say(layer=self.done, of=self.layers)


def say(**message):
    """Report to the parent."""
    _out.write(json.dumps(message) + "\n")


def book():
    """The calibration text without a network."""
    package, name = _BOOK
    return next(Path(entry.locate()) for entry in files(package) if entry.name == name).read_text(encoding="utf-8")


def held_out(tokenizer, length):
    """The tokens on which perplexity is measured: pieces of `length` from the end of the book."""
    text = book()
    token_ids = tokenizer(text[-int(len(text) * _HELD_OUT) :], add_special_tokens=False)["input_ids"]
    length = min(length, len(token_ids))
    return [token_ids[at : at + length] for at in range(0, min(len(token_ids), _WINDOWS * length) - length + 1, length)]


def calibration(job, tokenizer):
    """`samples` lists of up to `length` tokens, through the model's chat template if it has one."""
    samples, length, source = job["samples"], job["length"], job["calibration"]
    if source.startswith("hf://") or source.endswith(".jsonl"):
        rows = conversations(source, samples)
    else:
        text = Path(source).read_text(encoding="utf-8") if source else book()[: -int(len(book()) * _HELD_OUT)]
        rows = pieces(tokenizer, text, samples, length)
    if len(rows) < samples:
        raise Fault(
            f"{source} has {len(rows)} conversations, but --samples is {samples}. Use --samples {len(rows)}.",
            "settings-invalid",
        )
    return [{"input_ids": tokens(tokenizer, row)[:length]} for row in rows]


def pieces(tokenizer, text, samples, length):
    """`samples` pieces of `text`, spread evenly, as conversations: a third is the question, the rest the answer."""
    token_ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    if len(token_ids) < samples * length:
        raise Fault(
            f"the text has {len(token_ids)} tokens, but {samples} samples of {length} need {samples * length}. Use a "
            f"longer text, or --samples {max(len(token_ids) // length, 1)}.",
            "settings-invalid",
        )
    step, cut = len(token_ids) // samples, length // 3
    starts = range(0, step * samples, step)
    return [
        [
            {"role": "user", "content": tokenizer.decode(token_ids[at : at + cut])},
            {"role": "assistant", "content": tokenizer.decode(token_ids[at + cut : at + length])},
        ]
        for at in starts
    ]


def conversations(source, samples):
    """The first `samples` rows of a data set, or of a file with a JSON object per line: `messages` or `text`."""
    if source.startswith("hf://"):
        name, _, split = source.removeprefix("hf://").partition(":")
        name, _, revision = name.partition("@")
        split = split or get_dataset_split_names(name, revision=revision or None)[0]
        rows = load_dataset(name, revision=revision or None, split=split, streaming=True)
    else:
        with Path(source).open(encoding="utf-8") as file:
            rows = [json.loads(line) for line in file if line.strip()]
    chosen = []
    for row in rows:
        if len(chosen) == samples:
            break
        if "messages" not in row and "text" not in row:
            raise Fault(f"a row of {source} has {', '.join(row)}, but neither messages nor text.", "settings-invalid")
        chosen.append(row.get("messages") or [{"role": "user", "content": row["text"]}])
    return chosen


def tokens(tokenizer, messages):
    """The tokens of a conversation."""
    if tokenizer.chat_template:
        return tokenizer.apply_chat_template(messages, tokenize=True, return_dict=True)["input_ids"]
    return tokenizer("\n".join(message["content"] for message in messages))["input_ids"]


@torch.no_grad()
def perplexity(model, windows):
    """Exp of the mean negative log-likelihood of every token but the first of each window."""
    device = next(model.parameters()).device
    total = count = 0
    for window in windows:
        ids = torch.tensor([window], device=device)
        logits = model(ids).logits[0, :-1].float()
        total += torch.nn.functional.cross_entropy(logits, ids[0, 1:], reduction="sum").item()
        count += len(window) - 1
    return math.exp(total / count)


def load(folder, device):
    """Load the model in `folder`: onto the GPU as far as it fits, the rest into memory."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype="auto", local_files_only=True)
    if device == "cuda":
        from compressed_tensors.offload import dispatch_model

        dispatch_model(model)
    return model.eval()


def quantize(job):
    """Do `job`."""
    torch.manual_seed(_SEED)
    source, output = job["source"], job["output"]
    try:
        recipe = Recipe.create_instance(job["recipe"]).modifiers
    except (ValueError, TypeError, KeyError) as error:
        raise Fault(f"llmcompressor rejects the recipe: {error}", "recipe-invalid") from None
    calibrated = any(modifier.requires_calibration_data for modifier in recipe)

    say(doing="read the model")
    tokenizer = AutoTokenizer.from_pretrained(source, local_files_only=True)
    config = AutoConfig.from_pretrained(source, local_files_only=True).get_text_config()
    samples = calibration(job, tokenizer) if calibrated else []
    windows = held_out(tokenizer, job["length"])
    model = load(source, job["device"])
    say(doing="measure the original")
    before = perplexity(model, windows)

    say(doing="quantize")
    if not torch.accelerator.is_available():
        # AWQ pins memory for copies to a GPU, and fails without one.
        IntermediatesCache.pin_memory = lambda *_: None
    oneshot(
        model=model,
        recipe=[*recipe, Progress(layers=config.num_hidden_layers)] if calibrated else recipe,
        dataset=Dataset.from_list(samples) if calibrated else None,
        num_calibration_samples=len(samples) or 1,
        max_seq_length=job["length"],
        shuffle_calibration_samples=False,
        pipeline="sequential" if calibrated else "datafree",
    )
    say(doing="write the model")
    model.save_pretrained(output, save_compressed=True)
    del model
    gc.collect()

    say(doing="measure the quantized model")
    after = perplexity(load(output, job["device"]), windows)
    say(
        perplexity={
            "before": round(before, 3),
            "after": round(after, 3),
            "text": f"the last tenth of {_BOOK[1]} in {_BOOK[0]}",
            "windows": len(windows),
            "length": len(windows[0]),
        },
        calibration={
            "text": job["calibration"] or f"the first nine tenths of {_BOOK[1]} in {_BOOK[0]}",
            "sha256": hashlib.sha256(json.dumps(samples).encode()).hexdigest(),
            "samples": len(samples),
            "length": job["length"],
            "chat_template": bool(tokenizer.chat_template),
        }
        if calibrated
        else None,
        seed=_SEED,
        versions={name: version(name) for name in _PACKAGES},
    )


def main():
    """Do the job of the command line, and end without waiting for the libraries' threads."""
    threading.Thread(target=lambda: (sys.stdin.read(), os._exit(1)), daemon=True).start()
    try:
        quantize(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
    except Fault as fault:
        say(fault=fault.args[0], id=fault.args[1])
    except torch.OutOfMemoryError:
        message = (
            "the GPU has too little memory for one layer. Use --device cpu, fewer --samples, or a shorter --length."
        )
        say(fault=message, id="quantize-failed")
    sys.stderr.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
