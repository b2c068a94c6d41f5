#!/usr/bin/env python3
"""Converts a PyTorch checkpoint to a safetensors file, which
model:load(file, {naming = "torchvision"}) reads.

    python3 scripts/convert_pth.py resnet50.pth resnet50.safetensors

Needs PyTorch and nothing else. The checkpoint is a state_dict, or a dictionary with one under
"state_dict", "model_state_dict" or "model" (or elsewhere: --key); "module." in front of all names,
from DataParallel, is dropped. Tensors stay as they are, bit for bit.

A .pth file is a pickle, which can run code. PyTorch from 1.13 on can refuse all but tensors, and
this is what is done; --trust reads other files, too, and is needed with older PyTorch.
"""
import argparse
import ctypes
import inspect
import json
import os
import struct
import sys

import torch

KEYS = ("state_dict", "model_state_dict", "model")

DTYPES = {
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16",
    torch.int64: "I64", torch.int32: "I32", torch.int16: "I16", torch.int8: "I8",
    torch.uint8: "U8", torch.bool: "BOOL",
}


def load(path, trust):
    options = {"map_location": "cpu"}
    can_refuse = "weights_only" in inspect.signature(torch.load).parameters
    if can_refuse:
        options["weights_only"] = not trust
    elif not trust:
        sys.exit("%s: PyTorch %s cannot load a file without running the code in it; give --trust "
                 "if you know where the file comes from" % (path, torch.__version__))
    try:
        return torch.load(path, **options)
    except Exception as problem:  # pickle, zip and PyTorch raise what they like
        more = "; --trust reads files that hold more than tensors, and runs the code in them"
        sys.exit("%s: cannot be loaded: %s%s" % (path, str(problem).splitlines()[0],
                                                 more if can_refuse and not trust else ""))


def is_state(value):
    return isinstance(value, dict) and any(torch.is_tensor(v) for v in value.values())


def find_state(checkpoint, key, path):
    """The dictionary of tensors in what a file held."""
    if isinstance(checkpoint, torch.nn.Module):
        return checkpoint.state_dict()
    if not isinstance(checkpoint, dict):
        sys.exit("%s: expected a dictionary of tensors, got %s" % (path, type(checkpoint).__name__))
    if key is None:
        for key in KEYS:
            if key in checkpoint and not torch.is_tensor(checkpoint[key]):
                break
        else:
            if is_state(checkpoint):
                return checkpoint
            key = None
    state = checkpoint.get(key)
    if isinstance(state, torch.nn.Module):
        return state.state_dict()
    if not is_state(state):
        sys.exit("%s: no tensors; --key names the entry that has them, there are %s"
                 % (path, ", ".join(map(str, checkpoint))))
    return state


def tensors_of(state):
    """Names and tensors, without what is none and without the prefix of DataParallel."""
    tensors, dropped = {}, []
    for name, value in state.items():
        if torch.is_tensor(value) and value.layout == torch.strided and value.dtype in DTYPES:
            tensors[str(name)] = value.detach().contiguous()
        else:
            dropped.append(str(name))
    if tensors and all(name.startswith("module.") for name in tensors):
        tensors = {name[len("module."):]: tensor for name, tensor in tensors.items()}
    if dropped:
        print("left out, because safetensors cannot hold them: " + ", ".join(dropped),
              file=sys.stderr)
    return tensors


def byte_count(tensor):
    return tensor.numel() * tensor.element_size()


def write(path, tensors):
    # Wider numbers first, so that every tensor is aligned to its numbers.
    names = sorted(tensors, key=lambda name: -tensors[name].element_size())
    header, begin = {"__metadata__": {"format": "pt"}}, 0
    for name in names:
        tensor = tensors[name]
        end = begin + byte_count(tensor)
        header[name] = {"dtype": DTYPES[tensor.dtype], "shape": list(tensor.shape),
                        "data_offsets": [begin, end]}
        begin = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    unfinished = path + ".part"
    with open(unfinished, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name in names:
            if byte_count(tensors[name]):
                file.write((ctypes.c_char * byte_count(tensors[name]))
                           .from_address(tensors[name].data_ptr()))
    os.replace(unfinished, path)
    print("%s: %d tensors, %d bytes" % (path, len(names), os.path.getsize(path)))


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", help="a .pth or .pt file")
    parser.add_argument("output", help="the safetensors file to write")
    parser.add_argument("--key", help="the entry of the checkpoint that has the tensors; looked "
                        "for are " + ", ".join(KEYS))
    parser.add_argument("--trust", action="store_true",
                        help="run the code that the file may contain")
    given = parser.parse_args()
    if sys.byteorder != "little":
        sys.exit("this script runs on little-endian machines only")
    if not os.path.isfile(given.checkpoint):
        sys.exit("%s: no such file" % given.checkpoint)
    state = find_state(load(given.checkpoint, given.trust), given.key, given.checkpoint)
    write(given.output, tensors_of(state))


if __name__ == "__main__":
    main()
