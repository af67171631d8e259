"""Inputs of the node: UDP by a kernel, TCP and TLS; blocks are handed to the decoder."""
