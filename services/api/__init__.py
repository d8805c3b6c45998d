"""The HTTP API: JSON over HTTP for programs that do not speak RPC, and who may do what."""
