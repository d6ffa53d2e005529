"""The demo model: a real zero-shot model for any CPU, made from three packages of the Python index.

It works by ConSE (Norouzi et al. 2013, "Zero-Shot Learning by Convex Combination of Semantic
Embeddings"): an ImageNet classifier (EfficientNet-Lite0) says which classes an image shows, a sentence
encoder (all-MiniLM-L6-v2) has embedded a description of each class, and the image's embedding is the
mean of its ten likeliest classes' embeddings, weighted by their probabilities. Prompts are embedded by
the same sentence encoder, so images and prompts share one space.

`build.build` is the way in. One file, one thing: `sources` (what is fetched), `torch_file` and
`safetensors` (reading weights without their frameworks), `efficientnet` and `minilm` (the ONNX graphs),
`class_vectors` (the classes' embeddings), `golden` (pinned inputs and embeddings that catch a bad build).
"""
