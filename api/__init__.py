"""The HTTP frontends: parse, validate, prepare inputs, ask the broker, answer."""
