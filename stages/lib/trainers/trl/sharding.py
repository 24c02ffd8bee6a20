"""Trainings whose processes hold only a part of the weights: ZeRO-3 (DeepSpeed) and FSDP2 (torch).

fsdp2_keys(job)             → the keys of SFTConfig for FSDP2
trained_model(trainer, …)   → the trained model in the first process, in its memory, not on a card; None in the others

Both go through accelerate, which knows them on cards alone. On a CPU, ``prepare_cpu`` leaves its state as it would be
on cards, so that the rest of the path is the same.
"""

from typing import Any

from stages.lib.runtime.devices import split
from stages.lib.training import Job
from stages.lib.training.launching import zero_of


def shards_weights(job: Job) -> bool:
    """Whether no process holds the whole weights."""
    return job.train.fsdp2 or zero_of(job.train.deepspeed) == 3


def fsdp2_keys(job: Job) -> dict[str, Any]:
    """Each layer is a shard of its own, gathered when it computes."""
    if not job.train.fsdp2:
        return {}
    checkpointing = job.train.gradient_checkpointing  # the Trainer's own would gather the weights once more
    return {
        "fsdp": True,
        "fsdp_config": {"version": 2, "reshard_after_forward": True, "activation_checkpointing": checkpointing},
    }


def prepare_cpu(job: Job, config: Any) -> None:
    """Do on a CPU what accelerate does for cards alone: begin DeepSpeed's group, or choose FSDP2."""
    if split(job.run.device)[0] != "cpu" or not shards_weights(job):
        return
    if job.train.deepspeed:
        import deepspeed

        deepspeed.init_distributed(dist_backend="gloo")
        return
    from accelerate.state import AcceleratorState, PartialState
    from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin, TorchDynamoPlugin

    precision = "bf16" if job.train.bf16 else "no"
    AcceleratorState(precision, cpu=True, dynamo_plugin=TorchDynamoPlugin(), _from_accelerator=True)
    plugin = FullyShardedDataParallelPlugin(**config.fsdp_plugin_args)
    if job.train.bf16:
        plugin.set_mixed_precision(precision)
    state = AcceleratorState._shared_state
    state["fsdp_plugin"] = plugin
    state["distributed_type"] = PartialState._shared_state["distributed_type"] = DistributedType.FSDP


def trained_model(trainer: Any, job: Job, adapter: Any) -> Any:
    """The trained model with all its weights, in the first process; shards are gathered there one by one.

    Every process must call this. ``adapter``: peft's settings; None if all weights are trained.
    """
    if not shards_weights(job):
        return trainer.accelerator.unwrap_model(trainer.model)
    import torch
    from peft import get_peft_model
    from transformers import AutoConfig, AutoModelForCausalLM
    from transformers.integrations.deepspeed import unset_hf_deepspeed_config

    weights = trainer.accelerator.get_state_dict(trainer.model_wrapped)
    if not trainer.is_world_process_zero():
        return None
    unset_hf_deepspeed_config()  # else this model would be shared too
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(job.student))
        if adapter:
            model = get_peft_model(model, adapter)
    model.load_state_dict(weights, assign=True)
    model.tie_weights()
    return model
