"""Who writes for a policy: its own loop, vLLM, or a server. One small file an engine, behind
``farm.roles.protocols.SamplingEngine``.

    world:
      engine: vllm                  # configs/engines/vllm.yaml; transformers and server are the others
      engine: {use: vllm, memory: 0.3}

Tokens go in and tokens come out. All engines follow the same rules: the same tokens end a response, the same limit cuts
it, the same temperature divides the logits, and a draw is keyed by (seed, purpose, prompt, occurrence). The engines'
random numbers differ, so one seed gives the same responses with one engine, and other ones with another; greedy
responses agree up to rounding.
"""
