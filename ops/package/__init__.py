"""hailo-clip: CLIP on a Hailo-10H NPU, served over REST."""

__version__ = "0.1.0"
