"""The same job in other servers, to compare with: each script serves one of them, in a venv with it.

All of them answer the requests of `workload.py` with the same emulated encoder on the same device lock.
"""
