"""BLAKE2b from where `hashlib` has it: `hashlib` itself maps OpenSSL, 4 MB in each process."""

try:
    from _blake2 import blake2b as blake2b
except ImportError:  # no CPython
    from hashlib import blake2b as blake2b
