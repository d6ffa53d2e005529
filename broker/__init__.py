"""The broker: admission, fair queueing, batching and dispatch; pure decisions in a ZeroMQ shell."""
