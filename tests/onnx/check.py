"""Checks ONNX files: python3 tests/onnx/check.py FILE... Each is checked by onnx.checker, with the
shapes of all values inferred. Prints a line for each, "ok FILE" or "failed FILE: why". Needs the
package onnx (Debian: python3-onnx)."""
import sys

import onnx

for path in sys.argv[1:]:
    try:
        onnx.checker.check_model(path, full_check=True)
        print("ok", path)
    except Exception as problem:  # Anything is a reason to fail.
        print(f"failed {path}: {problem}".replace("\n", " "))
