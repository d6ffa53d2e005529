"""The workers: isolated processes that each hold one encoder."""
