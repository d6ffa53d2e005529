"""The benchmark: loads a service as its clients would, and says how near it comes to the device's limit.

What is decided (schedules, statistics, the search, tables, plots) is pure; `load.py`, `service.py` and
`procs.py` do the input and output.
"""
