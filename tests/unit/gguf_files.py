"""GGUF files of models that need not exist, in the documented format, without the tensors' data."""

import struct


def text(value):
    return struct.pack("<Q", len(value.encode())) + value.encode()


def _value(value):
    if isinstance(value, bool):
        return struct.pack("<I?", 7, value)
    if isinstance(value, int):
        return struct.pack("<II", 4, value)
    if isinstance(value, float):
        return struct.pack("<If", 6, value)
    if isinstance(value, str):
        return struct.pack("<I", 8) + text(value)
    kind = 8 if isinstance(value[0], str) else 4
    each = [text(one) if kind == 8 else struct.pack("<I", one) for one in value]
    return struct.pack("<IIQ", 9, kind, len(value)) + b"".join(each)


def header(settings, tensors=()):
    """A header with `settings`, and tensors as (name, shape, type, offset)."""
    parts = [b"GGUF", struct.pack("<IQQ", 3, len(tensors), len(settings))]
    parts += [text(name) + _value(value) for name, value in settings.items()]
    for name, shape, kind, offset in tensors:
        parts.append(text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, offset))
    return b"".join(parts)


def llama(name="llama", **changes):
    """Settings of Mistral Small 24B, with `changes`; dots for double underscores."""
    sizes = {
        "block_count": 40,
        "context_length": 32768,
        "embedding_length": 5120,
        "feed_forward_length": 32768,
        "attention.head_count": 32,
        "attention.head_count_kv": 8,
        "attention.key_length": 128,
        "attention.value_length": 128,
    } | {key.replace("__", "."): value for key, value in changes.items()}
    return {"general.architecture": name} | {f"{name}.{key}": value for key, value in sizes.items()}


def file(path, settings, tensors=(("token_embd.weight", (256, 10), 12, 0),), size=None):
    """A file at `path`, as long as its tensors require, or `size`."""
    begun = header(settings, tensors)
    path.write_bytes(begun)
    with path.open("r+b") as made:
        made.truncate(size if size is not None else (len(begun) + 31) // 32 * 32 + 1440)
    return path
